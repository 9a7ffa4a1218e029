/** Search as you type: an ARIA combobox over the catalogue. */

import * as api from "./api.js";
import { byId, element } from "./dom.js";
import { count } from "./format.js";

const DEBOUNCE_MS = 150;
const PAGE_SIZE = 8;

/** `pick(item)` is called with the chosen item; `model()` returns the name of the current model. */
export function createSearch({ pick, model }) {
  const input = byId("search");
  const box = byId("results-box");
  const list = byId("results");
  const note = byId("results-note");
  const newest = api.newestOnly();
  let results = [];
  let active = -1;
  let timer = 0;

  async function runSearch() {
    try {
      const query = input.value.trim();
      const response = await newest((signal) => api.search(query, PAGE_SIZE, model(), signal));
      const more = response.total - response.items.length;
      const none = `Nothing in the catalogue matches “${query}”.`;
      open(response.items, response.total === 0 ? none : more > 0 ? `and ${count(more, "more item")}` : "");
    } catch (error) {
      open([], error.message);
    }
  }

  function open(items, message) {
    results = items;
    list.replaceChildren(...items.map(option));
    list.hidden = items.length === 0;
    note.textContent = message;
    note.hidden = message === "";
    show(true);
    activate(items.length ? 0 : -1);
    byId("status").textContent = items.length ? `${count(items.length, "item")} found` : message;
  }

  function option(item, index) {
    const onPress = (event) => {
      event.preventDefault(); // the focus stays in the search box
      choose(index);
    };
    const facets = (item.facets ?? []).slice(0, 3).map(({ value }) => value).join(", ");
    return element(
      "li",
      { id: `results-${index}`, role: "option", "aria-selected": "false", onmousedown: onPress },
      element("span", {}, item.title || item.item_id),
      element("span", { class: "faint" }, facets || item.item_id),
    );
  }

  function show(isOpen) {
    box.hidden = !isOpen;
    input.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) activate(-1);
  }

  function activate(index) {
    active = index;
    [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === index)));
    if (index < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", `results-${index}`);
    list.children[index].scrollIntoView({ block: "nearest" });
  }

  function choose(index) {
    const item = results[index];
    input.value = "";
    close();
    pick(item);
  }

  function close() {
    clearTimeout(timer);
    newest(() => new Promise(() => {})); // abort a pending search: its results must not reopen the list
    show(false);
    results = [];
  }

  function move(step) {
    if (box.hidden) runSearch();
    else if (results.length) activate((active + step + results.length) % results.length);
  }

  function onInput() {
    clearTimeout(timer);
    if (input.value.trim() === "") close();
    else timer = setTimeout(runSearch, DEBOUNCE_MS);
  }

  input.addEventListener("input", onInput);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && active >= 0) choose(active);
    else if (event.key === "Escape") {
      if (box.hidden) input.value = "";
      close();
    } else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  onInput(); // search for text typed before the page was ready
}

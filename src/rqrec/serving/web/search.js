/** Search as you type: an ARIA combobox over the catalogue. */

import * as api from "./api.js";
import { byId, element } from "./dom.js";
import { count } from "./words.js";

const WAIT_MS = 150;
const PAGE_SIZE = 8;

/** `pick(item)` is called with the chosen item; `model()` names the model in use. */
export function createSearch({ pick, model }) {
  const input = byId("search");
  const box = byId("found-box");
  const list = byId("found");
  const note = byId("found-note");
  const newest = api.newestOnly();
  let found = [];
  let active = -1;
  let timer = 0;

  async function ask() {
    try {
      const query = input.value.trim();
      const answer = await newest((signal) => api.search(query, PAGE_SIZE, model(), signal));
      const more = answer.total - answer.items.length;
      const none = `No title has words that start with “${query}”.`;
      open(answer.items, answer.total === 0 ? none : more > 0 ? `and ${count(more, "more item")}` : "");
    } catch (error) {
      open([], error.message);
    }
  }

  function open(items, message) {
    found = items;
    list.replaceChildren(...items.map(option));
    list.hidden = items.length === 0;
    note.textContent = message;
    note.hidden = message === "";
    show(true);
    activate(items.length ? 0 : -1);
    byId("status").textContent = items.length ? `${count(items.length, "item")} found` : message;
  }

  function option(item, place) {
    const choose = (event) => {
      event.preventDefault(); // the focus stays in the search box
      take(place);
    };
    return element(
      "li",
      { id: `found-${place}`, role: "option", "aria-selected": "false", onmousedown: choose },
      element("span", {}, item.title || item.item_id),
      element("span", { class: "faint" }, item.item_id),
    );
  }

  function show(isOpen) {
    box.hidden = !isOpen;
    input.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) activate(-1);
  }

  function activate(place) {
    active = place;
    [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === place)));
    if (place < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", `found-${place}`);
    list.children[place].scrollIntoView({ block: "nearest" });
  }

  function take(place) {
    const item = found[place];
    input.value = "";
    close();
    pick(item);
  }

  function close() {
    clearTimeout(timer);
    newest(() => new Promise(() => {})); // an answer still on its way must not open the list again
    show(false);
    found = [];
  }

  function move(step) {
    if (box.hidden) ask();
    else if (found.length) activate((active + step + found.length) % found.length);
  }

  function typed() {
    clearTimeout(timer);
    if (input.value.trim() === "") close();
    else timer = setTimeout(ask, WAIT_MS);
  }

  input.addEventListener("input", typed);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && active >= 0) take(active);
    else if (event.key === "Escape") {
      if (box.hidden) input.value = "";
      close();
    } else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  typed(); // what was typed before the page was ready
}

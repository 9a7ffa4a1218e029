/** The dialog of an item: its text, its semantic ID and similar items. */

import * as api from "./api.js";
import { codes } from "./codes.js";
import { button, byId, element, loading, notice } from "./dom.js";
import { facetButtons } from "./facets.js";
import { tile } from "./tile.js";
import { cacheTitles } from "./titles.js";

const SIMILAR = 6;

/** The actions are `add(item)`, `open(id)`, `openPrefix(codes)`, `filter(where)` and `close()`. */
export function createItem({ add, open, openPrefix, filter, close }) {
  const dialog = byId("item");
  const newest = api.newestOnly();
  let shown = null; // item and model, as JSON
  dialog.addEventListener("close", () => shown !== null && close());
  let pressed = false; // beside the dialog: the click of the tap that opened it must not close it
  dialog.addEventListener("pointerdown", (event) => (pressed = event.target === dialog));
  dialog.addEventListener("click", (event) => {
    if (pressed && event.target === dialog) dialog.close();
    pressed = false;
  });

  async function load(id, model) {
    fill(id, loading(4));
    try {
      const [item, similar] = await newest((signal) =>
        Promise.all([api.item(id, model, signal), api.similar(id, SIMILAR, model, signal)]),
      );
      cacheTitles([item, ...similar.items]);
      fill(item.title || item.item_id, ...details(item, similar.items));
    } catch (error) {
      fill(id, notice(error.message));
    }
  }

  function fill(title, ...content) {
    dialog.replaceChildren(
      element(
        "div",
        { class: "card-top" },
        element("h2", { id: "item-title" }, title),
        button("×", () => dialog.close(), { class: "drop", "aria-label": "Close" }),
      ),
      ...content,
    );
  }

  function details(item, similar) {
    const text = saysMore(item) ? element("p", {}, item.text) : null;
    const others = similar.map((other) =>
      element("li", {}, button(other.title || other.item_id, () => open(other.item_id), { class: "plain" })),
    );
    return [
      element("div", { class: "top" }, tile(item), element("div", {}, text, facetButtons(item.facets, filter))),
      element("p", { class: "row" }, codes(item.semantic_id, openPrefix)),
      button("Add to the history", () => add(item), { class: "main" }),
      others.length ? element("h3", {}, "Similar items") : null,
      others.length ? element("ul", { class: "items" }, others) : null,
    ].filter(Boolean);
  }

  return {
    /** Shows an item, or closes the dialog if `id` is null. */
    show(id, model) {
      const query = id === null ? null : JSON.stringify([id, model]);
      if (query === shown) return;
      shown = query;
      if (id === null) return dialog.close();
      load(id, model);
      if (!dialog.open) dialog.showModal();
    },
  };
}

const wordsOf = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/** Whether an item's text has words that are neither in its title nor in its facets, with their fields' names. */
function saysMore({ text, title, facets = [] }) {
  const shown = ["title", title ?? "", ...facets.flatMap(({ field, value }) => [field, value])];
  const known = new Set(shown.flatMap(wordsOf));
  return wordsOf(text ?? "").some((word) => !known.has(word));
}

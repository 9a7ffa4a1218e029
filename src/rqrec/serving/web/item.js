/** One item in a dialog: its text, its semantic ID and what is like it. */

import * as api from "./api.js";
import { codes } from "./codes.js";
import { button, byId, element, loading, notice } from "./dom.js";
import { learn } from "./titles.js";

const SIMILAR = 6;

/** `add(item)`, `open(id)`, `openPrefix(codes)` and `close()` are what people can do here. */
export function createItem({ add, open, openPrefix, close }) {
  const dialog = byId("item");
  const newest = api.newestOnly();
  let asked = null;
  dialog.addEventListener("close", () => asked !== null && close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  async function ask(id, model) {
    fill(id, loading(4));
    try {
      const [item, like] = await newest((signal) =>
        Promise.all([api.item(id, model, signal), api.similar(id, SIMILAR, model, signal)]),
      );
      learn([item, ...like.items]);
      fill(item.title || item.item_id, ...about(item, like.items));
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

  function about(item, like) {
    const text = item.text && item.text !== item.title ? element("p", {}, item.text) : null;
    const others = like.map((other) =>
      element("li", {}, button(other.title || other.item_id, () => open(other.item_id), { class: "plain" })),
    );
    return [
      text,
      element("p", { class: "row" }, codes(item.semantic_id, openPrefix)),
      button("Add to the history", () => add(item), { class: "main" }),
      others.length ? element("h3", {}, "Like it") : null,
      others.length ? element("ul", { class: "items" }, others) : null,
    ].filter(Boolean);
  }

  return {
    /** Opens an item, or closes the dialog where `id` is null. */
    show(id, model) {
      const question = id === null ? null : JSON.stringify([id, model]);
      if (question === asked) return;
      asked = question;
      if (id === null) return dialog.close();
      ask(id, model);
      if (!dialog.open) dialog.showModal();
    },
  };
}

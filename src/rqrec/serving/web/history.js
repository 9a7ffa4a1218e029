/** The history as chips. */

import { button, byId, element, notice } from "./dom.js";
import { titleOf } from "./titles.js";
import { count } from "./format.js";

const MAX_CHIPS = 12;

/** The actions are `remove(index)`, `clear()` and `open(id)`. */
export function createHistory({ remove, clear, open }) {
  const picked = byId("picked");
  let ids = [];
  let unknownUser = null; // a user in the URL that is not a sample user
  let showAll = false;

  function chip(id, index) {
    const title = titleOf(id);
    const drop = () => {
      remove(index);
      (picked.querySelectorAll(".drop")[0] ?? byId("search")).focus();
    };
    return element(
      "li",
      { class: "chip" },
      button(title, () => open(id), { class: "plain" }),
      button("×", drop, { class: "drop", "aria-label": `Remove ${title}` }),
    );
  }

  function clearAll() {
    showAll = false;
    clear();
    byId("search").focus();
  }

  function draw() {
    if (ids.length === 0) {
      return picked.replaceChildren(
        unknownUser === null ? "" : notice(`There is no sample user “${unknownUser}”.`),
      );
    }
    const hidden = showAll ? 0 : Math.max(0, ids.length - MAX_CHIPS);
    const chips = ids.map(chip).slice(hidden).reverse();
    const earlier = () => {
      showAll = true;
      draw();
    };
    picked.replaceChildren(
      element(
        "div",
        { class: "row" },
        element("h3", {}, `${count(ids.length, "item")}, latest first`),
        button("Clear", clearAll, { class: "plain" }),
      ),
      element("ul", { class: "chips", "aria-label": "History" }, chips),
      hidden ? button(`Show ${hidden.toLocaleString("en")} earlier`, earlier, { class: "plain" }) : "",
    );
  }

  return {
    /** Shows a history of item ids, oldest first. */
    show(history) {
      ids = history;
      draw();
    },

    /** Says that the user in the URL, whose history was asked for, is not a sample user; null if there is none. */
    setUnknownUser(user) {
      unknownUser = user;
    },
  };
}

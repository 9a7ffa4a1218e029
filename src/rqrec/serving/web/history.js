/** The history as chips, and the sample users to choose from. */

import { button, byId, element, notice } from "./dom.js";
import { titleOf } from "./titles.js";
import { count } from "./format.js";

const MAX_CHIPS = 12;

/** The actions are `remove(index)`, `clear()`, `open(id)` and `selectUser(userId)`. */
export function createHistory({ remove, clear, open, selectUser }) {
  const picked = byId("picked");
  const pills = byId("users").querySelector(".pills");
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
      const hint = "Nothing yet. Search for something you liked, or pick an item anywhere on this page.";
      return picked.replaceChildren(
        unknownUser === null ? "" : notice(`There is no sample user “${unknownUser}”.`),
        element("p", { class: "empty" }, hint),
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

    /** Sets the sample users to choose from. */
    setUsers(users) {
      byId("users").hidden = users.length === 0;
      pills.replaceChildren(
        ...users.map(({ user_id: id, history }) =>
          button(id, () => selectUser(id), { class: "pill", title: count(history.length, "item"), "data-user": id }),
        ),
      );
    },

    /** Marks the sample user whose history is shown; null if it is not a sample user's. */
    markUser(user) {
      for (const pill of pills.children) pill.setAttribute("aria-pressed", String(pill.dataset.user === user));
      unknownUser = user !== null && ![...pills.children].some((pill) => pill.dataset.user === user) ? user : null;
    },
  };
}

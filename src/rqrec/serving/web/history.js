/** The history as chips, and the sample users that one can be instead. */

import { button, byId, element, notice } from "./dom.js";
import { titleOf } from "./titles.js";
import { count } from "./words.js";

const CHIPS = 12;

/** `remove(place)`, `clear()`, `open(id)` and `be(userId)` are what people can do here. */
export function createHistory({ remove, clear, open, be }) {
  const picked = byId("picked");
  const pills = byId("users").querySelector(".pills");
  let ids = [];
  let stranger = null; // a user in the address whom the service does not offer
  let showAll = false;

  function chip(id, place) {
    const title = titleOf(id);
    const drop = () => {
      remove(place);
      (picked.querySelectorAll(".drop")[0] ?? byId("search")).focus();
    };
    return element(
      "li",
      { class: "chip" },
      button(title, () => open(id), { class: "plain" }),
      button("×", drop, { class: "drop", "aria-label": `Remove ${title}` }),
    );
  }

  function empty() {
    showAll = false;
    clear();
    byId("search").focus();
  }

  function draw() {
    if (ids.length === 0) {
      const hint = "Nothing yet. Search for something you liked, or pick an item anywhere on this page.";
      return picked.replaceChildren(
        stranger === null ? "" : notice(`There is no sample user “${stranger}” here.`),
        element("p", { class: "empty" }, hint),
      );
    }
    const hidden = showAll ? 0 : Math.max(0, ids.length - CHIPS);
    const chips = ids.map(chip).slice(hidden).reverse();
    const earlier = () => {
      showAll = true;
      draw();
    };
    picked.replaceChildren(
      element(
        "div",
        { class: "row" },
        element("h3", {}, `${count(ids.length, "item")}, the latest first`),
        button("Clear", empty, { class: "plain" }),
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

    /** Offers the sample users. */
    offer(users) {
      byId("users").hidden = users.length === 0;
      pills.replaceChildren(
        ...users.map(({ user_id: id, history }) =>
          button(id, () => be(id), { class: "pill", title: count(history.length, "item"), "data-user": id }),
        ),
      );
    },

    /** Marks the sample user whose history is shown, null where it is nobody's. */
    mark(user) {
      for (const pill of pills.children) pill.setAttribute("aria-pressed", String(pill.dataset.user === user));
      stranger = user !== null && ![...pills.children].some((pill) => pill.dataset.user === user) ? user : null;
    },
  };
}

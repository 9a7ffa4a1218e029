/** How to begin: starting points made from the catalogue, and sample users. */

import { button, byId, element } from "./dom.js";
import { count } from "./format.js";

const NAMED = 3; // items of a starting point

/** The actions are `begin(itemIds)` and `selectUser(userId)`. */
export function createWelcome({ begin, selectUser }) {
  const starts = byId("starts");
  const users = byId("users");
  const pills = users.querySelector(".pills");
  const details = byId("begin");

  function start({ label, items }) {
    const titles = items.map((item) => item.title || item.item_id);
    return element(
      "li",
      {},
      button(label, () => begin(items.map((item) => item.item_id)), { class: "start" }, [
        element("strong", {}, label),
        element("span", { class: "faint" }, `${titles.slice(0, NAMED).join(" · ")} …`),
      ]),
    );
  }

  return {
    setStartingPoints(points) {
      starts.hidden = points.length === 0;
      starts.querySelector("ul").replaceChildren(...points.map(start));
    },

    setUsers(all) {
      users.hidden = all.length === 0;
      pills.replaceChildren(
        ...all.map(({ user_id: id, history, likes = [] }) =>
          button(id, () => selectUser(id), { class: "pill", title: count(history.length, "item"), "data-user": id }, [
            element("span", {}, id),
            likes.length ? element("span", { class: "likes" }, likes.slice(0, 2).join(", ")) : null,
          ]),
        ),
      );
    },

    /** Whether it is a sample user's id. */
    knows: (user) => [...pills.children].some((pill) => pill.dataset.user === user),

    /** Folds away once there is a history, and marks the sample user whose history is shown. */
    show(isEmpty, user) {
      for (const pill of pills.children) pill.setAttribute("aria-pressed", String(pill.dataset.user === user));
      details.open = isEmpty || user !== null;
      byId("intro").hidden = !isEmpty;
    },
  };
}

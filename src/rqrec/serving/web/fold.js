/** On phones, the history folds to one line, so that the recommendations are on the first screen. */

import { byId } from "./dom.js";
import { count } from "./format.js";
import { titleOf } from "./titles.js";

/** A history can be folded if it has items; it opens by its button, or when something is added by search. */
export function createFold() {
  const section = byId("history");
  const toggle = byId("fold");
  let open = false;
  toggle.addEventListener("click", () => {
    open = !open;
    draw();
  });

  function draw() {
    const isFolded = section.classList.contains("foldable") && !open;
    section.classList.toggle("folded", isFolded);
    toggle.textContent = isFolded ? "Edit" : "Done";
    toggle.setAttribute("aria-expanded", String(!isFolded));
  }

  return {
    /** Shows the one line of a history of item ids, oldest first. */
    show(ids) {
      open ||= document.activeElement === byId("search");
      section.classList.toggle("foldable", ids.length > 0);
      byId("folded").textContent = `${count(ids.length, "item")}: ${ids.map(titleOf).reverse().join(" · ")}`;
      draw();
    },
  };
}

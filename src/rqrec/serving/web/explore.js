/** The catalogue: as a map of items, as a tree of codes, or as a list of codes. */

import { byId } from "./dom.js";
import { createItemMap } from "./item_map.js";
import { createTree } from "./tree.js";

const VIEWS = ["map", "tree", "list"];

/** The actions are `openPrefix(codes)`, `setView("map" | "tree" | "list")`, `open(id)` and `add(item)`. */
export function createExplore({ openPrefix, setView, open, add }) {
  const map = createItemMap({ open });
  const tree = createTree({ openPrefix, setView, open, add });
  for (const view of VIEWS) byId(`as-${view}`).addEventListener("click", () => setView(view));

  return {
    /** Shows a view of a model's catalogue; a prefix is that of the tree and the list. */
    show(prefix, view, model) {
      for (const each of VIEWS) byId(`as-${each}`).setAttribute("aria-pressed", String(each === view));
      byId("item-map").hidden = view !== "map";
      byId("tree").hidden = view === "map";
      if (view === "map") map.show(model);
      else tree.show(prefix, view, model);
    },

    /** Marks the items of the history, and those that are recommended. */
    mark(historyIds, recommended) {
      map.mark(historyIds, recommended.map((item) => item.item_id));
      tree.mark(recommended);
    },
  };
}

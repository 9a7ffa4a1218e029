/** Why an item was recommended: its codes, the probability of each, and other items with the same prefix. */

import { button, element } from "./dom.js";
import { count, hue, percent } from "./format.js";

const MAX_EXAMPLES = 3;

/** The explanation of an item with its `path`; the actions are `open(id)` and `openPrefix(codes)`. */
export function explanation({ path, semantic_id: semanticId }, actions) {
  const factors = path.map((step) => percent(step.probability)).join(" × ");
  const product = path.reduce((soFar, step) => soFar * step.probability, 1);
  return element(
    "div",
    {},
    element("ol", { class: "path" }, path.map((step, level) => row(step, semanticId.slice(0, level + 1), actions))),
    element("p", { class: "faint" }, `${factors} ≈ ${percent(product)}`),
  );
}

function row({ code, probability, n_items: nItems, others }, prefix, { open, openPrefix }) {
  const level = prefix.length - 1;
  const examples = others.slice(0, MAX_EXAMPLES).flatMap((item, i) => [
    i ? " · " : "",
    button(item.title || item.item_id, () => open(item.item_id), { class: "plain" }),
  ]);
  const rest = nItems - 1 - Math.min(others.length, MAX_EXAMPLES);
  const andMore = rest > 0 ? ` and ${count(rest, "more item")}` : "";
  const sharedWith = nItems === 1 ? ["Only this item."] : ["Shared with ", ...examples, andMore];
  return element(
    "li",
    {},
    button(String(code), () => openPrefix(prefix), {
      class: "code",
      vars: { hue: hue(code, level) },
      "aria-label": `Level ${level + 1}, code ${code}: open prefix ${prefix.join("-")}`,
    }),
    element("span", { class: "bar", vars: { share: probability } }),
    element("strong", {}, percent(probability)),
    element("span", { class: "shared-with" }, sharedWith),
  );
}

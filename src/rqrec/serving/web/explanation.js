/** Why an item: the path of its codes, how likely each was after the ones before it, and who else is there. */

import { button, element } from "./dom.js";
import { count, hue, percent } from "./words.js";

const NEIGHBOURS = 3;

/** The explanation of an item that carries its `path`; `actions` are `open(id)` and `openPrefix(codes)`. */
export function explanation({ path, score, semantic_id: semanticId }, actions) {
  const product = path.map((step) => percent(step.probability)).join(" × ");
  return element(
    "div",
    {},
    element("ol", { class: "path" }, path.map((step, level) => row(step, semanticId.slice(0, level + 1), actions))),
    element("p", { class: "faint" }, `${product} ≈ ${percent(Math.exp(score))}`),
  );
}

function row({ code, probability, n_items: nItems, others }, prefix, { open, openPrefix }) {
  const level = prefix.length - 1;
  const examples = others.slice(0, NEIGHBOURS).flatMap((item, i) => [
    i ? " · " : "",
    button(item.title || item.item_id, () => open(item.item_id), { class: "plain" }),
  ]);
  const rest = nItems - 1 - Math.min(others.length, NEIGHBOURS);
  const andMore = rest > 0 ? ` and ${count(rest, "more item")}` : "";
  const beside = nItems === 1 ? ["This item alone."] : ["With ", ...examples, andMore];
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
    element("span", { class: "beside" }, beside),
  );
}

/** Why an item was recommended: by the person's own items first, then by what each expert says, and by its codes. */

import { codes } from "./codes.js";
import { button, element, inlineButton } from "./dom.js";
import { count, EXPERTS, hue, percent } from "./format.js";

const MAX_EXAMPLES = 3;

/**
 * The explanation of an item with `experts`, `path`, `because` and `beside`. `types` are the types of the model's
 * experts by name; the actions are `open(id)` and `openPrefix(codes)`.
 */
export function explanation(item, types, actions) {
  const { experts, path, because, semantic_id: semanticId } = item;
  const factors = path.map((step) => percent(step.probability)).join(" × ");
  const product = path.reduce((soFar, step) => soFar * step.probability, 1);
  const steps = path.map((step, level) => codeRow(step, semanticId.slice(0, level + 1), actions));
  const names = Object.keys(experts);
  const joined = names.length > 1;
  return element(
    "div",
    { class: "explanation" },
    ownItems(item, actions),
    joined ? element("h3", {}, "How probable it is for each part of the model") : null,
    joined
      ? element(
          "p",
          { class: "faint" },
          `The list’s ${percent(Math.exp(item.score))} is its share among the items that the parts propose together; below is what each part gives it among the whole catalogue.`,
        )
      : null,
    joined
      ? element("ul", { class: "experts" }, names.map((name) => expertRow(name, types[name], experts, because, actions)))
      : null,
    element("h3", {}, "Its codes, one by one"),
    element("ol", { class: "path" }, steps),
    element("p", { class: "faint" }, `${factors} ≈ ${percent(product)}`),
  );
}

/** What the item has to do with the history: shared codes, which the model reads, and neighbours, which it looked up. */
function ownItems({ beside = [], because, path, semantic_id: semanticId }, actions) {
  const most = Math.max(0, ...beside.map(({ shared }) => shared));
  const near = beside.filter(({ shared }) => shared === most);
  const sentences = [];
  if (most > 0) {
    const words = path[most - 1].words ?? [];
    const all = near.length > 1 ? "all begin with " : "both begin with ";
    const prefix = codes(semanticId.slice(0, most), actions.openPrefix);
    const meaning = words.length ? ` (${words.slice(0, 3).join(", ")})` : "";
    sentences.push(["Beside ", ...listed(near, actions), ", which you have: ", all, prefix, meaning, "."]);
  }
  if (because.length) {
    const shown = because.slice(0, MAX_EXAMPLES);
    sentences.push(["Often goes with ", ...listed(shown, actions), ", which you have."]);
  }
  if (!sentences.length && near.length) {
    sentences.push(["None of your items begins with its first code. By all codes, ", ...listed(near.slice(0, 1), actions), " is nearest."]);
  }
  return sentences.length
    ? element("div", { class: "own-items" }, sentences.map((sentence) => element("p", {}, sentence)))
    : null;
}

/** Items as buttons: "A, B and C". */
function listed(items, { open }) {
  return items.flatMap((item, i) => [
    i === 0 ? "" : i === items.length - 1 ? " and " : ", ",
    inlineButton(item.title || item.item_id, () => open(item.item_id)),
  ]);
}

function expertRow(name, type, experts, because, { open }) {
  const [label, description] = EXPERTS[type] ?? [name, ""];
  const probability = experts[name] === null ? 0 : Math.exp(experts[name]);
  const details = type === "neighbours" ? neighbourOf(because, open) : [description];
  return element(
    "li",
    {},
    element("span", { class: "expert" }, name === type ? label : `${label} (${name})`),
    bar(probability),
    element("strong", {}, probability ? percent(probability) : "0 %"),
    element("span", { class: "details" }, details),
  );
}

function neighbourOf(because, open) {
  if (!because.length) return ["Not a neighbour of any item of the history."];
  const shown = because.slice(0, MAX_EXAMPLES).flatMap((item, i) => [
    i ? " · " : "",
    inlineButton(item.title || item.item_id, () => open(item.item_id)),
    ` ${percent(item.share)}`,
  ]);
  const rest = because.length - MAX_EXAMPLES;
  return ["Goes with ", ...shown, rest > 0 ? ` and ${count(rest, "more item")} of the history` : ""];
}

function codeRow({ code, probability, n_items: nItems, words = [], others }, prefix, { open, openPrefix }) {
  const level = prefix.length - 1;
  const examples = others.slice(0, MAX_EXAMPLES).flatMap((item, i) => [
    i ? " · " : "",
    inlineButton(item.title || item.item_id, () => open(item.item_id)),
  ]);
  const rest = nItems - 1 - Math.min(others.length, MAX_EXAMPLES);
  const andMore = rest > 0 ? ` and ${count(rest, "more item")}` : "";
  const about = words.length ? `${words.slice(0, 3).join(", ")}: ` : "";
  const sharedWith = nItems === 1 ? ["Only this item."] : [about, "shared with ", ...examples, andMore];
  return element(
    "li",
    {},
    button(String(code), () => openPrefix(prefix), {
      class: "code",
      vars: { hue: hue(code, level) },
      "aria-label": `Level ${level + 1}, code ${code}: open prefix ${prefix.join("-")}`,
    }),
    bar(probability),
    element("strong", {}, percent(probability)),
    element("span", { class: "details" }, sharedWith),
  );
}

const bar = (share) => element("span", { class: "bar", vars: { share } });

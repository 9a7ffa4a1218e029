/** Two models side by side on one history: the items that only one of them recommends, and the ranks that differ. */

import * as api from "./api.js";
import { announce, button, byId, element, loading, notice } from "./dom.js";
import { filterChips, joined } from "./facets.js";
import { count, EXPERTS, percent } from "./format.js";
import { cacheTitles } from "./titles.js";

const SEPARATOR = "\u0000"; // of model and expert in the value of an option

/** The actions are `open(id)`, `compareWith(model, expert)`, both null to compare with nothing, and `unfilter(where)`. */
export function createCompare({ open, compareWith, unfilter }) {
  const container = byId("comparison");
  const content = byId("recommendations").querySelector(".content");
  const select = byId("compare");
  const newest = api.newestOnly();
  let shown = null; // all that is compared, as JSON
  select.addEventListener("change", () => {
    const [model, expert] = select.value.split(SEPARATOR);
    compareWith(model || null, expert || null);
  });

  async function load(history, k, sides, where) {
    container.replaceChildren(loading(5));
    try {
      const responses = await newest((signal) =>
        Promise.all(
          sides.map(({ model, expert }) => api.recommend(history, k, model, signal, expert === null ? null : [expert], joined(where))),
        ),
      );
      for (const { items } of responses) cacheTitles(items);
      draw(sides, responses, where);
    } catch (error) {
      shown = null;
      container.replaceChildren(notice(error.message, button("Try again", () => load(history, k, sides, where))));
    }
  }

  function draw(sides, responses, where) {
    const ranks = responses.map(({ items }) => new Map(items.map((item, rank) => [item.item_id, rank])));
    const nShared = responses[0].items.filter((item) => ranks[1].has(item.item_id)).length;
    const summary =
      nShared === 0
        ? "No item is in both lists."
        : `${count(nShared, "item")} of ${responses[0].items.length} ${nShared === 1 ? "is" : "are"} in both lists.`;
    announce(summary);
    const legend = " Arrows show how far an item is above or below its rank in the first list.";
    container.replaceChildren(
      filterChips(where, unfilter) ?? "",
      element("p", { class: "lead" }, summary, nShared ? legend : ""),
      element(
        "div",
        { class: "sides" },
        responses.map(({ items, skipped }, side) =>
          element(
            "div",
            { class: "side" },
            element("h3", { id: `side-${side}` }, sides[side].name),
            skipped.length ? element("p", { class: "lead" }, `${count(skipped.length, "item")} of the history unknown.`) : null,
            items.length
              ? element(
                  "ol",
                  { class: "compared", "aria-labelledby": `side-${side}` },
                  items.map((item, rank) => row(item, rank, ranks[1 - side].get(item.item_id), side)),
                )
              : element("p", { class: "empty" }, "It recommends nothing for this history."),
          ),
        ),
      ),
    );
  }

  function row(item, rank, otherRank, side) {
    const isOnly = otherRank === undefined;
    return element(
      "li",
      { class: isOnly ? "only" : null },
      element("span", { class: "rank" }, String(rank + 1)),
      button(item.title || item.item_id, () => open(item.item_id), { class: "plain" }),
      element(
        "span",
        { class: "move" },
        isOnly ? "only here" : side === 1 ? shift(otherRank - rank) : percent(Math.exp(item.score)),
      ),
    );
  }

  function showChoices(models, main, compared, expert) {
    const others = models.filter((model) => model !== main).map((model) => choice(model.name, null, model.name));
    const alone = models
      .filter((model) => model.experts.length > 1)
      .flatMap((model) => model.experts.map((one) => choice(model.name, one.name, sideName(model, one.name))));
    const baselines = models.flatMap((model) => model.baselines.map((one) => choice(model.name, one, sideName(model, one))));
    select.parentElement.hidden = others.length + alone.length + baselines.length === 0;
    const group = (label, options) => (options.length ? element("optgroup", { label }, options) : null);
    const parts = [
      choice("", null, "nothing"),
      group("Models", others),
      group("Experts alone", alone),
      group("Baselines", baselines),
    ];
    select.replaceChildren(...parts.filter(Boolean));
    select.value = [compared?.name ?? "", ...(expert ? [expert] : [])].join(SEPARATOR);
  }

  return {
    /**
     * Shows the recommendations of the model `main` for a history beside those of `compared`, or of its expert alone;
     * if that is undefined, only the choice of what to compare with. Models are as in /v1/models, and `where` are the
     * expressions that have to be true of all items.
     */
    show(history, k, models, main, compared, expert, where) {
      showChoices(models, main, compared, expert);
      content.hidden = compared !== undefined;
      container.hidden = compared === undefined;
      const sides = [
        { model: main?.name, expert: null, name: main?.name },
        { model: compared?.name, expert, name: compared && sideName(compared, expert) },
      ];
      const query = compared === undefined ? null : JSON.stringify([history, k, sides, where]);
      if (query === shown) return;
      shown = query;
      if (query === null) container.replaceChildren();
      else load(history, k, sides, where);
    },
  };
}

const choice = (model, expert, label) =>
  element("option", { value: expert === null ? model : `${model}${SEPARATOR}${expert}` }, label);

function sideName(model, expert) {
  if (expert === null) return model.name;
  if (model.baselines.includes(expert)) return `${model.name}: ${expert}`;
  const { type } = model.experts.find(({ name }) => name === expert) ?? {};
  const [label] = EXPERTS[type] ?? [expert];
  return `${model.name}: ${label === expert || type === expert ? label.toLowerCase() : `${label.toLowerCase()} (${expert})`} alone`;
}

/** 2 -> "▲ 2": two ranks above the other list's. */
function shift(by) {
  if (by === 0) return element("span", { title: "the same rank" }, "=");
  const where = `${count(Math.abs(by), "rank")} ${by > 0 ? "higher" : "lower"}`;
  return element("span", { title: where, "aria-label": where, role: "img" }, `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}`);
}

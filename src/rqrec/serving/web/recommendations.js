/** The recommended items with their probabilities, and an explanation of each on demand. */

import * as api from "./api.js";
import { codes } from "./codes.js";
import { announce, button, byId, element, loading, notice } from "./dom.js";
import { explanation } from "./explanation.js";
import { cacheTitles } from "./titles.js";
import { count, logProbability, percent } from "./format.js";

/**
 * The actions are `add(item)`, `open(id)`, `openPrefix(codes)` and `removeAll(ids)`; `onRecommended(items)` is called
 * with each new list of recommendations. `expertTypes(model)` are the types of a model's experts by name.
 */
export function createRecommendations({ add, open, openPrefix, removeAll, onRecommended, expertTypes }) {
  const content = byId("recommendations").querySelector(".content");
  const newest = api.newestOnly();
  let shown = null; // history, k and model, as JSON

  async function load(history, k, model) {
    content.setAttribute("aria-busy", "true");
    if (!content.querySelector("ol")) content.replaceChildren(loading(5));
    try {
      const response = await newest((signal) => api.recommend(history, k, model, signal));
      cacheTitles(response.items);
      const hadFocus = content.contains(document.activeElement);
      content.replaceChildren(...parts(response, history, k, model));
      if (hadFocus) content.querySelector(".title")?.focus();
      announce(count(response.items.length, "recommendation"));
      onRecommended(response.items);
    } catch (error) {
      shown = null;
      content.replaceChildren(notice(error.message, button("Try again", () => load(history, k, model))));
      onRecommended([]);
    }
    content.removeAttribute("aria-busy");
  }

  function parts({ items, skipped, n_allowed: allowed, model: modelName }, history, k, model) {
    const bestScore = items[0]?.score;
    let explaining = null; // one request explains all items, once the first explanation is asked for
    const explained = async (item) => {
      explaining ??= api.explain(history, k, model);
      try {
        const found = (await explaining).find(({ item_id: id }) => id === item.item_id);
        if (!found) throw new Error("The model was replaced since this was recommended. Reload the page.");
        cacheTitles([...found.path.flatMap((step) => step.others), ...found.because]);
        return explanation(found, expertTypes(modelName), { open, openPrefix });
      } catch (error) {
        explaining = null;
        throw error;
      }
    };
    return [
      skipped.length
        ? notice(
            `Not in the catalogue, and therefore ignored: ${skipped.join(", ")}.`,
            button("Remove from the history", () => removeAll(skipped)),
            "status",
          )
        : null,
      history.length === skipped.length && items.length
        ? element("p", { class: "lead" }, "Without a history, these are the most probable first items.")
        : null,
      items.length
        ? element("ol", { class: "cards" }, items.map((item) => card(item, bestScore, explained)))
        : element("p", { class: "empty" }, "Nothing left to recommend: the history contains the whole catalogue."),
      items.length && items.length < k
        ? element("p", { class: "lead" }, `Only ${count(allowed, "item")} could be recommended.`)
        : null,
    ].filter(Boolean);
  }

  function card(item, bestScore, explained) {
    const title = item.title || item.item_id;
    const why = element("div", { class: "why", hidden: true });
    const explain = async () => {
      why.replaceChildren(loading(item.semantic_id.length));
      try {
        why.replaceChildren(await explained(item));
      } catch (error) {
        why.replaceChildren(notice(error.message, button("Try again", explain)));
      }
    };
    const toggle = ({ currentTarget }) => {
      why.hidden = !why.hidden;
      currentTarget.setAttribute("aria-expanded", String(!why.hidden));
      if (!why.hasChildNodes()) explain();
    };
    return element(
      "li",
      { class: "card" },
      element(
        "div",
        { class: "card-top" },
        button(title, () => open(item.item_id), { class: "plain title" }),
        button("+", () => add(item), { class: "add", "aria-label": `Add ${title} to the history` }),
      ),
      element(
        "div",
        { class: "scores" },
        element("span", { class: "bar", vars: { share: Math.exp(item.score - bestScore) } }),
        element("strong", {}, percent(Math.exp(item.score))),
        element("span", { class: "faint" }, `log-probability ${logProbability(item.score)}`),
        codes(item.semantic_id, openPrefix),
        button("Why", toggle, { class: "plain", "aria-expanded": "false", "aria-label": `Why ${title}` }),
      ),
      why,
    );
  }

  return {
    /** Shows the recommendations for a history of item ids. */
    show(history, k, model) {
      const query = JSON.stringify([history, k, model]);
      if (query === shown) return;
      shown = query;
      load(history, k, model);
    },
  };
}

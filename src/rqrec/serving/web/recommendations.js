/** The recommended items with their probabilities, and an explanation of each on demand. */

import * as api from "./api.js";
import { codes } from "./codes.js";
import { announce, button, byId, element, inlineButton, loading, notice } from "./dom.js";
import { explanation } from "./explanation.js";
import { facetButtons, filterChips, joined } from "./facets.js";
import { count, logProbability, percent } from "./format.js";
import { tile } from "./tile.js";
import { cacheTitles } from "./titles.js";

/**
 * The actions are `add(item)`, `open(id)`, `openPrefix(codes)`, `removeAll(ids)`, `filter(where)` and
 * `unfilter(...where)`; `onRecommended(items)` is called
 * with each new list of recommendations. `expertTypes(model)` are the types of a model's experts by name.
 */
export function createRecommendations({ add, open, openPrefix, removeAll, filter, unfilter, onRecommended, expertTypes }) {
  const content = byId("recommendations").querySelector(".content");
  const newest = api.newestOnly();
  let shown = null; // what is shown, as JSON

  async function load(asked) {
    const { history, k, model, where } = asked;
    content.setAttribute("aria-busy", "true");
    if (!content.querySelector("ol")) content.replaceChildren(loading(5));
    try {
      const response = await newest((signal) => api.recommend(history, k, model, signal, null, joined(where)));
      cacheTitles(response.items);
      const hadFocus = content.contains(document.activeElement);
      content.replaceChildren(...parts(response, asked));
      if (hadFocus) content.querySelector(".title")?.focus();
      announce(count(response.items.length, "recommendation"));
      onRecommended(response.items);
    } catch (error) {
      shown = null;
      content.replaceChildren(...failure(error, asked).filter(Boolean));
      onRecommended([]);
    }
    content.removeAttribute("aria-busy");
  }

  /** A filter that cannot be read is removed in one step; anything else may be tried again. */
  function failure(error, asked) {
    const { where } = asked;
    if (error.code !== "invalid_rules" || !where.length) {
      return [filterChips(where, unfilter), notice(error.message, button("Try again", () => load(asked)))];
    }
    const label = where.length > 1 ? "Remove the filters" : "Remove the filter";
    return [where.length > 1 ? filterChips(where, unfilter) : null, notice(error.message, button(label, () => unfilter(...where)))];
  }

  function parts({ items, skipped, n_allowed: allowed, model: modelName }, { history, k, model, where, user }) {
    const bestScore = items[0]?.score;
    let explaining = null; // one request explains all items, once the first explanation is asked for
    const explained = async (item) => {
      explaining ??= api.explain(history, k, model, joined(where));
      try {
        const found = (await explaining).find(({ item_id: id }) => id === item.item_id);
        if (!found) throw new Error("The model was replaced since this was recommended. Reload the page.");
        cacheTitles([...found.path.flatMap((step) => step.others), ...found.because, ...found.beside]);
        return explanation(found, expertTypes(modelName), { open, openPrefix });
      } catch (error) {
        explaining = null;
        throw error;
      }
    };
    return [
      filterChips(where, unfilter),
      user && !where.length ? outcome(user, items) : null,
      skipped.length
        ? notice(
            `Not in the catalogue, and therefore ignored: ${skipped.join(", ")}.`,
            button("Remove from the history", () => removeAll(skipped)),
            "status",
          )
        : null,
      history.length === skipped.length && items.length
        ? element("p", { class: "lead" }, "What people most probably begin with. Pick something, and this list is about you.")
        : null,
      items.length
        ? element("ol", { class: "cards" }, items.map((item) => card(item, bestScore, explained, user?.next)))
        : element("p", { class: "empty" }, where.length ? "No item is like that: remove a filter." : "Nothing left to recommend: the history contains the whole catalogue."),
      items.length && items.length < k
        ? element("p", { class: "lead" }, `Only ${count(allowed, "item")} could be recommended.`)
        : null,
    ].filter(Boolean);
  }

  function card(item, bestScore, explained, taken) {
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
    const isTaken = item.item_id === taken?.item_id;
    const probability = percent(Math.exp(item.score));
    return element(
      "li",
      { class: isTaken ? "card taken" : "card" },
      tile(item),
      element(
        "div",
        { class: "about-item" },
        element(
          "div",
          { class: "card-top" },
          button(title, () => open(item.item_id), { class: "plain title" }),
          button("+", () => add(item), { class: "add", "aria-label": `Add ${title} to the history` }),
        ),
        isTaken ? element("p", {}, element("span", { class: "badge" }, "Really taken next")) : null,
        facetButtons(item.facets, filter),
        element(
          "div",
          { class: "scores" },
          element("span", { class: "bar", vars: { share: Math.exp(item.score - bestScore) } }),
          element("strong", { title: `log-probability ${logProbability(item.score)}` }, probability),
          codes(item.semantic_id, openPrefix),
          button("Why", toggle, { class: "plain", "aria-expanded": "false", "aria-label": `Why ${title}` }),
        ),
      ),
      why,
    );
  }

  /** What a sample user really took next, and whether the model guessed it. */
  function outcome({ next, rank }, items) {
    const place = items.findIndex(({ item_id: id }) => id === next.item_id) + 1;
    const guessed = place
      ? place === 1 ? "the model’s first guess." : `number ${place} of this list.`
      : rank ? `number ${rank} of the model’s list.` : "not among the model’s first 100.";
    const title = inlineButton(next.title || next.item_id, () => open(next.item_id));
    return element("p", { class: "outcome" }, "What this person really took next: ", title, ", ", guessed);
  }

  return {
    /**
     * Shows the recommendations for a history of item ids, of which all expressions in `where` are true; `user` is the
     * sample user whose history it is, or null.
     */
    show(history, k, model, where, user) {
      const asked = { history, k, model, where, user };
      const query = JSON.stringify(asked);
      if (query === shown) return;
      shown = query;
      load(asked);
    },
  };
}

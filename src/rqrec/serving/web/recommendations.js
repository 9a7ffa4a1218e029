/** The recommended items with their probabilities, each with its explanation on demand. */

import * as api from "./api.js";
import { codes } from "./codes.js";
import { announce, button, byId, element, loading, notice } from "./dom.js";
import { explanation } from "./explanation.js";
import { learn } from "./titles.js";
import { count, logProbability, percent } from "./words.js";

/**
 * `add(item)`, `open(id)`, `openPrefix(codes)` and `removeAll(ids)` are what people can do here; `found(items)`
 * tells the rest of the page what is recommended.
 */
export function createRecommendations({ add, open, openPrefix, removeAll, found }) {
  const content = byId("recommendations").querySelector(".content");
  const newest = api.newestOnly();
  let asked = null;

  async function ask(history, k, model) {
    content.setAttribute("aria-busy", "true");
    if (!content.querySelector("ol")) content.replaceChildren(loading(5));
    try {
      const answer = await newest((signal) => api.recommend(history, k, model, signal));
      learn(answer.items);
      const hadFocus = content.contains(document.activeElement);
      content.replaceChildren(...parts(answer, history, k, model));
      if (hadFocus) content.querySelector(".title")?.focus();
      announce(count(answer.items.length, "recommendation"));
      found(answer.items);
    } catch (error) {
      asked = null;
      content.replaceChildren(notice(error.message, button("Try again", () => ask(history, k, model))));
      found([]);
    }
    content.removeAttribute("aria-busy");
  }

  function parts({ items, skipped, n_allowed: allowed }, history, k, model) {
    const likeliest = items[0]?.score;
    return [
      skipped.length
        ? notice(
            `Left out, because the catalogue does not have it: ${skipped.join(", ")}.`,
            button("Remove from the history", () => removeAll(skipped)),
            "status",
          )
        : null,
      history.length === skipped.length && items.length
        ? element("p", { class: "lead" }, "Without a history, this is what the model expects first.")
        : null,
      items.length
        ? element("ol", { class: "cards" }, items.map((item) => card(item, likeliest, history, model)))
        : element("p", { class: "empty" }, "Nothing is left to recommend: the history holds the whole catalogue."),
      items.length && items.length < k
        ? element("p", { class: "lead" }, `Only ${count(allowed, "item")} could be recommended.`)
        : null,
    ].filter(Boolean);
  }

  function card(item, likeliest, history, model) {
    const title = item.title || item.item_id;
    const why = element("div", { class: "why", hidden: true });
    const explain = async () => {
      why.replaceChildren(loading(item.semantic_id.length));
      try {
        const explained = await api.explain(history, item.item_id, model);
        learn(explained.path.flatMap((step) => step.others));
        why.replaceChildren(explanation(explained, { open, openPrefix }));
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
        element("span", { class: "bar", vars: { share: Math.exp(item.score - likeliest) } }),
        element("strong", {}, percent(Math.exp(item.score))),
        element("span", { class: "faint" }, `log-probability ${logProbability(item.score)}`),
        codes(item.semantic_id, openPrefix),
        button("Why", toggle, { class: "plain", "aria-expanded": "false", "aria-label": `Why ${title}` }),
      ),
      why,
    );
  }

  return {
    /** Shows what comes after a history of item ids. */
    show(history, k, model) {
      const question = JSON.stringify([history, k, model]);
      if (question === asked) return;
      asked = question;
      ask(history, k, model);
    },
  };
}

/** Facets of items as buttons that filter the recommendations, and the filters in use. */

import { button, element } from "./dom.js";

/** The facets of an item as buttons; `filter(where)` is called with the expression of the clicked one. */
export function facetButtons(facets, filter) {
  if (!facets?.length) return null;
  const items = facets.map(({ value, where, label }) =>
    element(
      "li",
      {},
      button(value, () => filter(where), { class: "facet", "aria-label": `${value}: only ${label}`, title: `Only ${label}` }),
    ),
  );
  return element("ul", { class: "facets", "aria-label": "Fields" }, items);
}

/** The filters in use, each with a button that removes it. */
export function filterChips(filters, remove) {
  if (!filters.length) return null;
  const chips = filters.map((where) =>
    element(
      "li",
      { class: "chip" },
      element("span", {}, inWords(where)),
      button("×", () => remove(where), { class: "drop", "aria-label": `Remove the filter ${inWords(where)}` }),
    ),
  );
  return element("div", { class: "filters" }, element("span", { class: "faint" }, "Only"), element("ul", { class: "chips", "aria-label": "Filters" }, chips));
}

/** Expressions of which all have to be true, as one; null if there are none. One alone stays as it was written. */
export const joined = (filters) =>
  filters.length > 1 ? filters.map((where) => `(${where})`).join(" and ") : (filters[0] ?? null);

/** What an expression of a facet means; any other is shown as it is. */
function inWords(where) {
  const equal = where.match(/^`([^`]+)` = (?:'([^']*)'|"([^"]*)"|(\S+))$/);
  if (equal) return equal[2] ?? equal[3] ?? (equal[4] === "true" ? equal[1] : `${equal[1]} ${equal[4]}`);
  const range = where.match(/^`([^`]+)` >= (\S+) and `\1` <= (\S+)$/);
  return range ? `${range[1]} ${range[2]} to ${range[3]}` : where;
}

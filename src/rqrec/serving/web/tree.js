/** The semantic-ID tree, one prefix at a time: its next codes as a treemap or a list, typical words, and items. */

import * as api from "./api.js";
import { announce, button, byId, element, loading, notice } from "./dom.js";
import { drawTreemap, growFrom } from "./treemap_view.js";
import { cacheTitles } from "./titles.js";
import { countFitting } from "./treemap.js";
import { count, hue } from "./format.js";

const PAGE_SIZE = 24;
const MIN_CELL_AREA = 26 * 26; // px²: large enough to tap
const CODES = ".cell, .code-row";

/** The actions are `openPrefix(codes)`, `setView("tree" | "list")`, `open(id)` and `add(item)`. */
export function createTree({ openPrefix, setView, open, add }) {
  const section = byId("tree");
  const container = byId("node");
  const newest = api.newestOnly();
  let shown = null; // prefix and model, as JSON
  let node = null; // the displayed node
  let view = "tree";
  let model = null;
  let recommended = [];
  let opened = null; // rectangle of the opened cell, out of which the next map grows

  async function load(prefix) {
    const hadFocus = section.contains(document.activeElement);
    drawCrumbs(prefix);
    section.setAttribute("aria-busy", "true");
    if (!node) container.replaceChildren(loading(6));
    try {
      node = await newest((signal) => api.node(prefix, 1, PAGE_SIZE, model, signal));
      cacheTitles(node.items);
      draw();
      if (hadFocus) container.querySelector(CODES)?.focus();
      announce(`${prefix.length ? `Prefix ${prefix.join("-")}` : "All codes"}: ${count(node.n_items, "item")}`);
    } catch (error) {
      shown = node = opened = null;
      container.replaceChildren(notice(error.message, button("Try again", () => load(prefix))));
    }
    section.removeAttribute("aria-busy");
  }

  function drawCrumbs(prefix) {
    const crumb = (depth) => {
      const isLast = depth === prefix.length;
      const label = depth ? String(prefix[depth - 1]) : "All items";
      return element(
        "li",
        {},
        isLast
          ? element("span", { "aria-current": "location" }, label)
          : button(label, () => openPrefix(prefix.slice(0, depth)), { class: "plain" }),
      );
    };
    byId("crumbs").replaceChildren(...Array.from({ length: prefix.length + 1 }, (_, depth) => crumb(depth)));
  }

  function draw() {
    if (!node) return;
    const about = [count(node.n_items, "item"), node.words.join(", ")].filter(Boolean).join(" · ");
    container.replaceChildren(
      element("p", { class: "about" }, about),
      element("div", { class: "codes-box", hidden: node.children.length === 0 }),
      element("h3", {}, node.prefix.length ? `Items below ${node.prefix.join("-")}` : "Items of the catalogue"),
      itemList(),
    );
    drawCodes();
  }

  function drawCodes() {
    const box = container.querySelector(".codes-box");
    if (!box || box.hidden) return;
    const focused = [...box.querySelectorAll(CODES)].indexOf(document.activeElement);
    if (view === "list") box.replaceChildren(codeList());
    else drawTreemapIn(box);
    if (focused >= 0) box.querySelectorAll(CODES)[focused]?.focus();
  }

  function drawTreemapIn(box) {
    const width = Math.floor(box.clientWidth);
    const height = Math.round(Math.min(60 + 36 * node.children.length, 520, Math.max(360, width / 2)));
    const sizes = node.children.map((child) => child.n_items);
    const nCells = countFitting(sizes, width * height, MIN_CELL_AREA);
    const cells = node.children.slice(0, nCells).map(toCell);
    if (nCells < sizes.length) cells.push(restCell(sizes.length - nCells, sizes[nCells - 1]));
    const map = drawTreemap(cells, width, height, "Codes; arrow keys move, Enter opens, Escape goes up", up);
    box.replaceChildren(map);
    growFrom(map, opened, width, height);
    opened = null;
  }

  function toCell(child) {
    const level = node.prefix.length;
    const prefix = [...node.prefix, child.code];
    const stars = recommended.filter((item) => prefix.every((code, i) => item.semantic_id[i] === code)).length;
    const marks = stars ? `, ${count(stars, "recommendation")}` : "";
    const shared = { size: child.n_items, hue: hue(child.code, level), marked: stars > 0 };
    const onlyItem = child.n_items === 1 && node.items.find((item) => item.semantic_id[level] === child.code);
    if (onlyItem) {
      const title = onlyItem.title || onlyItem.item_id;
      const ariaLabel = `${title}, code ${child.code}${marks}`;
      return { ...shared, label: title, ariaLabel, pick: () => open(onlyItem.item_id) };
    }
    const words = child.words.join(", ") || child.best_known.map((item) => item.title || item.item_id).join(", ");
    const pick = (rectangle) => {
      opened = rectangle;
      openPrefix(prefix);
    };
    const ariaLabel = `Code ${child.code}: ${[count(child.n_items, "item"), words].filter(Boolean).join(", ")}${marks}`;
    return { ...shared, label: String(child.code), short: String(child.code), detail: words, ariaLabel, pick };
  }

  function restCell(nHidden, size) {
    const label = `${nHidden} more`;
    const ariaLabel = `${count(nHidden, "more code")}, as a list`;
    return { size, hue: 0, label, short: `+${nHidden}`, ariaLabel, pick: () => setView("list") };
  }

  function codeList() {
    const rows = node.children.map((child) => {
      const { label, detail, hue: color, marked, pick } = toCell(child);
      return element(
        "li",
        {},
        element(
          "button",
          { type: "button", class: "code-row", onclick: () => pick(null) },
          element("span", { class: "code", vars: { hue: color } }, String(child.code)),
          element("span", { class: "grow" }, detail ?? label),
          marked ? element("span", { class: "mark", title: "recommended" }, "★") : "",
          element("span", { class: "faint" }, count(child.n_items, "item")),
        ),
      );
    });
    return element("ul", { class: "codes-list", "aria-label": "Codes" }, rows);
  }

  function itemList() {
    const list = element("ul", { class: "items", "aria-label": "Items" }, node.items.map(itemRow));
    const more = button("Show more items", () => nextPage(list, more), { class: "plain" });
    more.hidden = node.items.length >= node.n_items;
    return element("div", {}, list, more);
  }

  async function nextPage(list, more) {
    more.disabled = true;
    try {
      const { prefix, page } = node;
      const response = await newest((signal) => api.node(prefix, page + 1, PAGE_SIZE, model, signal));
      cacheTitles(response.items);
      node = { ...response, items: [...node.items, ...response.items] };
      const rows = response.items.map(itemRow);
      list.append(...rows);
      rows[0]?.querySelector("button").focus();
      more.hidden = response.items.length === 0 || node.items.length >= node.n_items;
    } catch (error) {
      list.after(notice(error.message));
    }
    more.disabled = false;
  }

  function itemRow(item) {
    const title = item.title || item.item_id;
    return element(
      "li",
      {},
      button(title, () => open(item.item_id), { class: "plain" }),
      button("+", () => add(item), { class: "add", "aria-label": `Add ${title} to the history` }),
    );
  }

  function up() {
    if (node.prefix.length) openPrefix(node.prefix.slice(0, -1));
  }

  let lastWidth = 0;
  new ResizeObserver(() => {
    if (view !== "tree" || container.clientWidth === lastWidth) return;
    lastWidth = container.clientWidth;
    drawCodes();
  }).observe(container);

  return {
    /** Shows a prefix of a model's tree as a treemap or a list. */
    show(prefix, newView, newModel) {
      const redraw = newView !== view;
      view = newView;
      model = newModel;
      const query = JSON.stringify([prefix, model]);
      if (query !== shown) {
        shown = query;
        load(prefix);
      }
      if (redraw || !node) draw();
    },

    /** Marks the codes that lead to these items with a star. */
    mark(items) {
      recommended = items;
      if (node) drawCodes();
    },
  };
}

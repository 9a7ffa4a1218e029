/** An SVG treemap for mouse, touch and keyboard. */

import { element, svg } from "./dom.js";
import { neighbour, squarify } from "./treemap.js";

const LINE_HEIGHT = 17; // px
const ZOOM_MS = 280;

/**
 * Draws the treemap of `cells`: {size, label, short, detail, ariaLabel, hue, marked, pick}. A cell that is too small
 * for its label shows the short one, if there is one, and one that is marked has an outline, however small it is.
 * `pick(rectangle)` opens a cell; the next treemap can grow out of its rectangle. `up` goes one level up (Escape,
 * Backspace).
 */
export function drawTreemap(cells, width, height, label, up) {
  const rectangles = squarify(cells.map((cell) => cell.size), width, height);
  const nodes = cells.map((cell, i) => drawCell(cell, rectangles[i], i));
  nodes.forEach((node, i) => {
    node.addEventListener("click", () => cells[i].pick(rectangles[i]));
    node.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return; // browser shortcuts
      if (event.key.startsWith("Arrow")) focus(neighbour(rectangles, i, event.key));
      else if (event.key === "Home") focus(0);
      else if (event.key === "End") focus(nodes.length - 1);
      else if (event.key === "Enter" || event.key === " ") cells[i].pick(rectangles[i]);
      else if (event.key === "Escape" || event.key === "Backspace") up();
      else return;
      event.preventDefault();
    });
    node.addEventListener("focus", () => {
      for (const other of nodes) other.setAttribute("tabindex", other === node ? "0" : "-1");
    });
  });
  const focus = (i) => nodes[i].focus();
  return svg(
    "svg",
    { class: "treemap", viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": label },
    ...nodes,
  );
}

/** Animates a new treemap growing out of the opened rectangle, unless the user prefers reduced motion. */
export function growFrom(map, rectangle, width, height) {
  if (!rectangle || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const { x, y, width: w, height: h } = rectangle;
  const start = `translate(${x}px, ${y}px) scale(${w / width}, ${h / height})`;
  map.animate(
    [{ transform: start, opacity: 0.3 }, { transform: "none", opacity: 1 }],
    { duration: ZOOM_MS, easing: "cubic-bezier(0.2, 0, 0, 1)" },
  );
}

function drawCell(cell, { x, y, width, height }, index) {
  const lines = Math.floor((height - 10) / LINE_HEIGHT);
  const roomy = width >= 34 && lines >= 1;
  const small = !roomy && cell.short && width >= 24 && height >= 13;
  const texts = [element("strong", {}, small ? cell.short : cell.label)];
  if (cell.marked && (roomy || height >= 27)) texts.push(element("span", { class: "mark", "aria-hidden": "true" }, "★"));
  if (cell.detail && width >= 64 && lines >= 2) texts.push(element("span", { class: "detail" }, cell.detail));
  const vars = { hue: cell.hue, lines: Math.max(1, lines - 1), all: Math.max(1, lines) };
  const kind = ["face", small && "small", cell.marked && "leads"].filter(Boolean).join(" ");
  const face = element("div", { class: kind, vars }, roomy || small ? texts : []);
  return svg(
    "g",
    {
      class: cell.detail ? "cell" : "cell leaf",
      role: "button",
      tabindex: index === 0 ? "0" : "-1",
      "aria-label": cell.ariaLabel,
    },
    svg("title", {}, cell.ariaLabel),
    svg("foreignObject", { x, y, width, height }, face),
  );
}

/** The map of the catalogue: a point for every item, for mouse, touch and keyboard. */

import * as api from "./api.js";
import { announce, button, byId, element, notice } from "./dom.js";
import { hue } from "./format.js";
import { drawLabels } from "./map_labels.js";
import { drawPoints } from "./points.js";
import { cacheTitles } from "./titles.js";
import { moved, nearestPoint, resized, wholeView, zoomedAt } from "./view.js";

const RETRY_MS = 1000;
const ZOOM_STEP = 1.5;
const PAN_STEP = 60; // px
const REACH = 14; // px: how near to a point the pointer must be
const BESIDE = 12; // px between the middles of a star and of a point of the history that it would cover
const TAP = 6; // px: a press that moves less is a click
const CLOSER = 2.2; // zoom at which smaller clusters are named
const MAX_TITLES = 120; // visible items of which titles are shown
const KEYS = "Arrow keys move, plus and minus zoom, 0 shows all, Enter opens the item in the middle";

/** The action is `open(id)`. */
export function createItemMap({ open }) {
  const container = byId("item-map");
  const newest = api.newestOnly();
  let wanted = null; // the model whose map is shown, as JSON
  let map = null;
  let view = null;
  let context = null;
  let tip = null;
  let pointed = -1; // the item at the pointer, or in the middle for the keyboard
  let marked = [[], []]; // ids of the history and of the recommended items
  let marks = { history: [], recommended: [] }; // the same, as indices of the map
  let frame = 0;

  async function load(model) {
    map = null;
    container.replaceChildren(element("p", { class: "map-box map-wait", role: "status" }, "Finding a place for every item…"));
    try {
      let response = await newest((signal) => api.itemMap(model, signal));
      while (!response.item_ids) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        response = await newest((signal) => api.itemMap(model, signal));
      }
      map = prepare(response);
      cacheTitles(response.item_ids.map((id, i) => ({ item_id: id, title: response.titles[i] })));
      pointed = -1;
      build();
      applyMarks();
    } catch (error) {
      wanted = null;
      container.replaceChildren(notice(error.message, button("Try again", () => load(model))));
    }
  }

  function build() {
    const canvas = element("canvas", { tabindex: "0", role: "application", "aria-label": `Map of the items. ${KEYS}.` });
    context = canvas.getContext("2d");
    tip = element("button", { type: "button", class: "map-tip", tabindex: "-1", hidden: true });
    tip.addEventListener("click", () => pointed >= 0 && open(map.ids[pointed]));
    const zoomBy = (factor) => () => change(zoomedAt(view, factor, view.width / 2, view.height / 2));
    container.replaceChildren(
      element(
        "div",
        { class: "map-box" },
        canvas,
        tip,
        element(
          "div",
          { class: "map-zoom", role: "group", "aria-label": "Zoom" },
          button("+", zoomBy(ZOOM_STEP), { "aria-label": "Zoom in" }),
          button("−", zoomBy(1 / ZOOM_STEP), { "aria-label": "Zoom out" }),
          button("⤢", () => change(wholeView(view.width, view.height)), { "aria-label": "Show all items" }),
        ),
      ),
      legend(),
    );
    view = null;
    listen(canvas);
    new ResizeObserver(() => fit(canvas)).observe(canvas);
  }

  function legend() {
    const entry = (sign, text) => element("li", {}, element("span", { class: `sign ${sign}`, "aria-hidden": "true" }), text);
    return element(
      "ul",
      { class: "legend" },
      entry("is-history", "in the history"),
      entry("is-recommended", "recommended"),
      entry("is-code", "one colour per first code"),
    );
  }

  /** Makes the canvas as fine as the screen, and keeps what it shows. */
  function fit(canvas) {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (!width || !height) return;
    canvas.width = width;
    canvas.height = height;
    view = view ? resized(view, width, height) : wholeView(width, height);
    draw();
  }

  function change(newView) {
    view = newView;
    context.canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y"; // one finger scrolls the page, unless zoomed
    redraw();
  }

  function redraw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  }

  function draw() {
    if (!view || !map) return;
    const ratio = devicePixelRatio || 1;
    const style = getComputedStyle(container);
    const paint = {
      text: style.getPropertyValue("--text"),
      halo: style.getPropertyValue("--panel"),
      accent: style.getPropertyValue("--accent"),
      font: style.fontFamily,
    };
    const shade = `${style.getPropertyValue("--point-light")} ${style.getPropertyValue("--point-chroma")}`;
    if (map.shade !== shade) Object.assign(map, { shade, colors: colorsOf(map.codes, shade) });
    drawPoints(context, map, view, ratio * Math.min(7, (map.ids.length > 5000 ? 2 : 3) * view.zoom ** 0.4));
    const taken = [buttonsBox(ratio), ...drawMarks(paint, ratio)];
    drawLabels(context, [...titles(), ...clusterNames()], paint, ratio, taken);
    placeTip(ratio);
  }

  function applyMarks() {
    if (!map) return;
    const [history, recommended] = marked.map((ids) =>
      ids.map((id) => map.numbers.get(id)).filter((i) => i !== undefined),
    );
    marks = { history, recommended };
    redraw();
  }

  /** The rectangle of the buttons over the map. */
  function buttonsBox(ratio) {
    const { offsetLeft: x, offsetTop: y, offsetWidth: w, offsetHeight: h } = container.querySelector(".map-zoom");
    return [x, y, x + w, y + h].map((value) => value * ratio);
  }

  const place = (i) => [map.xs[i] * view.kx + view.x, map.ys[i] * view.ky + view.y];

  function drawMarks(paint, ratio) {
    const taken = [];
    const mark = ([x, y], radius, fill, line) => {
      context.beginPath();
      context.arc(x, y, radius * ratio, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.strokeStyle = line;
      context.lineWidth = 2 * ratio;
      context.fill();
      context.stroke();
      taken.push([x - radius * ratio, y - radius * ratio, x + radius * ratio, y + radius * ratio]);
    };
    for (const i of marks.recommended) {
      mark(place(i), 8, paint.accent, paint.halo);
      drawStar(...place(i), 5 * ratio, paint.halo);
    }
    for (const i of marks.history) mark(besideStars(i, ratio), 5, paint.text, paint.halo);
    if (pointed >= 0) mark(place(pointed), 9, "transparent", paint.text);
    return taken;
  }

  /** Where an item of the history is drawn: at its place, or beside the recommendation whose star would share it. */
  function besideStars(i, ratio) {
    const [x, y] = place(i);
    const away = BESIDE * ratio;
    const star = marks.recommended.map(place).find((at) => distance(at, [x, y]) < away);
    if (!star) return [x, y];
    const angle = Math.atan2(y - star[1], x - star[0]);
    return [star[0] + away * Math.cos(angle), star[1] + away * Math.sin(angle)];
  }

  function drawStar(x, y, radius, fill) {
    context.beginPath();
    for (let i = 0; i < 10; i += 1) {
      const r = i % 2 ? radius * 0.45 : radius;
      context.lineTo(x + r * Math.sin((i * Math.PI) / 5), y - r * Math.cos((i * Math.PI) / 5));
    }
    context.fillStyle = fill;
    context.fill();
  }

  /** The titles of the visible items, if these are few; those of marked items first. */
  function titles() {
    const visible = [];
    for (let i = 0; i < map.ids.length && visible.length <= MAX_TITLES; i += 1) {
      const [x, y] = place(i);
      if (x >= 0 && y >= 0 && x <= view.width && y <= view.height) visible.push(i);
    }
    if (visible.length > MAX_TITLES || view.zoom === 1) return [];
    const marked = new Set([...marks.recommended, ...marks.history]);
    visible.sort((a, b) => marked.has(b) - marked.has(a));
    const ratio = devicePixelRatio || 1;
    return visible.map((i) => {
      const [x, y] = place(i);
      return { text: shortened(map.titles[i]), x, y: y + (marked.has(i) ? 20 : 18) * ratio, size: 12, weight: 400 };
    });
  }

  function clusterNames() {
    const level = view.zoom < CLOSER ? 0 : 1;
    return map.clusters
      .filter((cluster) => cluster.level === level && cluster.name)
      .map(({ x, y, name }) => {
        const [px, py] = [x * view.kx + view.x, y * view.ky + view.y];
        return { text: name, x: px, y: py, size: level ? 13 : 15, weight: 600 };
      })
      .filter(({ x, y }) => x >= 0 && y >= 0 && x <= view.width && y <= view.height);
  }

  function point(i) {
    if (i === pointed) return;
    pointed = i;
    redraw();
  }

  function placeTip(ratio) {
    tip.hidden = pointed < 0;
    if (pointed < 0) return;
    const [x, y] = place(pointed);
    tip.textContent = map.titles[pointed];
    const half = tip.offsetWidth / 2;
    const left = Math.min(context.canvas.clientWidth - half - 4, Math.max(half + 4, x / ratio));
    const below = y / ratio < 48;
    tip.style.left = `${left}px`;
    tip.style.top = `${y / ratio + (below ? 16 : -16 - tip.offsetHeight)}px`;
  }

  function listen(canvas) {
    const pointers = new Map();
    const at = (event) => {
      const ratio = devicePixelRatio || 1;
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    };
    const found = (event) => nearestPoint(map, view, ...at(event), REACH * (devicePixelRatio || 1));
    let travelled = 0;

    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, at(event));
      canvas.setPointerCapture(event.pointerId);
      if (pointers.size === 1) travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return point(found(event));
      const now = at(event);
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
      travelled += Math.hypot(dx, dy);
      if (pointers.size === 2) pinch(pointers, event.pointerId, now);
      else if (travelled > TAP && view.zoom > 1) change(moved(view, dx, dy));
      pointers.set(event.pointerId, now);
    });
    const release = (event) => pointers.delete(event.pointerId);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerup", (event) => {
      release(event);
      if (travelled > TAP || pointers.size) return;
      const i = found(event);
      const again = i === pointed;
      point(i);
      if (i >= 0 && (event.pointerType === "mouse" || again)) open(map.ids[i]);
    });
    canvas.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType === "mouse" && !pointers.size && !canvas.matches(":focus-visible")) point(-1);
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        const next = zoomedAt(view, Math.exp(-event.deltaY / 400), ...at(event));
        if (next.zoom === view.zoom) return; // the page scrolls on
        event.preventDefault();
        change(next);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", onKey);
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && pointAtMiddle());
    canvas.addEventListener("blur", () => point(-1));
  }

  function pinch(pointers, id, now) {
    const [other] = [...pointers].filter(([key]) => key !== id).map(([, at]) => at);
    const before = pointers.get(id);
    const factor = distance(now, other) / Math.max(1, distance(before, other));
    change(zoomedAt(view, factor, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2));
  }

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // browser shortcuts
    const step = PAN_STEP * (devicePixelRatio || 1);
    const middle = [view.width / 2, view.height / 2];
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) change(moved(view, ...moves[event.key]));
    else if (event.key === "+" || event.key === "=") change(zoomedAt(view, ZOOM_STEP, ...middle));
    else if (event.key === "-") change(zoomedAt(view, 1 / ZOOM_STEP, ...middle));
    else if (event.key === "0") change(wholeView(view.width, view.height));
    else if (event.key === "Enter" && pointed >= 0) open(map.ids[pointed]);
    else return;
    event.preventDefault();
    pointAtMiddle();
  }

  function pointAtMiddle() {
    const i = nearestPoint(map, view, view.width / 2, view.height / 2, Infinity);
    if (i !== pointed && i >= 0) announce(map.titles[i]);
    point(i);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  return {
    /** Shows the map of a model, which is fetched when it comes near the screen for the first time. */
    show(model) {
      const query = JSON.stringify(model);
      if (query === wanted) return;
      wanted = query;
      whenNear(container, () => wanted === query && load(model));
    },

    /** Marks items of the history and recommended ones, by their ids. */
    mark(historyIds, recommendedIds) {
      marked = [historyIds, recommendedIds];
      applyMarks();
    },
  };
}

function prepare({ side, item_ids: ids, titles, x, y, codes, clusters }) {
  return {
    ids,
    titles: titles.map((title, i) => title || ids[i]),
    xs: Float32Array.from(x, (value) => value / side),
    ys: Float32Array.from(y, (value) => value / side),
    kinds: Uint32Array.from(codes),
    codes: [...new Set(codes)],
    numbers: new Map(ids.map((id, i) => [id, i])),
    clusters: named(clusters).map((cluster) => ({ ...cluster, x: cluster.x / side, y: cluster.y / side })),
  };
}

/** The clusters with names: their words; of those that a larger cluster has, or without any, the best-known item. */
function named(clusters) {
  const used = new Set();
  return clusters.map((cluster) => {
    const words = cluster.words.join(" · ");
    const name = words && !used.has(words) ? words : `like ${shortened(cluster.best_known[0].title || cluster.best_known[0].item_id)}`;
    used.add(words);
    return { ...cluster, name };
  });
}

/** The colour of each code, 4 bytes each: its hue as elsewhere on the page, in a shade of lightness and chroma. */
function colorsOf(codes, shade) {
  const canvas = new OffscreenCanvas(Math.max(...codes, 0) + 1, 1);
  const context = canvas.getContext("2d");
  for (const code of codes) {
    context.fillStyle = `oklch(${shade} ${hue(code, 0)})`;
    context.fillRect(code, 0, 1, 1);
  }
  return context.getImageData(0, 0, canvas.width, 1).data;
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const shortened = (text) => (text.length > 32 ? `${text.slice(0, 30).trimEnd()}…` : text);

/** Calls `act` once an element comes near the screen. */
function whenNear(node, act) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      act();
    },
    { rootMargin: "200px" },
  );
  observer.observe(node);
}

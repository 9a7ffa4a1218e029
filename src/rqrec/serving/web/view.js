/**
 * Which part of the unit square a map shows: a point of it is drawn at (px * kx + x, py * ky + y), in device pixels.
 * Independent of the DOM.
 */

const MAX_ZOOM = 60;
const MARGIN = 0.04; // of the frame, around all points

/** The whole square in a frame. */
export function wholeView(width, height) {
  return limited({ kx: 0, ky: 0, x: 0, y: 0, width, height, zoom: 1 }, 1);
}

/** The view `factor` times closer, of which the point at (px, py) stays where it is. */
export function zoomedAt(view, factor, px, py) {
  const zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
  const by = zoom / view.zoom;
  return limited({ ...view, x: px - (px - view.x) * by, y: py - (py - view.y) * by }, zoom);
}

/** The view moved by pixels. */
export const moved = (view, dx, dy) => limited({ ...view, x: view.x + dx, y: view.y + dy }, view.zoom);

/** The view in a frame of another size, with the same centre. */
export function resized(view, width, height) {
  const [fx, fy] = [width / view.width, height / view.height];
  return limited({ ...view, x: view.x * fx, y: view.y * fy, width, height }, view.zoom);
}

/** The index of the point nearest to (px, py), up to `reach` pixels away; -1 if there is none. */
export function nearestPoint({ xs, ys }, view, px, py, reach) {
  let best = -1;
  let shortest = reach * reach;
  for (let i = 0; i < xs.length; i += 1) {
    const dx = xs[i] * view.kx + view.x - px;
    const dy = ys[i] * view.ky + view.y - py;
    const distance = dx * dx + dy * dy;
    if (distance < shortest) [best, shortest] = [i, distance];
  }
  return best;
}

/** Keeps the square in the frame: at least half of the frame shows part of it. */
function limited(view, zoom) {
  const { width, height } = view;
  const kx = width * (1 - 2 * MARGIN) * zoom;
  const ky = height * (1 - 2 * MARGIN) * zoom;
  const within = (offset, length, frame) =>
    zoom === 1 ? (frame - length) / 2 : Math.min(frame / 2, Math.max(frame / 2 - length, offset));
  return { ...view, kx, ky, zoom, x: within(view.x, kx, width), y: within(view.y, ky, height) };
}

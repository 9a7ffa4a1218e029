/** Geometry of the treemap: its layout, and which rectangle is next to which. Independent of the DOM. */

/**
 * Fills a frame with nearly square rectangles {x, y, width, height} whose areas are proportional to `values` (positive,
 * descending): squarified treemaps (Bruls, Huizing, van Wijk 2000).
 */
export function squarify(values, width, height) {
  const scale = (width * height) / values.reduce((sum, value) => sum + value, 0);
  const areas = values.map((value) => value * scale);
  const rectangles = [];
  let free = { x: 0, y: 0, width, height };
  for (let start = 0; start < areas.length; ) {
    const side = Math.min(free.width, free.height);
    let end = start + 1;
    while (end < areas.length && worstRatio(areas.slice(start, end + 1), side) <= worstRatio(areas.slice(start, end), side)) {
      end += 1;
    }
    free = layRow(areas.slice(start, end), free, rectangles);
    start = end;
  }
  return rectangles;
}

/**
 * How many of `values` (positive, descending) fit into a frame of `area` with cells of at least `minArea`. If not all
 * fit, one more cell, as large as the smallest shown, stands for the rest.
 */
export function countFitting(values, area, minArea) {
  let sum = values.reduce((total, value) => total + value, 0);
  for (let n = values.length; n > 1; n -= 1) {
    const rest = n < values.length ? values[n - 1] : 0;
    if ((values[n - 1] * area) / (sum + rest) >= minArea) return n;
    sum -= values[n - 1];
  }
  return values.length ? 1 : 0;
}

/** The index of the rectangle that an arrow key leads to from `index`; `index` itself if there is none. */
export function neighbour(rectangles, index, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
  const [x, y] = centre(rectangles[index]);
  let best = index;
  let shortest = Infinity;
  rectangles.forEach((rectangle, i) => {
    const [right, down] = [centre(rectangle)[0] - x, centre(rectangle)[1] - y];
    const forward = right * dx + down * dy;
    const sideways = Math.abs(right * dy) + Math.abs(down * dx);
    if (i === index || forward <= 0 || forward + 2 * sideways >= shortest) return;
    [best, shortest] = [i, forward + 2 * sideways];
  });
  return best;
}

/** The worst aspect ratio of a row of these areas along a side. */
function worstRatio(areas, side) {
  const sum = areas.reduce((total, area) => total + area, 0);
  const square = (side / sum) ** 2;
  return Math.max(areas[0] * square, 1 / (areas[areas.length - 1] * square));
}

/** Lays a row along the shorter side of the free frame; returns the frame that remains free. */
function layRow(areas, { x, y, width, height }, rectangles) {
  const sum = areas.reduce((total, area) => total + area, 0);
  const upright = width >= height;
  const depth = sum / (upright ? height : width);
  let along = 0;
  for (const area of areas) {
    const length = area / depth;
    rectangles.push(
      upright
        ? { x, y: y + along, width: depth, height: length }
        : { x: x + along, y, width: length, height: depth },
    );
    along += length;
  }
  return upright
    ? { x: x + depth, y, width: width - depth, height }
    : { x, y: y + depth, width, height: height - depth };
}

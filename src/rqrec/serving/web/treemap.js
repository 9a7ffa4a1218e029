/** Geometry of the map: where rectangles lie, and which is next to which. No DOM. */

/**
 * Rectangles {x, y, width, height} that fill a frame, their areas in proportion to `values` (positive, descending),
 * close to squares: squarified treemaps (Bruls, Huizing, van Wijk 2000).
 */
export function squarify(values, width, height) {
  const scale = (width * height) / values.reduce((sum, value) => sum + value, 0);
  const areas = values.map((value) => value * scale);
  const rectangles = [];
  let free = { x: 0, y: 0, width, height };
  for (let start = 0; start < areas.length; ) {
    const side = Math.min(free.width, free.height);
    let end = start + 1;
    while (end < areas.length && worst(areas.slice(start, end + 1), side) <= worst(areas.slice(start, end), side)) {
      end += 1;
    }
    free = layRow(areas.slice(start, end), free, rectangles);
    start = end;
  }
  return rectangles;
}

/**
 * How many of `values` (positive, descending) can have cells of at least `smallest` in a frame of `area`, where one
 * more cell as large as the last of them stands for the rest.
 */
export function fitting(values, area, smallest) {
  let sum = values.reduce((total, value) => total + value, 0);
  for (let n = values.length; n > 1; n -= 1) {
    const rest = n < values.length ? values[n - 1] : 0;
    if ((values[n - 1] * area) / (sum + rest) >= smallest) return n;
    sum -= values[n - 1];
  }
  return values.length ? 1 : 0;
}

/** The index of the rectangle that an arrow key leads to from `index`, or `index` where there is none. */
export function neighbour(rectangles, index, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
  const [x, y] = centre(rectangles[index]);
  let best = index;
  let shortest = Infinity;
  rectangles.forEach((rectangle, i) => {
    const [right, down] = [centre(rectangle)[0] - x, centre(rectangle)[1] - y];
    const ahead = right * dx + down * dy;
    const aside = Math.abs(right * dy) + Math.abs(down * dx);
    if (i === index || ahead <= 0 || ahead + 2 * aside >= shortest) return;
    [best, shortest] = [i, ahead + 2 * aside];
  });
  return best;
}

/** The largest ratio of sides in a row of these areas along a side. */
function worst(areas, side) {
  const sum = areas.reduce((total, area) => total + area, 0);
  const square = (side / sum) ** 2;
  return Math.max(areas[0] * square, 1 / (areas[areas.length - 1] * square));
}

/** Lays a row along the shorter side of the free frame, and returns what is left free. */
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

/** Draws many points fast: discs, written into the pixels of an image. Needs no graphics card. */

const MANY = 10_000; // visible points above which they are small, and neither soft at their edges nor translucent

/**
 * Draws points on a canvas's context, in device pixels.
 * `xs` and `ys`: places from 0 to 1; `colors`: 4 bytes for each kind; `kinds`: the kind of each point; `view`: see
 * view.js; `radius` in device pixels.
 */
export function drawPoints(context, { xs, ys, kinds, colors }, view, radius) {
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  const isMany = visibleCount(xs, ys, view) > MANY;
  const stamp = disc(isMany ? Math.min(radius, 1.5) : radius);
  const draw = isMany ? solidPainter(image, stamp, colors) : softPainter(image, stamp, colors);
  const { reach } = stamp;
  const { kx, ky, x: left, y: top } = view;
  for (let i = 0; i < xs.length; i += 1) {
    const x = Math.round(xs[i] * kx + left);
    const y = Math.round(ys[i] * ky + top);
    if (x >= -reach && y >= -reach && x < width + reach && y < height + reach) draw(x, y, kinds[i]);
  }
  context.putImageData(image, 0, 0);
}

function visibleCount(xs, ys, { kx, ky, x, y, width, height }) {
  let n = 0;
  for (let i = 0; i < xs.length; i += 1) {
    const px = xs[i] * kx + x;
    const py = ys[i] * ky + y;
    n += px >= 0 && py >= 0 && px <= width && py <= height;
  }
  return n;
}

/** How opaque each pixel of a disc is, 0 to 1, as offsets from its centre. */
function disc(radius) {
  const reach = Math.ceil(radius);
  const stamp = { reach, dx: [], dy: [], alpha: [] };
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      const alpha = Math.min(1, radius + 0.5 - Math.hypot(dx, dy));
      if (alpha <= 0) continue;
      stamp.dx.push(dx);
      stamp.dy.push(dy);
      stamp.alpha.push(alpha);
    }
  }
  return stamp;
}

/** Writes whole pixels; what would cross the edge of the image is left out. */
function solidPainter({ data, width, height }, { reach, dx, dy, alpha }, colors) {
  const words = new Uint32Array(data.buffer);
  const inks = new Uint32Array(colors.slice().buffer);
  const offsets = Int32Array.from(
    dx.map((x, j) => dy[j] * width + x).filter((_, j) => alpha[j] >= 0.5),
  );
  const count = offsets.length;
  return (x, y, kind) => {
    if (x < reach || y < reach || x >= width - reach || y >= height - reach) return;
    const at = y * width + x;
    const ink = inks[kind];
    for (let j = 0; j < count; j += 1) words[at + offsets[j]] = ink;
  };
}

/** Blends with what is there. */
function softPainter({ data, width, height }, { dx, dy, alpha }, colors) {
  return (x, y, kind) => {
    const color = 4 * kind;
    for (let j = 0; j < dx.length; j += 1) {
      const px = x + dx[j];
      const py = y + dy[j];
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const at = 4 * (py * width + px);
      const a = 0.85 * alpha[j];
      const below = (data[at + 3] / 255) * (1 - a);
      const total = a + below;
      for (let c = 0; c < 3; c += 1) data[at + c] = (a * colors[color + c] + below * data[at + c]) / total;
      data[at + 3] = 255 * total;
    }
  };
}

/** Draws many points fast: discs with soft edges, blended into the pixels of an image. Needs no graphics card. */

const MANY = 20_000; // more visible points than this are drawn small

/**
 * Draws points on a canvas's context, in device pixels.
 * `xs` and `ys`: places from 0 to 1; `colors`: 4 bytes for each kind; `kinds`: the kind of each point; `view`: see
 * view.js; `radius` in device pixels.
 */
export function drawPoints(context, { xs, ys, kinds, colors }, view, radius) {
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  const pixels = image.data;
  const visible = visibleCount(xs, ys, view);
  const stamp = disc(visible > MANY ? Math.min(radius, 1.5) : radius);
  for (let i = 0; i < xs.length; i += 1) {
    const x = xs[i] * view.kx + view.x;
    const y = ys[i] * view.ky + view.y;
    if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
    blend(pixels, width, height, stamp, Math.round(x), Math.round(y), colors, 4 * kinds[i]);
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
  const stamp = { dx: [], dy: [], alpha: [] };
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      const alpha = Math.min(1, radius + 0.5 - Math.hypot(dx, dy));
      if (alpha <= 0) continue;
      stamp.dx.push(dx);
      stamp.dy.push(dy);
      stamp.alpha.push(0.85 * alpha);
    }
  }
  return stamp;
}

function blend(pixels, width, height, { dx, dy, alpha }, x, y, colors, color) {
  for (let j = 0; j < dx.length; j += 1) {
    const px = x + dx[j];
    const py = y + dy[j];
    if (px < 0 || py < 0 || px >= width || py >= height) continue;
    const at = 4 * (py * width + px);
    const a = alpha[j];
    const below = (pixels[at + 3] / 255) * (1 - a);
    const total = a + below;
    for (let c = 0; c < 3; c += 1) pixels[at + c] = (a * colors[color + c] + below * pixels[at + c]) / total;
    pixels[at + 3] = 255 * total;
  }
}

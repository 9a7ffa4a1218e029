/** The names on the map: of clusters, and close up of items; none covers another. */

const PADDING = 4;
const SHIFTS = [0, 0.6, -0.6, 1.2, -1.2]; // of its height, by which a text may move to where there is room

/**
 * Draws texts {text, x, y, size, weight} where they do not cover earlier ones, centred; `paint` is {text, halo}.
 * `taken` are rectangles [left, top, right, bottom] to keep free, to which those of the texts are added.
 */
export function drawLabels(context, labels, paint, ratio, taken) {
  const { width, height } = context.canvas;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const { text, x, y, size, weight } of labels) {
    context.font = `${weight} ${size * ratio}px ${paint.font}`;
    const half = context.measureText(text).width / 2 + PADDING * ratio;
    const tall = (size / 2 + PADDING) * ratio;
    if (half * 2 > width) continue;
    const at = Math.min(width - half, Math.max(half, x));
    const boxAt = (middle) => [at - half, middle - tall, at + half, middle + tall];
    const free = SHIFTS.map((shift) => y + shift * 2 * tall).find((middle) => {
      const box = boxAt(middle);
      return box[1] >= 0 && box[3] <= height && !taken.some((other) => overlap(box, other));
    });
    if (free === undefined) continue;
    taken.push(boxAt(free));
    context.lineWidth = 4 * ratio;
    context.strokeStyle = paint.halo;
    context.strokeText(text, at, free);
    context.fillStyle = paint.text;
    context.fillText(text, at, free);
  }
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

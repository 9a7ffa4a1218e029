/** Numbers and names for display. */

/** 0.0234 -> "2.3 %": two significant digits, and none below a hundredth of a percent. */
export function percent(probability) {
  const value = 100 * probability;
  if (value >= 99.5) return "100 %";
  if (value < 0.01) return "< 0.01 %";
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(value)));
  return `${value.toFixed(decimals)} %`;
}

/** -3.7 -> "−3.70", with a minus sign and not a hyphen. */
export const logProbability = (score) => score.toFixed(2).replace("-", "−");

/** 1, "item" -> "1 item"; 1682, "item" -> "1,682 items". */
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** "decoder_only" -> "decoder-only". */
export const architecture = (name) => name.replaceAll("_", "-");

/** By type of expert: a name for display, and what it does (of neighbours, the items that they go with are shown). */
export const EXPERTS = {
  codes: ["Codes", "Generates its codes one by one"],
  dense: ["Item vectors", "Compares the history with every item"],
  neighbours: ["Neighbours", ""],
};

/** A hue in degrees for a code of a level, far from the hues of neighbouring codes. */
export const hue = (code, level) => ((code * 137.508 + level * 67) % 360).toFixed(0);

/** A picture of an item: the catalogue's, or else one made of its codes and the initials of its title. */

import { element } from "./dom.js";
import { hue } from "./format.js";

const SMALL_WORDS = new Set(["the", "a", "an", "of", "and", "or", "le", "la", "les", "der", "die", "das", "el"]);

/** Items whose first codes are equal have the same colour, and the other codes vary the light in it. */
export function tile({ title, item_id: id, semantic_id: codes = [], image = null }) {
  const [first = 0, second = 0, third = 0] = codes;
  const vars = { hue: hue(first, 0), hue2: hue(second, 1), x: `${10 + ((second * 37) % 80)}%`, y: `${10 + ((third * 53) % 80)}%` };
  const picture = image
    ? element("img", { src: image, alt: "", loading: "lazy", decoding: "async", onerror: (event) => event.target.remove() })
    : null;
  return element("span", { class: "tile", "aria-hidden": "true", vars }, initials(title || id), picture);
}

/** "The Empire Strikes Back (1980)" -> "ES". */
export function initials(title) {
  const words = title.replace(/\(.*?\)/g, " ").match(/[\p{L}\p{N}'’]+/gu) ?? title.match(/[\p{L}\p{N}'’]+/gu) ?? [];
  const telling = words.filter((word) => !SMALL_WORDS.has(word.toLowerCase()));
  const letters = (telling.length ? telling : words).slice(0, 2).map((word) => [...word][0].toUpperCase());
  return letters.join("");
}

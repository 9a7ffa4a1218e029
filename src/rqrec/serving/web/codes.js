/** A semantic ID as coloured code buttons, each of which opens its prefix in the tree. */

import { button, element } from "./dom.js";
import { hue } from "./format.js";

/** `openPrefix(codes)` is called with the codes up to the clicked one. */
export function codes(semanticId, openPrefix) {
  return element(
    "span",
    { class: "codes", role: "group", "aria-label": "Semantic ID" },
    semanticId.map((code, level) =>
      button(String(code), () => openPrefix(semanticId.slice(0, level + 1)), {
        class: "code",
        vars: { hue: hue(code, level) },
        "aria-label": `Open prefix ${semanticId.slice(0, level + 1).join("-")}`,
      }),
    ),
  );
}

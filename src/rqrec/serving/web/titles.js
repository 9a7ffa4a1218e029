/** The titles seen so far, so that an item is asked for at most once. */

import * as api from "./api.js";

const titles = new Map();
const AT_ONCE = 4;

export const titleOf = (id) => titles.get(id) ?? id;

/** Remembers the titles of items that an answer held. */
export function learn(items) {
  for (const { item_id: id, title } of items) titles.set(id, title || id);
}

/** Asks for the titles of those ids that have none yet, a few at once; an item that can't be had keeps its id. */
export async function lookUp(ids) {
  const missing = [...new Set(ids)].filter((id) => !titles.has(id));
  const worker = async () => {
    for (let id = missing.pop(); id !== undefined; id = missing.pop()) {
      await api.item(id).then((item) => learn([item]), () => {});
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** A cache of item titles, so that each item is fetched at most once. */

import * as api from "./api.js";

const titles = new Map();
const MAX_CONCURRENT = 4;

export const titleOf = (id) => titles.get(id) ?? id;

/** Adds the titles of items to the cache. */
export function cacheTitles(items) {
  for (const { item_id: id, title } of items) titles.set(id, title || id);
}

/** Fetches the titles that are not cached, a few at a time; an item that cannot be fetched is shown by its id. */
export async function fetchTitles(ids) {
  const missing = [...new Set(ids)].filter((id) => !titles.has(id));
  const worker = async () => {
    for (let id = missing.pop(); id !== undefined; id = missing.pop()) {
      await api.item(id).then((item) => cacheTitles([item]), () => {});
    }
  };
  await Promise.all(Array.from({ length: MAX_CONCURRENT }, worker));
}

/** A cache of item titles by model, so that each item is fetched at most once. */

import * as api from "./api.js";

const caches = new Map(); // of models, as their catalogues may differ
const MAX_CONCURRENT = 4;

let model = null;
let titles = cacheOf(null);

function cacheOf(name) {
  if (!caches.has(name)) caches.set(name, new Map());
  return caches.get(name);
}

/** Titles are those of this model's catalogue from now on; null is the default model. */
export function useTitlesOf(name) {
  model = name;
  titles = cacheOf(name);
}

export const titleOf = (id) => titles.get(id) ?? id;

/** Adds the titles of items to the cache. */
export function cacheTitles(items) {
  for (const { item_id: id, title } of items) titles.set(id, title || id);
}

/** Fetches the titles that are not cached, a few at a time; an item that cannot be fetched is shown by its id. */
export async function fetchTitles(ids) {
  const [name, cache] = [model, titles];
  const missing = [...new Set(ids)].filter((id) => !cache.has(id));
  const worker = async () => {
    for (let id = missing.pop(); id !== undefined; id = missing.pop()) {
      await api.item(id, name).then((item) => cache.set(id, item.title || id), () => {});
    }
  };
  await Promise.all(Array.from({ length: MAX_CONCURRENT }, worker));
}

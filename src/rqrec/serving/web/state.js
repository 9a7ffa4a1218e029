/**
 * What the page shows is what its address says, so that it can be shared and the back button works.
 *
 * history: item ids, oldest first (ignored where `user` names a sample user); k; model: a name, or null for the
 * service's default; prefix: the codes opened in the tree; view: "map" or "list"; item: the id of the opened item.
 */

const START = { history: [], user: null, k: 10, model: null, prefix: [], view: "map", item: null };

let state = read(location.search);
let listener = () => {};

/** Calls `show(state)` now, and whenever the state changes. */
export function onState(show) {
  listener = show;
  addEventListener("popstate", () => {
    state = read(location.search);
    listener(state);
  });
  listener(state);
}

/** Goes on to the state with these changes, as a new entry of the browser's history. */
export function go(changes) {
  const address = write({ ...state, ...changes });
  if (address === write(state)) return;
  state = { ...state, ...changes };
  history.pushState(null, "", address || location.pathname);
  listener(state);
}

function read(search) {
  const query = new URLSearchParams(search);
  const k = Number(query.get("k"));
  return {
    history: query.getAll("history"),
    user: query.get("user"),
    k: Number.isInteger(k) && k >= 1 && k <= 100 ? k : START.k,
    model: query.get("model"),
    prefix: (query.get("prefix") ?? "").split("-").filter((code) => /^\d+$/.test(code)).map(Number),
    view: query.get("view") === "list" ? "list" : START.view,
    item: query.get("item"),
  };
}

function write({ history, user, k, model, prefix, view, item }) {
  const query = new URLSearchParams();
  if (user !== null) query.set("user", user);
  else for (const id of history) query.append("history", id);
  if (k !== START.k) query.set("k", k);
  if (model !== null) query.set("model", model);
  if (prefix.length) query.set("prefix", prefix.join("-"));
  if (view !== START.view) query.set("view", view);
  if (item !== null) query.set("item", item);
  const text = query.toString();
  return text && `?${text}`;
}

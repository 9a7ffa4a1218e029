/**
 * The state of the page is kept in its URL, so that it can be shared and the back button works.
 *
 * history: item ids, oldest first (ignored if `user` names a sample user); user: id of a sample user; k: number of
 * recommendations; where: expressions that have to be true of them; model: a name, or null for the default model;
 * compare: the name of a model to compare with, and expert: one of its experts that answers alone, or null;
 * prefix: the codes opened in the tree; view: "map", "tree" or "list"; item: id of the item in the dialog.
 */

const DEFAULTS = {
  history: [],
  user: null,
  k: 10,
  where: [],
  model: null,
  compare: null,
  expert: null,
  prefix: [],
  view: "map",
  item: null,
};

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

/** Applies changes to the state, as a new entry of the browser history. */
export function go(changes) {
  const url = write({ ...state, ...changes });
  if (url === write(state)) return;
  state = { ...state, ...changes };
  history.pushState(null, "", url || location.pathname);
  listener(state);
}

function read(search) {
  const query = new URLSearchParams(search);
  const k = Number(query.get("k"));
  return {
    history: historyOf(query.getAll("history")),
    user: query.get("user"),
    k: Number.isInteger(k) && k >= 1 && k <= 100 ? k : DEFAULTS.k,
    where: query.getAll("where"),
    model: query.get("model"),
    compare: query.get("compare"),
    expert: query.get("compare") === null ? null : query.get("expert"),
    prefix: (query.get("prefix") ?? "").split("-").filter((code) => /^\d+$/.test(code)).map(Number),
    view: ["tree", "list"].includes(query.get("view")) ? query.get("view") : DEFAULTS.view,
    item: query.get("item"),
  };
}

/** The item ids of the parameters `history`: one each, or several in one, separated by commas. */
function historyOf(values) {
  const ids = values.length === 1 ? values[0].split(",").map((id) => id.trim()) : values;
  return ids.filter((id) => id !== "");
}

function write({ history, user, k, where, model, compare, expert, prefix, view, item }) {
  const query = new URLSearchParams();
  if (user !== null) query.set("user", user);
  else for (const id of history) query.append("history", id);
  if (history.length === 1 && history[0].includes(",")) query.append("history", ""); // one id, not several
  if (k !== DEFAULTS.k) query.set("k", k);
  for (const expression of where) query.append("where", expression);
  if (model !== null) query.set("model", model);
  if (compare !== null) query.set("compare", compare);
  if (expert !== null) query.set("expert", expert);
  if (prefix.length) query.set("prefix", prefix.join("-"));
  if (view !== DEFAULTS.view) query.set("view", view);
  if (item !== null) query.set("item", item);
  const text = query.toString();
  return text && `?${text}`;
}

/** The page: the address says what to show, each part shows it, and what people do changes the address. */

import * as api from "./api.js";
import { announce, button, byId, element, notice } from "./dom.js";
import { createHistory } from "./history.js";
import { createItem } from "./item.js";
import { createRecommendations } from "./recommendations.js";
import { createSearch } from "./search.js";
import { go, onState } from "./state.js";
import { learn, lookUp, titleOf } from "./titles.js";
import { createTree } from "./tree.js";
import { architecture, count } from "./words.js";

const SIZES = [5, 10, 20, 50, 100];

let models = [];
let users = [];
let current = null; // the state on display

const add = (item) => {
  learn([item]);
  announce(`${titleOf(item.item_id)} added to the history`);
  go({ user: null, history: [...chosen().filter((id) => id !== item.item_id), item.item_id], item: null });
};
const open = (id) => go({ item: id });
const openPrefix = (prefix) => go({ prefix, item: null });
const reveal = (prefix) => {
  openPrefix(prefix);
  byId("tree").focus({ preventScroll: true });
  byId("tree").scrollIntoView();
};
const removeAll = (ids) => go({ user: null, history: chosen().filter((id) => !ids.includes(id)) });

const history = createHistory({
  remove: (place) => go({ user: null, history: chosen().filter((_, i) => i !== place) }),
  clear: () => go({ user: null, history: [] }),
  open,
  be: (user) => go({ user, history: [] }),
});
const recommendations = createRecommendations({
  add,
  open,
  openPrefix: reveal,
  removeAll,
  found: (items) => tree.mark(items),
});
const tree = createTree({ openPrefix, setView: (view) => go({ view }), open, add });
const item = createItem({ add, open, openPrefix: reveal, close: () => go({ item: null }) });

/** The ids of the history on display: a sample user's, or the picked ones. */
function chosen() {
  const user = users.find(({ user_id: id }) => id === current.user);
  return user ? user.history.map(({ item_id: id }) => id) : current.history;
}

function show(state) {
  current = state;
  const ids = chosen();
  history.mark(state.user);
  history.show(ids);
  lookUp(ids).then(() => current === state && history.show(ids));
  showSettings(state);
  recommendations.show(ids, state.k, state.model);
  tree.show(state.prefix, state.view, state.model);
  item.show(state.item, state.model);
}

function showSettings({ k, model }) {
  const inUse = models.find(({ name }) => name === model) ?? models.find((each) => each.default) ?? models[0];
  const names = models.map(({ name, architecture: kind }) =>
    option(name, name === kind ? architecture(name) : `${name} (${architecture(kind)})`, name === inUse?.name),
  );
  byId("model").replaceChildren(...names);
  const sizes = [...new Set([...SIZES, k])].sort((a, b) => a - b);
  byId("k").replaceChildren(...sizes.map((size) => option(size, String(size), size === k)));
  byId("model-facts").textContent = inUse
    ? [
        architecture(inUse.architecture),
        count(inUse.parameters, "parameter"),
        count(inUse.n_items, "item"),
        `${inUse.level_sizes.join(" × ")} codes`,
      ].join(" · ")
    : "";
}

const option = (value, label, selected) => element("option", { value, selected }, label);

/** The names of models and sample users come first: the address refers to them. */
async function start() {
  const [known, samples] = await Promise.allSettled([api.models(), api.users()]);
  if (known.status === "rejected") return fail(known.reason);
  models = known.value.models;
  if (samples.status === "fulfilled") users = samples.value.users;
  history.offer(users);
  learn(users.flatMap((user) => user.history));
  byId("model").addEventListener("change", ({ target }) => {
    const chosenModel = models.find(({ name }) => name === target.value);
    go({ model: chosenModel.default ? null : chosenModel.name, prefix: [] });
  });
  byId("k").addEventListener("change", ({ target }) => go({ k: Number(target.value) }));
  onState(show);
  createSearch({ pick: add, model: () => current.model });
}

function fail(error) {
  const action = error.code === "unauthorized" ? tokenForm() : button("Try again", () => location.reload());
  byId("recommendations").querySelector(".content").replaceChildren(notice(error.message, action));
}

function tokenForm() {
  const input = element("input", { id: "token", type: "password", required: true, autocomplete: "off" });
  const use = (event) => {
    event.preventDefault();
    api.useToken(input.value.trim());
    location.reload();
  };
  const label = element("label", { for: "token" }, "Token");
  return element("form", { onsubmit: use }, label, " ", input, " ", element("button", {}, "Use it"));
}

start();

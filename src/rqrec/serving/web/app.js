/** The page: the URL holds the state, each part of the page shows it, and every action changes the URL. */

import * as api from "./api.js";
import { announce, button, byId, element, notice } from "./dom.js";
import { createCompare } from "./compare.js";
import { createExplore } from "./explore.js";
import { createFold } from "./fold.js";
import { createHistory } from "./history.js";
import { createItem } from "./item.js";
import { pageTitle } from "./page_title.js";
import { createRecommendations } from "./recommendations.js";
import { createSearch } from "./search.js";
import { createWelcome } from "./welcome.js";
import { go, onState } from "./state.js";
import { fetchTitles, cacheTitles, titleOf, useTitlesOf } from "./titles.js";
import { architecture, count } from "./format.js";

const SIZES = [5, 10, 20, 50, 100];

let models = [];
let users = [];
let examplesOf; // the model whose sample users and starting points are shown
let current = null; // the displayed state

const add = (item) => {
  cacheTitles([item]);
  announce(`${titleOf(item.item_id)} added to the history`);
  go({ user: null, history: [...historyIds().filter((id) => id !== item.item_id), item.item_id], item: null });
};
const open = (id) => go({ item: id });
const openPrefix = (prefix) => go({ prefix, view: current.view === "map" ? "tree" : current.view, item: null });
const showInTree = (prefix) => {
  openPrefix(prefix);
  byId("explore").focus({ preventScroll: true });
  byId("explore").scrollIntoView();
};
const removeAll = (ids) => go({ user: null, history: historyIds().filter((id) => !ids.includes(id)) });

const history = createHistory({
  remove: (index) => go({ user: null, history: historyIds().filter((_, i) => i !== index) }),
  clear: () => go({ user: null, history: [] }),
  open,
});
const welcome = createWelcome({
  begin: (ids) => go({ user: null, history: ids }),
  selectUser: (user) => go({ user, history: [] }),
});
const filter = (where) => go({ where: [...current.where.filter((other) => other !== where), where], item: null });
const unfilter = (...gone) => go({ where: current.where.filter((where) => !gone.includes(where)) });
const fold = createFold();
const compare = createCompare({ open, compareWith: (model, expert) => go({ compare: model, expert }), unfilter });
const recommendations = createRecommendations({
  add,
  open,
  openPrefix: showInTree,
  removeAll,
  filter,
  unfilter,
  onRecommended: (items) => explore.mark(historyIds(), items),
  expertTypes: (name) => typesOf(models.find((model) => model.name === name)),
});
const explore = createExplore({ openPrefix, setView: (view) => go({ view }), open, add });
const item = createItem({ add, open, filter, openPrefix: showInTree, close: () => go({ item: null }) });

/** The item ids of the displayed history: the sample user's, or the picked ones. */
function historyIds() {
  const user = users.find(({ user_id: id }) => id === current.user);
  return user ? user.history.map(({ item_id: id }) => id) : current.history;
}

function show(state) {
  current = state;
  useTitlesOf(state.model);
  if (state.model !== examplesOf) loadExamples(state.model).then(() => current === state && show(state));
  const ids = historyIds();
  const user = users.find(({ user_id: id }) => id === state.user) ?? null;
  history.setUnknownUser(user === null ? state.user : null);
  welcome.show(ids.length === 0, state.user);
  showHistory(ids);
  fetchTitles(ids).then(() => current === state && showHistory(ids));
  showSettings(state);
  recommendations.show(ids, state.k, state.model, state.where, user);
  const compared = models.find(({ name }) => name === state.compare);
  compare.show(ids, state.k, models, modelInUse(), compared, state.expert, state.where);
  explore.show(state.prefix, state.view, state.model);
  item.show(state.item, state.model);
}

function showHistory(ids) {
  history.show(ids);
  fold.show(ids);
  const shown = models.length > 1 ? [modelInUse()?.name, current.compare].filter(Boolean) : [];
  document.title = pageTitle(users.find(({ user_id: id }) => id === current.user), ids, [...new Set(shown)]);
}

/** The chosen model, as in /v1/models. */
const modelInUse = () =>
  models.find(({ name }) => name === current.model) ?? models.find((each) => each.default) ?? models[0];

/** The types of a model's experts by name. */
const typesOf = (model) => Object.fromEntries((model?.experts ?? []).map(({ name, type }) => [name, type]));

function showSettings({ k }) {
  const inUse = modelInUse();
  const names = models.map(({ name, architecture: type }) =>
    option(name, name === type ? architecture(name) : `${name} (${architecture(type)})`, name === inUse?.name),
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
        ...(inUse.experts.length > 1 ? [`${inUse.experts.length} experts joined`] : []),
      ].join(" · ")
    : "";
}

const option = (value, label, selected) => element("option", { value, selected }, label);

/** Loads sample users and starting points, which are other ones for another catalogue. */
async function loadExamples(model) {
  examplesOf = model;
  const [loadedUsers, loadedPoints] = await Promise.allSettled([api.users(model), api.startingPoints(model)]);
  if (examplesOf !== model) return;
  users = loadedUsers.status === "fulfilled" ? loadedUsers.value.users : [];
  const points = loadedPoints.status === "fulfilled" ? loadedPoints.value.starting_points : [];
  welcome.setUsers(users);
  welcome.setStartingPoints(points);
  useTitlesOf(model);
  cacheTitles(users.flatMap((user) => [...user.history, user.next]));
  cacheTitles(points.flatMap((point) => point.items));
}

/** Loads models and sample users before anything is shown, because the URL refers to them. */
async function start() {
  const model = new URLSearchParams(location.search).get("model");
  const [loadedModels] = await Promise.allSettled([api.models(), loadExamples(model)]);
  if (loadedModels.status === "rejected") return showFailure(loadedModels.reason);
  models = loadedModels.value.models;
  byId("model").addEventListener("change", ({ target }) => {
    const selected = models.find(({ name }) => name === target.value);
    go({ model: selected.default ? null : selected.name, prefix: [] });
  });
  byId("k").addEventListener("change", ({ target }) => go({ k: Number(target.value) }));
  onState(show);
  createSearch({ pick: add, model: () => current.model });
}

function showFailure(error) {
  const action = error.code === "unauthorized" ? tokenForm() : button("Try again", () => location.reload());
  byId("recommendations").querySelector(".content").replaceChildren(notice(error.message, action));
}

function tokenForm() {
  const input = element("input", { id: "token", type: "password", required: true, autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    api.useToken(input.value.trim());
    location.reload();
  };
  const label = element("label", { for: "token" }, "Token");
  return element("form", { onsubmit: submit }, label, " ", input, " ", element("button", {}, "Use token"));
}

start();

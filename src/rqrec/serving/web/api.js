/** Client of the service's HTTP API. Every failure is an ApiError with a message that can be shown. */

export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

const TOKEN = "rqrec-token"; // key in sessionStorage: kept while the tab is open

/** Sends this token with all further requests. */
export const useToken = (token) => sessionStorage.setItem(TOKEN, token);

export const models = () => get("v1/models");
export const users = (model) => get("v1/users", { model });
export const startingPoints = (model) => get("v1/starting-points", { model });
export const search = (query, pageSize, model, signal) =>
  get("v1/items", { query, page_size: pageSize, model }, signal);
export const item = (id, model, signal) => get("v1/item", { id, model }, signal);
export const similar = (id, k, model, signal) => get("v1/item/similar", { id, k, model }, signal);
export const node = (prefix, page, pageSize, model, signal) =>
  get(["v1/semantic-ids", prefix.join("-")].filter(Boolean).join("/"), { page, page_size: pageSize, model }, signal);

/** The map of a model's items; without items while it is being made. */
export const itemMap = (model, signal) => get("v1/map", { model }, signal);

/**
 * The k most probable items after a history, with their facets, of all or some experts; ids that are not in the
 * catalogue are skipped and listed. `where` is an expression that has to be true of them, or null.
 */
export async function recommend(history, k, model, signal, experts = null, where = null) {
  const body = { history, k, model, experts, where, unknown: "skip", describe: true };
  const response = await post("v1/recommendations", body, signal);
  return { model: response.model, ...response.recommendations[0] };
}

/** The items of `recommend`, each with what the experts say of it, the path of its codes, and items that are near. */
export async function explain(history, k, model, where = null) {
  const response = await post("v1/recommendations", { history, k, model, where, unknown: "skip", explain: true });
  return response.recommendations[0].items;
}

/** Runs requests of which only the newest matters: it aborts the previous one, whose promise never settles. */
export function newestOnly() {
  let current = new AbortController();
  return (start) => {
    current.abort();
    const controller = (current = new AbortController());
    return new Promise((resolve, reject) => {
      const unlessAborted = (settle) => (value) => controller.signal.aborted || settle(value);
      start(controller.signal).then(unlessAborted(resolve), unlessAborted(reject));
    });
  };
}

function get(path, query = {}, signal) {
  const parameters = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(parameters).toString();
  return request(text ? `${path}?${text}` : path, { signal });
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
  } catch {
    throw new ApiError(
      navigator.onLine
        ? "The service does not respond. Try again in a moment."
        : "You are offline. Try again when you are connected.",
      "offline",
    );
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new ApiError(errorMessage(response, body?.error?.message), body?.error?.code ?? `status_${response.status}`);
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function errorMessage(response, message) {
  if (response.status !== 429) {
    return message ?? `The service failed (status ${response.status}). Try again in a moment.`;
  }
  const wait = Number(response.headers.get("Retry-After"));
  const when = wait > 0 ? `in ${wait} second${wait === 1 ? "" : "s"}` : "in a moment";
  return `The service is receiving too many requests. Try again ${when}.`;
}

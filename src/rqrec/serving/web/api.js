/** The service's HTTP interface. Every failure is an ApiError whose message is a sentence for people. */

export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

const TOKEN = "rqrec-token"; // kept while the tab is open

/** Sends this token from now on. */
export const useToken = (token) => sessionStorage.setItem(TOKEN, token);

export const models = () => get("v1/models");
export const users = () => get("v1/users");
export const search = (query, pageSize, model, signal) =>
  get("v1/items", { query, page_size: pageSize, model }, signal);
export const item = (id, model, signal) => get(`v1/items/${encodeURIComponent(id)}`, { model }, signal);
export const similar = (id, k, model, signal) =>
  get(`v1/items/${encodeURIComponent(id)}/similar`, { k, model }, signal);
export const node = (prefix, page, pageSize, model, signal) =>
  get(["v1/semantic-ids", prefix.join("-")].filter(Boolean).join("/"), { page, page_size: pageSize, model }, signal);

/** The k likeliest items after a history; ids that the catalogue lacks are skipped, and the answer lists them. */
export async function recommend(history, k, model, signal) {
  const answer = await post("v1/recommendations", { history, k, model, unknown: "skip" }, signal);
  return { model: answer.model, ...answer.recommendations[0] };
}

/** One item of `recommend`, with the path of its codes. */
export async function explain(history, id, model) {
  const body = { history, k: 1, model, unknown: "skip", allow: [id], exclude_seen: false, explain: true };
  const answer = await post("v1/recommendations", body);
  return answer.recommendations[0].items[0];
}

/** Runs requests of which only the newest matters: a new one ends the one before, which then never answers. */
export function newestOnly() {
  let current = new AbortController();
  return (start) => {
    current.abort();
    const controller = (current = new AbortController());
    return new Promise((resolve, reject) => {
      const unlessEnded = (settle) => (value) => controller.signal.aborted || settle(value);
      start(controller.signal).then(unlessEnded(resolve), unlessEnded(reject));
    });
  };
}

function get(path, query = {}, signal) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
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
        ? "The service does not answer. Try again in a moment."
        : "You are offline. Try again once there is a connection.",
      "offline",
    );
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new ApiError(inWords(response, body?.error?.message), body?.error?.code ?? `status_${response.status}`);
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function inWords(response, message) {
  if (response.status !== 429) {
    return message ?? `The service failed (status ${response.status}). Try again in a moment.`;
  }
  const wait = Number(response.headers.get("Retry-After"));
  const when = wait > 0 ? `in ${wait} second${wait === 1 ? "" : "s"}` : "in a moment";
  return `The service gets too many requests right now. Try again ${when}.`;
}

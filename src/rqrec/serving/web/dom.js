/** Elements from data. Strings become text nodes, so a title can hold anything: nothing here parses HTML. */

/**
 * An HTML element. Of `properties`, functions are listeners ("onclick"), `vars` are CSS variables, booleans switch
 * attributes on or off, and the rest are attributes.
 */
export function element(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

export const byId = (id) => document.getElementById(id);

/** A button that says `label`. */
export function button(label, onclick, properties = {}) {
  return element("button", { type: "button", ...properties, onclick }, label);
}

/** A problem in words, with what to do about it. `action`: a button, or nothing. */
export function notice(message, action, role = "alert") {
  return element("div", { class: "notice", role }, element("p", {}, message), action);
}

/** Says something to people who listen to the page. */
export function announce(message) {
  byId("status").textContent = message;
}

/** Grey lines in the shape of what is on its way. */
export function loading(lines) {
  const rows = Array.from({ length: lines }, () => element("span", { class: "skeleton" }));
  return element("div", { class: "loading", role: "status", "aria-label": "Loading" }, ...rows);
}

function furnish(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) node.style.setProperty(`--${key}`, v);
    else if (typeof value === "boolean" && !name.startsWith("aria-")) node.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return node;
}

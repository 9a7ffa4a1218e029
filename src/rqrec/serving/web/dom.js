/** Creates elements. Strings become text nodes and HTML is never parsed, so titles may contain anything. */

/**
 * Creates an HTML element. In `properties`, functions are event listeners ("onclick"), `vars` are CSS variables,
 * booleans toggle attributes, and anything else is an attribute.
 */
export function element(tag, properties = {}, ...children) {
  return fillIn(document.createElement(tag), properties, children);
}

/** The same for an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fillIn(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

export const byId = (id) => document.getElementById(id);

/** A button with the text `label`, or with other children. */
export function button(label, onclick, properties = {}, children = [label]) {
  return element("button", { type: "button", ...properties, onclick }, children);
}

/** A button amid a sentence, which breaks across lines as the words around it do; a real one is a block. */
export function inlineButton(label, onclick) {
  const onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onclick();
  };
  return element("span", { class: "inline", role: "button", tabindex: "0", onclick, onkeydown }, label);
}

/** A message about a problem, with an optional `action` element such as a button. */
export function notice(message, action, role = "alert") {
  return element("div", { class: "notice", role }, element("p", {}, message), action);
}

/** Announces a message to screen readers. */
export function announce(message) {
  byId("status").textContent = message;
}

/** Grey placeholder lines for content that is loading. */
export function loading(lines) {
  const rows = Array.from({ length: lines }, () => element("span", { class: "skeleton" }));
  return element("div", { class: "loading", role: "status", "aria-label": "Loading" }, ...rows);
}

function fillIn(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) node.style.setProperty(`--${key}`, v);
    else if (typeof value === "boolean" && !name.startsWith("aria-")) node.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return node;
}

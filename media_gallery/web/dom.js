/** Elements, made by code alone: whatever the API tells becomes text, never markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element. A function is a listener (`onclick`), `true` an attribute without a value; `false` and `null` are left out.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * Replace what an element holds.
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.filter((child) => child != null && child !== false).map((child) => (child instanceof Node ? child : String(child))),
  );
}

/**
 * A button with words on it.
 * @param {string} words
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [attributes]
 */
export const button = (words, onclick, attributes = {}) => el("button", { type: "button", onclick, ...attributes }, words);

/**
 * A form control with its label.
 * @param {string} words
 * @param {HTMLElement} control
 */
export const field = (words, control) => el("label", { class: "field" }, el("span", {}, words), control);

/**
 * A choice of one of several values.
 * @param {[value: string, words: string][]} options
 * @param {string} value
 * @param {(value: string) => void} onchange
 * @param {Record<string, any>} [attributes]
 */
export function choice(options, value, onchange, attributes = {}) {
  const list = options.map(([key, words]) => el("option", { value: key, selected: key === value }, words));
  const select = el("select", { onchange: () => onchange(select.value), ...attributes }, ...list);
  return select;
}

/** A name that somebody else chose: it may be of any script, and long. @param {string} name */
export const nameOf = (name) => el("bdi", { class: "name" }, name);

/**
 * Show a modal dialog; the browser gives the focus back at its end.
 * @param {string} title
 * @param {...Child} children
 */
export function dialog(title, ...children) {
  const box = el(
    "dialog",
    { "aria-label": title, onclose: () => box.remove(), onclick: (/** @type {Event} */ event) => event.target === box && box.close() },
    el("div", { class: "sheet" }, el("h2", {}, title), ...children),
  );
  document.body.append(box);
  box.showModal();
  return box;
}

/** Elements, made by code alone, and dialogs and notices of them: whatever the API tells becomes text, never markup. */

import { explain } from "./api.js";
import { t } from "./language.js";

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

/** Why something failed, where it happened. @param {any} error @param {...Child} more */
export const failure = (error, ...more) => el("p", { role: "alert" }, explain(error), ...more);

/**
 * Show what the service is asked for, or why it does not come.
 * @param {HTMLElement} place
 * @param {() => Promise<Child[]>} make Raises Refusal.
 * @param {AbortSignal} [signal] Once it is aborted, nothing is shown.
 */
export async function fillLater(place, make, signal) {
  const children = await make().catch((error) => [failure(error)]);
  if (!signal?.aborted) fill(place, ...children);
}

/**
 * A field to search with: it tells what was typed once the reader pauses.
 * @param {string} words
 * @param {(value: string) => void} onchange
 */
export function searchField(words, onchange) {
  let timer = 0;
  const oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(() => onchange(input.value.trim()), 300);
  };
  const input = el("input", { type: "search", placeholder: words, "aria-label": words, oninput });
  return input;
}

/**
 * Do something once the reader has typed an address.
 * @param {string} title
 * @param {string} about
 * @param {string} jid
 * @param {() => Promise<void>} work Raises Refusal.
 */
export function confirmTyped(title, about, jid, work) {
  const typed = el("input", { autocomplete: "off", spellcheck: "false" });
  const message = el("p", { class: "error", role: "alert" });
  const go = el("button", { class: "danger", type: "submit", disabled: true }, title);
  typed.addEventListener("input", () => (go.disabled = typed.value.trim() !== jid));
  const onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await work();
      box.close();
    } catch (error) {
      message.textContent = explain(error);
      go.disabled = false;
    }
  };
  const words = field(t("confirm.type", { jid }), typed);
  const actions = el("div", { class: "actions" }, button(t("cancel"), () => box.close()), go);
  const box = dialog(title, el("p", {}, about), el("form", { onsubmit }, words, message, actions));
  typed.focus();
}

/** Where notices are shown. */
export const notices = el("div", { class: "notices", role: "status" });

/**
 * Tell the reader something; it goes by itself after some seconds, but not while it is pointed at or has the focus.
 * @param {string} words
 * @param {{ seconds?: number, action?: string, onaction?: () => void, onend?: () => void }} [more] `onend` is called if
 *   it goes without the action.
 */
export function notify(words, { seconds = 6, action, onaction, onend } = {}) {
  const act = action && button(action, () => leave(onaction), { class: "quiet" });
  const note = el("div", { class: "notice" }, el("span", {}, words), act);
  const leave = (/** @type {(() => void) | undefined} */ then) => {
    clearInterval(clock);
    note.remove();
    then?.();
  };
  let left = seconds;
  const clock = setInterval(() => {
    if (!notices.isConnected) document.body.append(notices); // the dialog that it was in is closed
    if (!note.matches(":hover, :focus-within") && --left <= 0) leave(onend);
  }, 1000);
  ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(notices); // nothing outside of a dialog is seen
  notices.append(note);
  return { cancel: () => leave(undefined) };
}

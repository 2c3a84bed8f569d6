/** Short words at the edge of the page, which a screen reader tells. */

import { button, el } from "./dom.js";

const place = el("div", { class: "notices", role: "status" });

/** Where notices are shown. */
export const notices = () => place;

/**
 * Tell the reader something; it goes by itself after some seconds, but not while it is pointed at or has the focus.
 * @param {string} words
 * @param {{ seconds?: number, action?: string, onaction?: () => void, onend?: () => void }} [more] `onend` is called if
 *   it goes without the action.
 */
export function notify(words, { seconds = 6, action, onaction, onend } = {}) {
  const act = action && button(action, () => leave(onaction));
  const note = el("div", { class: "notice" }, el("span", {}, words), act);
  const leave = (/** @type {(() => void) | undefined} */ then) => {
    clearInterval(clock);
    note.remove();
    then?.();
  };
  let left = seconds;
  const clock = setInterval(() => {
    if (!place.isConnected) document.body.append(place); // the dialog that it was in is closed
    if (!note.matches(":hover, :focus-within") && --left <= 0) leave(onend);
  }, 1000);
  ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(place); // nothing outside of a dialog is seen
  place.append(note);
  return { cancel: () => leave(undefined) };
}

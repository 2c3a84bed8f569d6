/** A question before what cannot be undone. */

import { explain } from "./api.js";
import { button, dialog, el, field } from "./dom.js";
import { t } from "./language.js";

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

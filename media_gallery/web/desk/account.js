/** One account at the desk: what it stores by kind, its quota, its end. Its files are not shown. */

import { call, explain } from "../api.js";
import { confirmTyped } from "../confirm.js";
import { button, choice, dialog, el, field, fill } from "../dom.js";
import { size, t } from "../language.js";
import { usageBar } from "../usage.js";

/** @type {[bytes: number, digits: number][]} */
const UNITS = [[1024 ** 2, 0], [1024 ** 3, 0]];

/**
 * @param {import("../api.js").Account} account
 * @param {boolean} own Whether it is the reader's own.
 * @param {() => void} onchange
 */
export function openAccount(account, own, onchange) {
  const { jid } = account;
  const usage = el("div", { class: "usage" });
  const message = el("p", { role: "alert" });
  let unit = account.quota % UNITS[1][0] === 0 ? UNITS[1][0] : UNITS[0][0];
  const amount = el("input", { type: "number", min: "0", step: "any", value: String(+(account.quota / unit).toFixed(2)) });
  const units = choice(
    UNITS.map(([bytes]) => /** @type {[string, string]} */ ([String(bytes), size(bytes).replace(/[\d\s]/g, "")])),
    String(unit), (value) => (unit = Number(value)), { "aria-label": t("desk.unit") },
  );
  /** @param {number | null} value Bytes, or null for the default. */
  const set = async (value) => {
    try {
      const given = await call("PUT", "account/quota/", { jid, value });
      message.textContent = t("desk.set", { quota: size(given.quota) });
      onchange();
      await show();
    } catch (error) {
      message.textContent = explain(error);
    }
  };
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (amount.value) set(Math.round(Number(amount.value) * unit));
  };
  const show = async () => {
    try {
      usageBar(usage, await call("GET", "files/stats/", { jid }));
    } catch (error) {
      fill(usage, el("p", { role: "alert" }, explain(error)));
    }
  };
  const remove = () =>
    confirmTyped(t("account.delete"), t("desk.delete"), jid, async () => {
      await call("DELETE", "account/list/", { jid });
      box.close();
      onchange();
    });
  const quota = field(t("desk.quota"), amount);
  const box = dialog(
    jid,
    usage,
    el("form", { class: "quota", onsubmit }, quota, units, el("button", { type: "submit", class: "main" }, t("save")), button(t("desk.default"), () => set(null))),
    message,
    el("div", { class: "actions" }, !own && button(t("account.delete"), remove, { class: "danger" }), button(t("close"), () => box.close())),
  );
  show();
}

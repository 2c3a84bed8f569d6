/** My account: where I am signed in, and the end of it. */

import { call, explain } from "./api.js";
import { button, confirmTyped, el, fillLater, notify } from "./dom.js";
import { date, t } from "./language.js";

/** @typedef {{ token_id: number, device: string, client: string, created_at: string, expires: string, last_used: string | null, current: boolean }} Token */

/** @param {import("./api.js").Me} me @param {() => void} signOut */
export function accountScreen(me, signOut) {
  const list = el("div", { class: "sessions" }, el("div", { class: "skeleton" }));
  showSessions(list);
  return el(
    "main",
    { class: "text" },
    el("h1", {}, el("bdi", {}, me.jid)),
    el("p", { class: "dim" }, t("account.since", { date: date(me.created_at) })),
    button(t("signout"), signOut),
    el("h2", {}, t("sessions")),
    list,
    el("h2", {}, t("account.delete")),
    el("p", {}, t("account.about")),
    button(t("account.delete"), () => deleteAccount(me.jid), { class: "danger" }),
  );
}

/** @param {HTMLElement} list */
const showSessions = (list) =>
  fillLater(list, async () => {
    const { items } = await call("GET", "account/tokens/", { obj_per_page: 500 });
    return [el("ul", {}, ...items.map((/** @type {Token} */ token) => row(token, list)))];
  });

/** @param {Token} token @param {HTMLElement} list */
function row(token, list) {
  const name = [token.client, token.device].filter(Boolean).join(" · ") || t("session.unnamed");
  const used = token.last_used ? t("session.used", { date: date(token.last_used, "moment") }) : t("session.unused");
  const revoke = async () => {
    try {
      await call("DELETE", "account/tokens/", { token_id: token.token_id });
      await showSessions(list);
    } catch (error) {
      notify(explain(error));
    }
  };
  return el(
    "li",
    {},
    el("span", {}, el("bdi", {}, name), el("span", { class: "dim" }, used, " · ", t("session.until", { date: date(token.expires) }))),
    token.current ? el("span", { class: "dim" }, t("session.this")) : button(t("session.revoke"), revoke, { class: "quiet", "aria-label": `${t("session.revoke")}: ${name}` }),
  );
}

/** @param {string} jid */
function deleteAccount(jid) {
  confirmTyped(t("account.delete"), t("account.about"), jid, async () => {
    await call("DELETE", "account/");
    dispatchEvent(new Event("account-deleted"));
  });
}

/** The beginning: which screen is shown, and what is around it. The screen's name is the address's fragment. */

import { accountScreen } from "./account.js";
import { call, explain, forgetSession, session } from "./api.js";
import { sendDeletion, sendDeletionAtLast } from "./deletion.js";
import { button, choice, el, failure, fill, notices, notify } from "./dom.js";
import { galleryScreen } from "./gallery.js";
import { KINDS } from "./items.js";
import { choose, current, LANGUAGES, load, t } from "./language.js";
import { signIn } from "./signin.js";
import { uploads } from "./upload.js";

/** @typedef {import("./api.js").Me} Me */

const page = /** @type {HTMLElement} */ (document.getElementById("page"));
/** @type {Me | null} */
let me = null;
let leaving = new AbortController();

/** Show what the address names, or the form to sign in. @param {string} [notice] */
async function show(notice = "") {
  leaving.abort(); // ends what the last screen listens to
  leaving = new AbortController();
  const { signal } = leaving;
  if (!session()) return fill(page, signIn(() => show(), notice), languageChoice());
  try {
    me ??= await call("GET", "account/");
  } catch (error) {
    if (session() && !signal.aborted) fill(page, el("main", { class: "message" }, failure(error), button(t("again"), () => show())));
    return;
  }
  if (!me || signal.aborted) return;
  const shown = await screen(me, signal);
  if (!signal.aborted) fill(page, header(me), shown, languageChoice());
}

/** @param {Me} who @param {AbortSignal} signal Of the end of the screen. */
async function screen(who, signal) {
  const name = screenName();
  if (name === "account") return accountScreen(who, signOut);
  if (name === "desk" && who.admin) return (await import("./desk/desk.js")).deskScreen(who, signal);
  return galleryScreen(KINDS.find(([kind]) => kind === name)?.[0] ?? "image", signal);
}

const screenName = () => location.hash.slice(1) || "image";

/** @param {Me} who */
function header(who) {
  /** @type {[string, string][]} */
  const more = [...(who.admin ? [/** @type {[string, string]} */ (["desk", t("desk")])] : []), ["account", t("account")]];
  const link = (/** @type {[string, string]} */ [name, words]) =>
    el("a", { href: `#${name}`, "aria-current": name === screenName() && "page" }, words);
  return el(
    "header",
    {},
    el("nav", { "aria-label": t("tabs") }, ...KINDS.map(([kind, key]) => link([kind, t(key)]))),
    el("nav", { "aria-label": t("more") }, ...more.map(link)),
  );
}

const languageChoice = () =>
  el("footer", {}, choice(Object.entries(LANGUAGES), current(), choose, { "aria-label": t("language") }), " ", el("a", { href: "api/docs", class: "dim" }, "API"));

/** Revoke the token, and forget it. */
async function signOut() {
  try {
    await sendDeletion();
    await call("DELETE", "account/tokens/", { token_id: me?.token_id });
  } catch (error) {
    return notify(explain(error));
  }
  end();
}

/** @param {string} [notice] */
function end(notice) {
  forgetSession();
  me = null;
  document.querySelectorAll("dialog").forEach((box) => box.close());
  uploads.clear();
  location.hash = "";
  show(notice);
}

function sayWhetherOnline() {
  document.body.classList.toggle("offline", !navigator.onLine);
  offline.textContent = navigator.onLine ? "" : t("error.offline");
}

const offline = el("p", { class: "banner", role: "status" });
await load();
document.body.prepend(offline);
document.body.append(notices, uploads.panel);
addEventListener("hashchange", () => session() && show());
addEventListener("signed-out", () => end(t("error.session")));
addEventListener("account-deleted", () => end(t("account.deleted")));
addEventListener("online", sayWhetherOnline);
addEventListener("offline", sayWhetherOnline);
addEventListener("pagehide", sendDeletionAtLast);
sayWhetherOnline();
show();

/** The desk: all accounts and the state of the service, for administrators. */

import { call, explain, local } from "../api.js";
import { button, choice, confirmTyped, dialog, el, field, fillLater, searchField } from "../dom.js";
import { usageBar } from "../items.js";
import { date, number, percent, size, t } from "../language.js";

/** @typedef {import("../api.js").Account} Account */
/** @typedef {{ accounts: number, files: number, used: number, stored: number, parts: Record<string, string | null> }} State */

const PAGE = 50;
/** @type {[bytes: number, digits: number][]} */
const UNITS = [[1024 ** 2, 0], [1024 ** 3, 0]];
/** @type {Record<string, import("../language.js").Key>} */
const PARTS = { database: "part.database", storage: "part.storage", rates: "part.rates", xmpp: "part.xmpp", decoders: "part.decoders" };

/** @param {import("../api.js").Me} me @param {AbortSignal} signal */
export function deskScreen(me, signal) {
  const state = el("section", { "aria-label": t("desk.state") }, el("div", { class: "skeleton" }));
  const accounts = new Accounts(me, signal);
  showState(state, signal);
  return el("main", {}, el("h1", {}, t("desk")), state, el("h2", {}, t("desk.accounts")), accounts.place);
}

/** @param {HTMLElement} place @param {AbortSignal} signal */
const showState = (place, signal) =>
  fillLater(place, async () => {
    /** @type {State} */
    const state = await call("GET", "service/", {}, { signal });
    const totals = [
      [t("desk.accounts"), number(state.accounts)],
      [t("kind.files"), number(state.files)],
      [t("desk.used"), size(state.used)],
      [t("desk.stored"), size(state.stored)],
    ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    const parts = Object.entries(state.parts).map(([part, wrong]) => {
      const words = PARTS[part] ? t(PARTS[part]) : part;
      return el("li", { class: wrong ? "bad" : "good" }, words, " ", el("span", { class: "dim" }, wrong ?? t("part.works")));
    });
    return [el("dl", { class: "totals" }, ...totals), el("ul", { class: "parts" }, ...parts)];
  }, signal);

class Accounts {
  /** @param {import("../api.js").Me} me @param {AbortSignal} signal */
  constructor(me, signal) {
    this.me = me;
    this.signal = signal;
    this.page = 1;
    this.ended = new AbortController();
    /** @type {Record<string, string>} */
    this.params = { order_by: "-used" };
    this.list = el("div", { "aria-live": "polite" });
    const orders = choice(
      [["-used", t("order.used")], ["jid", t("order.jid")], ["-quota", t("order.quota")]],
      "-used", (value) => this.#set("order_by", value), { "aria-label": t("order") },
    );
    this.place = el("div", {}, el("div", { class: "tools" }, el("div", { class: "filters", role: "search" }, searchField(t("search"), (value) => this.#set("search", value)), searchField(t("desk.vhost"), (value) => this.#set("vhost", value)), orders)), this.list);
    this.show();
  }

  /** @param {string} name @param {string} value */
  #set(name, value) {
    this.params[name] = value;
    this.page = 1;
    this.show();
  }

  show() {
    this.ended.abort(); // what an earlier choice still fetches is not wanted any more
    this.ended = new AbortController();
    const signal = AbortSignal.any([this.signal, this.ended.signal]);
    return fillLater(this.list, async () => {
      const page = await call("GET", "account/list/", { ...this.params, page: this.page, obj_per_page: PAGE }, { signal });
      const words = t("desk.count", { n: page.total_objects, page: number(page.page), pages: number(Math.max(1, page.total_pages)) });
      return [this.#table(page.items), pages(page, words, (to) => ((this.page = to), this.show()))];
    }, signal);
  }

  /** @param {Account[]} accounts */
  #table(accounts) {
    if (!accounts.length) return el("p", { class: "message" }, t("nothing.found"));
    const head = [t("account"), t("desk.used"), t("desk.quota"), t("kind.files"), t("desk.since")];
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((words) => el("th", { scope: "col" }, words)))), el("tbody", {}, ...accounts.map((account) => this.#row(account)))));
  }

  /** @param {Account} account */
  #row(account) {
    const open = () => openAccount(account, this.me, () => this.show());
    const share = account.used / Math.max(account.quota, 1);
    const bar = el("div", { class: "bar", "aria-hidden": "true" }, el("span", { class: share > 1 ? "over" : "image" }));
    /** @type {HTMLElement} */ (bar.firstChild).style.width = `${Math.min(100, 100 * share)}%`;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "link", onclick: open }, el("bdi", {}, account.jid))),
      el("td", {}, `${size(account.used)} `, el("span", { class: "dim" }, percent(share)), bar),
      el("td", {}, size(account.quota)),
      el("td", {}, number(account.files)),
      el("td", {}, date(account.created_at)),
    );
  }
}

/**
 * Which page of a list is shown, and the ways to its neighbours.
 * @param {import("../api.js").Page<any>} shown
 * @param {string} words
 * @param {(page: number) => void} turn
 */
const pages = ({ page, total_pages }, words, turn) =>
  el(
    "nav",
    { class: "pages", "aria-label": t("pages") },
    button("‹", () => turn(page - 1), { disabled: page <= 1, "aria-label": t("previous") }),
    el("span", { class: "dim" }, words),
    button("›", () => turn(page + 1), { disabled: page >= total_pages, "aria-label": t("next") }),
  );

/** A page of an account's files, to be read alone; the service logs each look. @param {HTMLElement} place @param {string} jid @returns {Promise<void>} */
const showFiles = (place, jid, page = 1) =>
  fillLater(place, async () => {
    const answer = await call("GET", "account/files/", { jid, page });
    const rows = answer.items.map((/** @type {import("../api.js").Item} */ item) => {
      const link = el("a", { href: local(item.file), target: "_blank", rel: "noopener" }, el("bdi", {}, item.name));
      return el("li", {}, el("span", {}, link, el("span", { class: "dim" }, size(item.size), " · ", date(item.created_at))));
    });
    return [el("ul", {}, ...rows), pages(answer, t("count", { n: answer.total_objects }), (to) => showFiles(place, jid, to))];
  });

/**
 * One account: what it stores by kind, its quota, its end; its files, if the service lets administrators see them.
 * @param {Account} account
 * @param {import("../api.js").Me} me
 * @param {() => void} onchange
 */
function openAccount(account, me, onchange) {
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
  const show = () => fillLater(usage, async () => usageBar(await call("GET", "files/stats/", { jid })));
  const remove = () =>
    confirmTyped(t("account.delete"), t("account.about"), jid, async () => {
      await call("DELETE", "account/list/", { jid });
      box.close();
      onchange();
    });
  const quota = field(t("desk.quota"), amount);
  const files = el("div", { class: "sessions" }, button(t("desk.files"), () => showFiles(files, jid), { class: "quiet" }));
  const box = dialog(
    jid,
    usage,
    me.seen_by_admins && files,
    el("form", { class: "quota", onsubmit }, quota, units, el("button", { type: "submit", class: "main" }, t("save")), button(t("desk.default"), () => set(null))),
    message,
    el("div", { class: "actions" }, jid !== me.jid && button(t("account.delete"), remove, { class: "danger" }), button(t("close"), () => box.close())),
  );
  show();
}

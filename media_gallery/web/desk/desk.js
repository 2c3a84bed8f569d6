/** The desk: all accounts and the state of the service, for administrators. */

import { call, explain } from "../api.js";
import { openAccount } from "./account.js";
import { button, choice, el, fill } from "../dom.js";
import { date, number, percent, size, t } from "../language.js";

/** @typedef {import("../api.js").Account} Account */
/** @typedef {{ accounts: number, files: number, used: number, stored: number, parts: Record<string, string | null> }} State */

const PAGE = 50;
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
async function showState(place, signal) {
  try {
    /** @type {State} */
    const state = await call("GET", "service/", {}, { signal });
    const totals = [
      [t("desk.accounts"), number(state.accounts)],
      [t("kind.files"), number(state.files)],
      [t("desk.used"), size(state.used)],
      [t("desk.stored"), size(state.stored)],
    ];
    const parts = Object.entries(state.parts).map(([part, wrong]) => {
      const words = PARTS[part] ? t(PARTS[part]) : part;
      return el("li", { class: wrong ? "bad" : "good" }, words, " ", el("span", { class: "dim" }, wrong ?? t("part.works")));
    });
    fill(place, el("dl", { class: "totals" }, ...totals.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))), el("ul", { class: "parts" }, ...parts));
  } catch (error) {
    if (!signal.aborted) fill(place, el("p", { role: "alert" }, explain(error)));
  }
}

class Accounts {
  /** @param {import("../api.js").Me} me @param {AbortSignal} signal */
  constructor(me, signal) {
    this.me = me;
    this.signal = signal;
    this.page = 1;
    this.asked = 0;
    /** @type {Record<string, string>} */
    this.params = { order_by: "-used" };
    this.list = el("div", { "aria-live": "polite" });
    const orders = choice(
      [["-used", t("order.used")], ["jid", t("order.jid")], ["-quota", t("order.quota")]],
      "-used", (value) => this.#set("order_by", value), { "aria-label": t("order") },
    );
    this.place = el("div", {}, el("div", { class: "tools" }, el("div", { class: "filters", role: "search" }, this.#text("search", t("search")), this.#text("vhost", t("desk.vhost")), orders)), this.list);
    this.show();
  }

  /** @param {string} name @param {string} words */
  #text(name, words) {
    const input = el("input", { type: "search", placeholder: words, "aria-label": words });
    let timer = 0;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#set(name, input.value.trim()), 300);
    });
    return input;
  }

  /** @param {string} name @param {string} value */
  #set(name, value) {
    this.params[name] = value;
    this.page = 1;
    this.show();
  }

  async show() {
    const asked = ++this.asked;
    try {
      const page = await call("GET", "account/list/", { ...this.params, page: this.page, obj_per_page: PAGE }, { signal: this.signal });
      if (asked === this.asked) fill(this.list, this.#table(page.items), this.#pages(page));
    } catch (error) {
      if (asked === this.asked && !this.signal.aborted) fill(this.list, el("p", { role: "alert" }, explain(error)));
    }
  }

  /** @param {Account[]} accounts */
  #table(accounts) {
    if (!accounts.length) return el("p", { class: "message" }, t("nothing.found"));
    const head = [t("desk.account"), t("desk.used"), t("desk.quota"), t("kind.files"), t("desk.since")];
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((words) => el("th", { scope: "col" }, words)))), el("tbody", {}, ...accounts.map((account) => this.#row(account)))));
  }

  /** @param {Account} account */
  #row(account) {
    const open = () => openAccount(account, account.jid === this.me.jid, () => this.show());
    const share = account.used / Math.max(account.quota, 1);
    const bar = el("div", { class: "bar", "aria-hidden": "true" }, el("span", { class: share > 1 ? "over" : "images" }));
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

  /** @param {import("../api.js").Page<Account>} page */
  #pages({ page, total_pages, total_objects }) {
    const turn = (/** @type {number} */ to) => () => ((this.page = to), this.show());
    return el(
      "nav",
      { class: "pages", "aria-label": t("pages") },
      button("‹", turn(page - 1), { disabled: page <= 1, "aria-label": t("previous") }),
      el("span", { class: "dim" }, t("desk.count", { n: total_objects, page: number(page), pages: number(Math.max(1, total_pages)) })),
      button("›", turn(page + 1), { disabled: page >= total_pages, "aria-label": t("next") }),
    );
  }
}

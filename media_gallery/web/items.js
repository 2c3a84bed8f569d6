/** What an account has stored: how much of each kind, the items of one kind as far as they are fetched, and the selected ones. */

import { call } from "./api.js";
import { button, el, fill } from "./dom.js";
import { percent, size, t } from "./language.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./api.js").Kind} Kind */

/** @type {[kind: Kind, words: import("./language.js").Key][]} */
export const KINDS = [["image", "kind.images"], ["video", "kind.videos"], ["voice", "kind.voices"], ["file", "kind.files"], ["avatar", "kind.avatars"]];

const PAGE = 200;

/** A bar that shows how much is used, and by what. @param {import("./api.js").Statistics} stats */
export function usageBar({ quota, total: { used }, ...shares }) {
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  const legend = KINDS.map(([kind, words]) => {
    const share = shares[/** @type {keyof typeof shares} */ (`${kind}s`)];
    const part = el("span", { class: kind });
    part.style.width = `${(100 * share.used) / Math.max(quota, used, 1)}%`;
    bar.append(part);
    return el("li", { class: kind }, t(words), " ", el("span", { class: "dim" }, size(share.used), el("span", { class: "count" }, ` · ${t("count", { n: share.count })}`)));
  });
  const words = [t("used", { used: size(used), quota: size(quota) }), " ", el("span", { class: "dim" }, percent(used / Math.max(quota, 1)))];
  return [el("p", {}, ...words), bar, el("ul", {}, ...legend)];
}

export class Items {
  /**
   * @param {Kind} kind
   * @param {Record<string, string>} filters Parameters of the API.
   * @param {AbortSignal} signal
   */
  constructor(kind, filters, signal) {
    this.kind = kind;
    this.filters = filters;
    this.signal = signal;
    /** @type {Item[]} */
    this.list = [];
    /** @type {Set<number>} */
    this.ids = new Set();
    /** @type {Set<number>} Taken away; the service may have them still. */
    this.gone = new Set();
    this.total = 0;
    this.complete = false;
    /** @type {Promise<Item[]> | null} */
    this.fetching = null;
  }

  /** Fetch the next ones; several calls at once are one. Raises Refusal. */
  more() {
    this.fetching ??= this.#fetch().finally(() => (this.fetching = null));
    return this.fetching;
  }

  async #fetch() {
    // Pages are counted from what is here, so that what was deleted or added meanwhile leaves no gap.
    let page = Math.floor(this.list.length / PAGE);
    let fresh = [];
    while (!fresh.length && !this.complete) {
      const params = { type: this.kind, obj_per_page: PAGE, page: ++page, ...this.filters };
      const answer = await call("GET", "files/", params, { signal: this.signal });
      fresh = answer.items.filter((/** @type {Item} */ item) => !this.ids.has(item.id) && !this.gone.has(item.id));
      this.total = answer.total_objects;
      this.complete = page >= answer.total_pages;
    }
    this.add(this.list.length, fresh);
    return fresh;
  }

  /** @param {number} place @param {Item[]} items */
  add(place, items) {
    this.list.splice(place, 0, ...items);
    for (const item of items) this.ids.add(item.id);
  }

  /** @param {Set<number>} ids */
  remove(ids) {
    this.list = this.list.filter((item) => !ids.has(item.id));
    for (const id of ids) {
      this.total -= Number(this.ids.delete(id));
      this.gone.add(id);
    }
  }
}

/** Which items are selected, and the bar that tells it. */
export class Selection {
  /** @param {{ onchange: () => void, ondelete: (items: Item[]) => void }} then */
  constructor({ onchange, ondelete }) {
    this.onchange = onchange;
    this.ondelete = ondelete;
    /** @type {Map<number, Item>} */
    this.chosen = new Map();
    this.anchor = 0;
    this.bar = el("div", { class: "selection", hidden: true });
    this.told = el("span", { role: "status" });
    fill(
      this.bar,
      this.told,
      button(t("select.none"), () => this.clear(), { class: "quiet" }),
      button(t("delete"), () => this.ondelete(this.items()), { class: "danger" }),
    );
  }

  get count() {
    return this.chosen.size;
  }

  items() {
    return [...this.chosen.values()];
  }

  /** Show on an item whether it is selected. @param {HTMLElement} cell @param {Item} item */
  mark(cell, item) {
    const chosen = this.chosen.has(item.id);
    cell.classList.toggle("chosen", chosen);
    const [tile, tick] = cell.children;
    if (this.count) tile.setAttribute("aria-pressed", String(chosen));
    else tile.removeAttribute("aria-pressed");
    /** @type {HTMLInputElement} */ (tick).checked = chosen;
  }

  /**
   * Select an item or not; with `range`, all from the last one on.
   * @param {Item[]} list
   * @param {number} index
   * @param {boolean} range
   */
  toggle(list, index, range) {
    if (range) return this.extend(list, this.anchor, index);
    const item = list[index];
    if (!this.chosen.delete(item.id)) this.chosen.set(item.id, item);
    this.anchor = index;
    this.#changed();
  }

  /** @param {Item[]} list @param {number} from @param {number} to */
  extend(list, from, to) {
    for (const item of list.slice(Math.min(from, to), Math.max(from, to) + 1)) this.chosen.set(item.id, item);
    this.#changed();
  }

  /** @param {Item[]} list */
  all(list) {
    this.extend(list, 0, list.length);
  }

  clear() {
    if (!this.count) return;
    this.chosen.clear();
    this.#changed();
  }

  #changed() {
    const bytes = this.items().reduce((sum, item) => sum + item.size, 0);
    this.bar.hidden = !this.count;
    this.told.textContent = this.count ? t("selected", { n: this.count, size: size(bytes) }) : "";
    this.onchange();
  }
}

/** The items of one tab, in their order, as far as they have been fetched. */

import { call } from "./api.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./api.js").Kind} Kind */

const PAGE = 200;

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

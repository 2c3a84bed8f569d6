/** Which items are selected, and the bar that tells it. */

import { button, el, fill } from "./dom.js";
import { size, t } from "./language.js";

/** @typedef {import("./api.js").Item} Item */

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

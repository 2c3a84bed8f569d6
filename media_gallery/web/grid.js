/**
 * A list of any length, in sections by month. Only what is near the window is in the document; the rest is empty space of
 * the same height. So memory and work do not grow with the number of items.
 */

import { el } from "./dom.js";
import { date, forward } from "./language.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{ month: string, first: number, count: number, top: number, list: HTMLUListElement, nodes: Map<number, HTMLElement> }} Section */

const MARGIN = 900; // pixels above and below the window that are filled, too
const HEADING = 56; // the height of a section's heading, as in style.css

export class Grid {
  /**
   * @param {object} options
   * @param {boolean} options.rows Whether an item takes a whole row.
   * @param {boolean} options.months Whether there are sections by month.
   * @param {(item: Item, index: number) => HTMLElement} options.draw
   * @param {() => void} options.onend Called when the end comes near.
   * @param {AbortSignal} options.signal
   */
  constructor({ rows, months, draw, onend, signal }) {
    this.rows = rows;
    this.months = months;
    this.draw = draw;
    this.onend = onend;
    this.host = el("div", { class: rows ? "grid rows" : "grid", tabindex: "-1" });
    /** @type {Item[]} */
    this.items = [];
    /** @type {Section[]} */
    this.sections = [];
    this.columns = 1;
    this.height = 64;
    this.focused = 0;
    this.waiting = false;
    addEventListener("scroll", () => this.#soon(), { passive: true, signal });
    const watch = new ResizeObserver(() => this.#measure());
    watch.observe(this.host);
    signal.addEventListener("abort", () => watch.disconnect());
  }

  /** Show other items, or the same ones anew. @param {Item[]} items */
  show(items) {
    this.items = items;
    this.sections = [];
    this.focused = Math.max(0, Math.min(this.focused, items.length - 1));
    this.host.replaceChildren();
    this.#section(0);
    this.#measure();
  }

  /** Show items that were put behind the known ones. @param {Item[]} items All items. */
  extend(items) {
    this.items = items;
    const last = this.sections.at(-1);
    this.#section(last ? last.first + last.count : 0);
    this.#place();
  }

  /** Do something with each item that is in the document. @param {(node: HTMLElement, item: Item) => void} work */
  each(work) {
    for (const { nodes } of this.sections) for (const [index, node] of nodes) work(node, this.items[index]);
  }

  /** @param {number} from The first item that has no section yet. */
  #section(from) {
    for (let index = from; index < this.items.length; index++) {
      const month = this.months ? date(this.items[index].created_at, "month") : "";
      const last = this.sections.at(-1);
      if (last?.month === month) last.count++;
      else {
        const list = el("ul", {});
        this.host.append(el("section", {}, this.months && el("h2", {}, month), list));
        this.sections.push({ month, first: index, count: 1, top: 0, list, nodes: new Map() });
      }
    }
  }

  #measure() {
    const style = getComputedStyle(this.host);
    const [least, gap, row] = ["--least", "--gap", "--row"].map((name) => parseFloat(style.getPropertyValue(name)));
    const width = this.host.clientWidth;
    this.columns = this.rows ? 1 : Math.max(2, Math.floor((width + gap) / (least + gap)));
    const side = (width + gap) / this.columns - gap;
    this.height = this.rows ? row : side + gap;
    this.host.style.setProperty("--columns", String(this.columns));
    this.host.style.setProperty("--side", `${side}px`);
    this.#place();
  }

  /** Where each section begins. */
  #place() {
    let top = 0;
    for (const section of this.sections) {
      section.top = top + (this.months ? HEADING : 0);
      top = section.top + this.#rowsOf(section) * this.height;
    }
    this.#render();
  }

  /** @param {Section} section */
  #rowsOf(section) {
    return Math.ceil(section.count / this.columns);
  }

  #soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#render();
    });
  }

  #render() {
    if (!this.host.isConnected) return;
    const box = this.host.getBoundingClientRect();
    const from = -box.top - MARGIN;
    const to = innerHeight - box.top + MARGIN;
    for (const section of this.sections) {
      const rows = this.#rowsOf(section);
      const first = Math.min(Math.max(0, Math.floor((from - section.top) / this.height)), rows);
      const last = Math.max(first, Math.min(rows, Math.ceil((to - section.top) / this.height)));
      this.#draw(section, first * this.columns, Math.min(last * this.columns, section.count));
      section.list.style.paddingTop = `${first * this.height}px`;
      section.list.style.paddingBottom = `${(rows - last) * this.height}px`;
    }
    if (box.bottom < innerHeight + 2 * MARGIN) this.onend();
  }

  /**
   * Have just these items of a section in the document.
   * @param {Section} section
   * @param {number} from
   * @param {number} to
   */
  #draw(section, from, to) {
    const { list, nodes, first } = section;
    for (const [index, node] of nodes) {
      if (index >= first + from && index < first + to) continue;
      if (node.contains(document.activeElement)) this.host.focus({ preventScroll: true });
      node.remove();
      nodes.delete(index);
    }
    let next = list.firstElementChild;
    for (let index = first + from; index < first + to; index++) {
      const node = nodes.get(index);
      if (node) next = node.nextElementSibling;
      else {
        const fresh = this.draw(this.items[index], index);
        nodes.set(index, fresh);
        list.insertBefore(fresh, next);
      }
    }
  }

  /** Move the focus to an item, wherever it is. @param {number} index */
  focus(index) {
    this.focused = Math.max(0, Math.min(index, this.items.length - 1));
    const section = this.sections.findLast(({ first }) => first <= this.focused);
    if (!section) return;
    const top = this.host.getBoundingClientRect().top + section.top + Math.floor((this.focused - section.first) / this.columns) * this.height;
    if (top < 80) scrollBy(0, top - 80);
    else if (top + this.height > innerHeight - 80) scrollBy(0, top + this.height - innerHeight + 80);
    this.#render();
    this.each((node, item) => focusable(node)?.setAttribute("tabindex", item === this.items[this.focused] ? "0" : "-1"));
    const node = section.nodes.get(this.focused);
    if (node) focusable(node)?.focus({ preventScroll: true });
  }

  /** Where an arrow key leads. @param {string} key @returns {number | null} */
  neighbour(key) {
    const section = this.sections.findLast(({ first }) => first <= this.focused);
    if (!section) return null;
    const place = this.focused - section.first;
    switch (key) {
      case "ArrowLeft": return this.focused - forward();
      case "ArrowRight": return this.focused + forward();
      case "Home": return 0;
      case "End": return this.items.length - 1;
      case "ArrowUp":
        return place >= this.columns ? this.focused - this.columns : section.first - 1;
      case "ArrowDown":
        return Math.floor(place / this.columns) < this.#rowsOf(section) - 1
          ? Math.min(this.focused + this.columns, section.first + section.count - 1)
          : section.first + section.count;
      default: return null;
    }
  }
}

/** @param {HTMLElement} node @returns {HTMLElement | null} */
const focusable = (node) => node.querySelector(".tile");

/** My gallery: what is used, and the items of one kind with search, filters and selection. */

import { call, kindOf, local } from "./api.js";
import { deleteSoon, freeSpace, requestsFor } from "./deletion.js";
import { button, el, failure, fill, fillLater, nameOf } from "./dom.js";
import { filterBar, isFiltered } from "./filters.js";
import { Grid } from "./grid.js";
import { Items, KINDS, Selection, usageBar } from "./items.js";
import { date, size, t } from "./language.js";
import { acceptFiles, uploads } from "./upload.js";
import { openViewer } from "./viewer.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./api.js").Kind} Kind */

/** @param {Kind} kind @param {AbortSignal} signal */
export const galleryScreen = (kind, signal) => new Gallery(kind, signal).place;

class Gallery {
  /** @param {Kind} kind @param {AbortSignal} signal */
  constructor(kind, signal) {
    this.kind = kind;
    this.signal = signal;
    /** @type {Record<string, string>} */
    this.filters = { order_by: "-created_at" };
    this.items = new Items(kind, this.filters, signal);
    /** @type {Grid | null} */
    this.grid = null;
    /** @type {AbortController | null} */
    this.ended = null;
    this.usage = el("div", { class: "usage" });
    this.body = el("div", { class: "items" });
    this.selection = new Selection({ onchange: () => this.#selected(), ondelete: (items) => this.delete(items) });
    const picker = el("input", { type: "file", multiple: true, hidden: true, onchange: () => this.#upload(picker) });
    const tools = el(
      "div",
      { class: "tools" },
      filterBar(kind, this.filters, (filters) => this.load(filters)),
      button(t("space.title"), () => freeSpace((words, request, newest) => this.#freed(words, request, newest)), { class: "quiet" }),
      button(t("upload"), () => picker.click(), { class: "main" }),
      picker,
    );
    const title = t(KINDS.find(([name]) => name === kind)?.[1] ?? "kind.files");
    this.place = el("main", {}, el("h1", { class: "unseen" }, title), this.usage, tools, this.body, this.selection.bar);
    this.place.addEventListener("keydown", (event) => this.#key(event));
    acceptFiles(kind === "avatar", signal);
    uploads.addEventListener("uploaded", (event) => this.#uploaded(/** @type {CustomEvent<Item>} */ (event).detail), { signal });
    this.load(this.filters);
    this.refreshUsage();
  }

  /** @param {Record<string, string>} filters */
  async load(filters) {
    this.filters = filters;
    this.selection.clear();
    this.ended?.abort(); // what an earlier choice still fetches is not wanted any more
    const ended = (this.ended = new AbortController());
    this.signal.addEventListener("abort", () => ended.abort());
    this.items = new Items(this.kind, filters, ended.signal);
    this.grid = new Grid({
      rows: this.kind === "voice" || this.kind === "file",
      months: filters.order_by.endsWith("created_at"),
      draw: (item, index) => this.#draw(item, index),
      onend: () => this.#more(),
      signal: ended.signal,
    });
    fill(this.body, el("div", { class: "skeleton", "aria-label": t("loading"), role: "img" }));
    await this.#more(true);
  }

  /** @param {boolean} [first] */
  async #more(first = false) {
    const { items, grid } = this;
    if (!grid || items.complete || items.fetching) return;
    try {
      await items.more();
      if (items !== this.items) return;
      if (first) this.#showAll();
      else grid.extend(items.list);
    } catch (error) {
      if (/** @type {Error} */ (error).name === "AbortError") return;
      const again = button(t("again"), () => (first ? this.load(this.filters) : (failed.remove(), this.#more())));
      const failed = el("div", { class: "message" }, failure(error, " ", again));
      if (first) fill(this.body, failed);
      else this.body.append(failed);
    }
  }

  #showAll() {
    const { list } = this.items;
    if (list.length || !this.grid) {
      fill(this.body, /** @type {Grid} */ (this.grid).host);
      return this.grid?.show(list);
    }
    fill(this.body, el("p", { class: "message" }, isFiltered(this.filters) ? t("nothing.found") : t("nothing.here")));
  }

  refreshUsage() {
    return fillLater(this.usage, async () => usageBar(await call("GET", "files/stats/", {}, { signal: this.signal })), this.signal);
  }

  /** @param {Item} item @param {number} index @returns {HTMLElement} */
  #draw(item, index) {
    const about = `${date(item.created_at)}, ${size(item.size)}`;
    const picture = item.thumbnail && el("img", { src: local(item.thumbnail.url), alt: "", loading: "lazy", decoding: "async" });
    const words = [nameOf(item.name), el("span", { class: "dim" }, about)];
    const tile = el(
      "button",
      {
        type: "button",
        class: `tile ${this.kind}`,
        "aria-label": `${item.name}, ${about}`,
        tabindex: index === this.grid?.focused ? "0" : "-1",
        onclick: (/** @type {MouseEvent} */ event) => this.#press(index, event),
        onfocus: () => this.grid && (this.grid.focused = index),
      },
      ...(picture ? [picture] : words),
    );
    const tick = el("input", { type: "checkbox", class: "tick", tabindex: "-1", "aria-label": `${t("select")}: ${item.name}` });
    tick.addEventListener("click", (event) => this.selection.toggle(this.items.list, index, event.shiftKey));
    longPress(tile, () => this.selection.toggle(this.items.list, index, false));
    const cell = el("li", { "aria-setsize": this.items.total, "aria-posinset": index + 1 }, tile, tick);
    this.selection.mark(cell, item);
    return cell;
  }

  /** @param {number} index @param {MouseEvent} event */
  #press(index, event) {
    if (event.shiftKey || event.ctrlKey || event.metaKey || this.selection.count) {
      return this.selection.toggle(this.items.list, index, event.shiftKey);
    }
    openViewer(this.items, index, {
      ondelete: (item) => this.delete([item]),
      onclose: (at) => this.grid?.focus(at),
      onmore: () => this.#more(),
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!this.grid || !target.closest(".grid")) return;
    const to = this.grid.neighbour(event.key);
    if (to !== null) {
      const from = this.grid.focused;
      this.grid.focus(to);
      if (event.shiftKey) this.selection.extend(this.items.list, from, this.grid.focused);
    } else if (event.key === " ") this.selection.toggle(this.items.list, this.grid.focused, event.shiftKey);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.selection.all(this.items.list);
    else if (event.key === "Delete" && this.selection.count) this.delete(this.selection.items());
    else if (event.key === "Escape") this.selection.clear();
    else return;
    event.preventDefault();
  }

  #selected() {
    this.place.classList.toggle("selecting", this.selection.count > 0);
    this.grid?.each((node, item) => this.selection.mark(node, item));
  }

  /** Take items from the screen, and delete them unless that is undone. @param {Item[]} items */
  delete(items) {
    const bytes = items.reduce((sum, item) => sum + item.size, 0);
    this.#take(items);
    deleteSoon(t("deleted", { n: items.length, size: size(bytes) }), requestsFor(items), this.#ends());
  }

  /** @param {string} words @param {import("./deletion.js").Request} request @param {string} newest */
  #freed(words, request, newest) {
    const gone = this.items.list.filter((item) => item.created_at <= newest && !(item.is_avatar && request.params.exclude_avatars));
    this.#take(gone);
    deleteSoon(words, [request], this.#ends());
  }

  /** Take items from the screen. @param {Item[]} items */
  #take(items) {
    this.items.remove(new Set(items.map((item) => item.id)));
    this.selection.clear();
    this.#showAll();
  }

  #ends() {
    const anew = () => {
      if (this.signal.aborted) return;
      this.refreshUsage();
      this.load(this.filters);
    };
    return { onundo: anew, ondone: () => (this.signal.aborted ? null : this.refreshUsage()) };
  }

  /** @param {HTMLInputElement} picker */
  #upload(picker) {
    uploads.add([...(picker.files ?? [])], this.kind === "avatar");
    picker.value = "";
  }

  /** @param {Item} item */
  #uploaded(item) {
    this.refreshUsage();
    if (kindOf(item) !== this.kind || isFiltered(this.filters) || this.filters.order_by !== "-created_at" || this.items.ids.has(item.id)) return;
    this.items.add(0, [item]);
    this.items.total++;
    this.#showAll();
  }
}

/** Call back when a finger has rested on an element. @param {HTMLElement} element @param {() => void} then */
function longPress(element, then) {
  let timer = 0;
  const stop = () => clearTimeout(timer);
  element.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") timer = setTimeout(() => (then(), element.addEventListener("click", (click) => click.stopImmediatePropagation(), { capture: true, once: true })), 500);
  });
  for (const name of ["pointerup", "pointercancel", "pointermove"]) element.addEventListener(name, stop);
  element.addEventListener("contextmenu", (event) => timer && event.preventDefault());
}

/** Search, order and filters above the items. */

import { button, choice, el, field, searchField } from "./dom.js";
import { size, t } from "./language.js";

/** @typedef {Record<string, string>} Filters Parameters of the API. */

const MIB = 1024 * 1024;
const SIZES = [1, 10, 100].map((count) => count * MIB);
/** @type {Partial<Record<import("./api.js").Kind, string[]>>} */
const FORMATS = {
  image: ["jpeg", "png", "webp", "gif", "heic", "svg"],
  video: ["mp4", "webm", "quicktime", "matroska"],
  file: ["pdf", "audio/", "text/", "zip", "octet-stream"],
};

/** @param {Filters} filters Whether they leave something out. */
export const isFiltered = (filters) => Object.entries(filters).some(([name, value]) => name !== "order_by" && value);

/**
 * @param {import("./api.js").Kind} kind
 * @param {Filters} before
 * @param {(filters: Filters) => void} onchange
 */
export function filterBar(kind, before, onchange) {
  const filters = { ...before };
  /** @param {string} name @param {string} value */
  const set = (name, value) => {
    if (filters[name] === value) return;
    filters[name] = value;
    onchange({ ...filters });
  };
  const search = searchField(t("search"), (value) => set("name", value));
  const order = choice(
    [["-created_at", t("order.newest")], ["created_at", t("order.oldest")], ["-size", t("order.largest")], ["size", t("order.smallest")], ["name", t("order.name")]],
    filters.order_by, (value) => set("order_by", value), { "aria-label": t("order") },
  );
  /** @type {[string, string][]} */
  const sizes = [["", t("any")], ...SIZES.map((bytes) => /** @type {[string, string]} */ ([String(bytes), t("filter.over", { size: size(bytes) })]))];
  const formats = FORMATS[kind]?.map((format) => /** @type {[string, string]} */ ([format, format.replace("/", "")]));
  const fields = el(
    "form",
    { class: "fields", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    field(t("filter.from"), day((value) => set("date_gte", value), 0)),
    field(t("filter.to"), day((value) => set("date_lte", value), 1)),
    field(t("size"), choice(sizes, "", (value) => set("size_gte", value))),
    formats && field(t("type"), choice([["", t("any")], ...formats], "", (value) => set("media_type", value))),
    button(t("filter.clear"), () => {
      fields.reset();
      search.value = "";
      onchange(Object.assign(filters, { name: "", date_gte: "", date_lte: "", size_gte: "", media_type: "" }));
    }, { class: "quiet" }),
  );
  return el("div", { class: "filters", role: "search" }, search, order, el("details", {}, el("summary", {}, t("filters")), fields));
}

/**
 * A day in the reader's zone, as the time of its beginning, or of its end.
 * @param {(time: string) => void} onchange
 * @param {0 | 1} end
 */
function day(onchange, end) {
  const input = el("input", { type: "date" });
  input.addEventListener("change", () => {
    const [year, month, date] = input.value.split("-").map(Number);
    onchange(input.value && new Date(new Date(year, month - 1, date + end).getTime() - end).toISOString());
  });
  return input;
}

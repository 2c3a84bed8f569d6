/** How much is used, and by what. */

import { el, fill } from "./dom.js";
import { percent, size, t } from "./language.js";

/** @typedef {import("./api.js").Statistics} Statistics */

/** @type {[name: "images" | "videos" | "voices" | "files" | "avatars", words: import("./language.js").Key][]} */
export const KINDS = [["images", "kind.images"], ["videos", "kind.videos"], ["voices", "kind.voices"], ["files", "kind.files"], ["avatars", "kind.avatars"]];

/** @param {HTMLElement} place @param {Statistics} stats */
export function usageBar(place, stats) {
  const { used } = stats.total;
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const [name] of KINDS) {
    const part = el("span", { class: name });
    part.style.width = `${(100 * stats[name].used) / Math.max(stats.quota, used, 1)}%`;
    bar.append(part);
  }
  const legend = KINDS.map(([name, words]) =>
    el("li", { class: name }, t(words), " ", el("span", { class: "dim" }, size(stats[name].used), el("span", { class: "count" }, ` · ${t("count", { n: stats[name].count })}`))),
  );
  fill(
    place,
    el("p", {}, t("used", { used: size(used), quota: size(stats.quota) }), " ", el("span", { class: "dim" }, percent(used / Math.max(stats.quota, 1)))),
    bar,
    el("ul", {}, ...legend),
  );
}

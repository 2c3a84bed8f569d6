/** One item, large: pictures, films and sounds in place, with all that is known of it. */

import { kindOf, local } from "./api.js";
import { button, el, fill, nameOf, notify } from "./dom.js";
import { date, forward, number, size, t } from "./language.js";

/** @typedef {import("./api.js").Item} Item */

/**
 * @param {import("./items.js").Items} items
 * @param {number} start
 * @param {{ ondelete: (item: Item) => void, onclose: (index: number) => void, onmore: () => void }} then
 */
export function openViewer(items, start, { ondelete, onclose, onmore }) {
  let index = start;
  const stage = el("div", { class: "stage" });
  const title = el("h2", {});
  const about = el("dl", {});
  const details = el("details", {}, el("summary", {}, t("details")), about);
  const actions = el("div", { class: "actions" });
  const step = (/** @type {number} */ by) => {
    if (index + by < 0 || index + by >= items.list.length) return;
    index += by;
    show();
    if (index > items.list.length - 10) onmore();
  };
  const back = button("‹", () => step(-1), { class: "step back", "aria-label": t("previous") });
  const on = button("›", () => step(1), { class: "step on", "aria-label": t("next") });
  const box = el(
    "dialog",
    { class: "viewer", "aria-label": t("viewer"), onclose: close, onkeydown: key },
    el("div", { class: "top" }, title, actions, button("×", () => box.close(), { class: "close", "aria-label": t("close") })),
    stage, back, on, details,
  );

  function show() {
    const item = items.list[index];
    fill(title, nameOf(item.name));
    fill(stage, media(item));
    fill(about, ...facts(item));
    fill(
      actions,
      el("a", { href: local(item.file), download: item.name, class: "button" }, t("download")),
      button(t("copy"), () => copy(item.file)),
      button(t("delete"), () => (box.close(), ondelete(item)), { class: "danger" }),
    );
    back.disabled = index === 0;
    on.disabled = index === items.list.length - 1;
  }

  function close() {
    fill(stage); // a film stops
    box.remove();
    onclose(index);
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (/** @type {HTMLElement} */ (event.target).matches("video, audio")) return; // the arrows are theirs
    if (event.key === "ArrowLeft") step(-forward());
    else if (event.key === "ArrowRight") step(forward());
    else if (event.key === "Delete") box.querySelector("button.danger")?.dispatchEvent(new MouseEvent("click"));
    else return;
    event.preventDefault();
  }

  onSwipe(stage, step);
  document.body.append(box);
  show();
  box.showModal();
}

/** @param {Item} item */
function media(item) {
  const source = local(item.file);
  const kind = kindOf(item);
  if (kind === "video") return el("video", { src: source, controls: true, autoplay: true, playsinline: true, poster: item.thumbnail && local(item.thumbnail.url) });
  if (item.media_type.startsWith("audio/")) return el("audio", { src: source, controls: true, autoplay: true });
  if (!item.thumbnail) return el("p", { class: "message" }, t("nopreview"));
  const picture = el("img", { src: source, alt: item.name });
  // A format that this browser does not know.
  picture.addEventListener("error", () => item.thumbnail && (picture.src = local(item.thumbnail.url)), { once: true });
  return picture;
}

/** @param {Item} item */
function facts(item) {
  const rows = [
    [t("detail.date"), date(item.created_at, "moment")],
    [t("size"), size(item.size)],
    item.width && item.height && [t("detail.dimensions"), `${number(item.width)} × ${number(item.height)}`],
    [t("type"), item.media_type],
    ...Object.entries(item.hashes).map(([name, digest]) => [name.toUpperCase(), digest]),
    Object.keys(item.metadata).length && [t("detail.metadata"), JSON.stringify(item.metadata, null, 1)],
  ];
  return rows.flatMap((row) => (row ? [el("dt", {}, row[0]), el("dd", {}, el("bdi", {}, row[1]))] : []));
}

/** @param {string} link The public one, as in a chat. */
async function copy(link) {
  try {
    await navigator.clipboard.writeText(link);
    notify(t("copied"));
  } catch {
    notify(link, { seconds: 30 }); // without HTTPS a page may not write to the clipboard
  }
}

/** @param {HTMLElement} element @param {(by: number) => void} step */
function onSwipe(element, step) {
  let from = 0;
  element.addEventListener("touchstart", (event) => (from = event.touches.length === 1 ? event.touches[0].clientX : 0), { passive: true });
  element.addEventListener("touchend", (event) => {
    const way = from && event.changedTouches[0].clientX - from;
    if (Math.abs(way) > 60) step(way < 0 ? forward() : -forward());
  }, { passive: true });
}

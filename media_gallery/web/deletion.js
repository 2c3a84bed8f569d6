/** Deleting with a way back: what is deleted goes from the screen at once, and from the service some seconds later. */

import { addressOf, call, credentials, explain, local } from "./api.js";
import { button, dialog, el, failure, fill, notify } from "./dom.js";
import { date, percent, t } from "./language.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{ path: string, params: Record<string, any> }} Request */
/** @typedef {{ requests: Request[], undo: () => void, done: () => void, end: () => void }} Pending */

const SECONDS = 10;
const AT_ONCE = 500; // ids that one request may name
const SHARES = [15, 25, 50, 100]; // percent of what is used
const SHOWN = 12;

/** @type {Pending | null} */
let pending = null;
let sending = Promise.resolve();

/** The requests that delete these items. @param {Item[]} items @returns {Request[]} */
export function requestsFor(items) {
  const requests = [];
  for (const avatars of [false, true]) {
    const ids = items.filter((item) => item.is_avatar === avatars).map((item) => item.id);
    for (let at = 0; at < ids.length; at += AT_ONCE) {
      const contexts = avatars ? ["avatar"] : ["file", "voice"];
      requests.push({ path: "files/", params: { id: ids.slice(at, at + AT_ONCE), contexts } });
    }
  }
  return requests;
}

/**
 * Delete after some seconds, or once something else is deleted, or the page is left.
 * @param {string} words What is deleted.
 * @param {Request[]} requests
 * @param {object} then
 * @param {() => void} then.onundo
 * @param {() => void} then.ondone
 */
export async function deleteSoon(words, requests, { onundo, ondone }) {
  await sendDeletion();
  const notice = notify(words, {
    seconds: SECONDS,
    action: t("undo"),
    onaction: () => {
      pending = null;
      onundo();
    },
    onend: () => sendDeletion(),
  });
  pending = { requests, undo: onundo, done: ondone, end: notice.cancel };
}

/** Send what waits, and wait until it is deleted, also if it was sent before. @returns {Promise<void>} */
export function sendDeletion() {
  const waiting = taken();
  if (waiting) sending = sending.then(() => send(waiting));
  return sending;
}

/** Send what waits while the page is being left: nobody waits for the answer. */
export function sendDeletionAtLast() {
  const headers = { ...credentials(), "Content-Type": "application/json" };
  for (const { path, params } of taken()?.requests ?? []) {
    fetch(addressOf(path), { method: "DELETE", headers, body: JSON.stringify(params), keepalive: true }).catch(() => {});
  }
}

function taken() {
  const waiting = pending;
  pending = null;
  waiting?.end();
  return waiting;
}

/** @param {Pending} waiting */
async function send(waiting) {
  try {
    for (const { path, params } of waiting.requests) {
      await call("DELETE", path, params).catch((error) => error.status === 404 || Promise.reject(error));
    }
    waiting.done();
  } catch (error) {
    waiting.undo();
    notify(explain(error));
  }
}

/**
 * Ask which share of what is used shall go: the oldest files that together are so much.
 * @param {(words: string, request: Request, newest: string) => void} onchosen `newest`: the time of the newest that goes.
 */
export function freeSpace(onchosen) {
  let share = SHARES[0];
  const keep = el("input", { type: "checkbox", checked: true, onchange: preview });
  const shares = SHARES.map((value) => {
    const radio = el("input", { type: "radio", name: "share", checked: value === share, onchange: () => ((share = value), preview()) });
    return el("label", { class: "check" }, radio, percent(value / 100));
  });
  const seen = el("div", { class: "preview", "aria-live": "polite" });
  const remove = button(t("delete"), chosen, { class: "danger", disabled: true });
  const box = dialog(
    t("space.title"),
    el("p", { class: "dim" }, t("space.about")),
    el("fieldset", {}, el("legend", {}, t("space.share")), ...shares),
    el("label", { class: "check" }, keep, t("space.avatars")),
    seen,
    el("div", { class: "actions" }, button(t("cancel"), () => box.close()), remove),
  );
  let count = 0;
  let newest = "";

  async function preview() {
    const [asked, kept] = [share, keep.checked];
    remove.disabled = true;
    try {
      await sendDeletion(); // or it would be counted here once more
      const path = `files/percent/${asked}/`;
      const page = await call("GET", path, { exclude_avatars: kept, obj_per_page: SHOWN });
      const last = page.total_objects > SHOWN ? (await call("GET", path, { exclude_avatars: kept, obj_per_page: 1, page: page.total_objects })).items[0] : page.items.at(-1);
      if (asked !== share || kept !== keep.checked) return;
      count = page.total_objects;
      newest = last?.created_at ?? "";
      remove.disabled = !count;
      const words = last ? t("space.preview", { n: count, date: date(last.created_at) }) : t("nothing.here");
      const pictures = page.items.filter((/** @type {Item} */ item) => item.thumbnail);
      fill(seen, el("p", {}, words), el("div", { class: "strip" }, ...pictures.map(picture)));
    } catch (error) {
      fill(seen, failure(error));
    }
  }

  function chosen() {
    box.close();
    const request = { path: `files/percent/${share}/`, params: { exclude_avatars: keep.checked } };
    onchosen(t("space.deleting", { n: count }), request, newest);
  }

  preview();
}

/** @param {Item} item */
const picture = (item) => el("img", { src: local(item.thumbnail?.url ?? ""), alt: item.name, loading: "lazy" });

/** Deleting with a way back: what is deleted goes from the screen at once, and from the service some seconds later. */

import { addressOf, call, credentials, explain } from "./api.js";
import { t } from "./language.js";
import { notify } from "./notices.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{ path: string, params: Record<string, any> }} Request */
/** @typedef {{ requests: Request[], undo: () => void, done: () => void, end: () => void }} Pending */

const SECONDS = 10;
const AT_ONCE = 500; // ids that one request may name

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

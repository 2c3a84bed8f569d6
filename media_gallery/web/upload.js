/** Uploading: by button, drop and paste; several at once, each with its progress, and with a way to stop or to try again. */

import { addressOf, call, credentials, explain, refused } from "./api.js";
import { button, el, fill, nameOf } from "./dom.js";
import { percent, size, t } from "./language.js";

/** @typedef {{ file: File, avatar: boolean, row: HTMLElement, stop: AbortController }} Upload */

const AT_ONCE = 3;
const HASHED = 64 * 1024 * 1024; // a larger file would have to be in memory to be hashed

class Uploads extends EventTarget {
  panel = el("section", { class: "uploads", hidden: true, "aria-label": "uploads" });
  told = el("p", { class: "unseen", role: "status" });
  /** @type {Upload[]} */
  waiting = [];
  /** @type {Set<Upload>} */
  running = new Set();

  /** @param {File[]} files @param {boolean} avatar */
  add(files, avatar) {
    if (files.length && !this.panel.childElementCount) {
      this.panel.setAttribute("aria-label", t("upload"));
      const close = button("×", () => this.clear(), { class: "close", "aria-label": t("close") });
      fill(this.panel, el("div", { class: "top" }, el("h2", {}, t("upload")), close), this.told, el("ul", {}));
    }
    for (const file of files) {
      const row = el("li", {});
      this.panel.querySelector("ul")?.append(row);
      this.#queue({ file, avatar, row, stop: new AbortController() });
    }
  }

  /** Stop all of them. */
  clear() {
    this.waiting = [];
    for (const upload of this.running) upload.stop.abort();
    this.panel.hidden = true;
    fill(this.panel);
  }

  /** @param {Upload} upload */
  #queue(upload) {
    this.panel.hidden = false;
    this.waiting.push(upload);
    say(upload, t("upload.waiting"), t("cancel"), () => this.#cancel(upload));
    this.#next();
  }

  #next() {
    while (this.running.size < AT_ONCE && this.waiting.length) this.#run(/** @type {Upload} */ (this.waiting.shift()));
  }

  /** @param {Upload} upload */
  #cancel(upload) {
    this.waiting = this.waiting.filter((one) => one !== upload);
    upload.stop.abort();
    upload.row.remove();
    this.panel.hidden = !this.panel.querySelector("li");
  }

  /** @param {Upload} upload */
  async #run(upload) {
    this.running.add(upload);
    const { file, stop } = upload;
    try {
      const item = (await known(upload)) ?? (await send(upload, () => this.#cancel(upload)));
      say(upload, t("upload.done"));
      this.told.textContent = t("upload.finished", { name: file.name });
      setTimeout(() => this.#cancel(upload), 4000);
      this.dispatchEvent(new CustomEvent("uploaded", { detail: item }));
    } catch (error) {
      if (stop.signal.aborted) return;
      say(upload, explain(error), t("again"), () => this.#queue({ ...upload, stop: new AbortController() }));
      this.told.textContent = `${file.name}: ${explain(error)}`;
    } finally {
      this.running.delete(upload);
      this.#next();
    }
  }
}

export const uploads = new Uploads();

/**
 * Show where an upload is, and what the reader may do.
 * @param {Upload} upload
 * @param {string} words
 * @param {string} [action]
 * @param {() => void} [onaction]
 */
function say({ row, file }, words, action, onaction) {
  const status = el("span", { class: "dim" }, words);
  fill(row, nameOf(file.name), status, action && button(action, onaction ?? (() => {}), { class: "quiet" }));
  return status;
}

/** Ask for a slot: a file that the account has already needs no upload. Raises Refusal. @param {Upload} upload */
async function known({ file, avatar, stop }) {
  const params = { name: file.name, size: file.size, media_type: file.type, context: avatar ? "avatar" : "file", hash: await digest(file) };
  const answer = await call("GET", "files/slot/", params, { signal: stop.signal });
  return "id" in answer ? answer : null;
}

/** SHA-256 in hex; none if the browser does not hash here, which it does over HTTPS alone. @param {File} file */
async function digest(file) {
  if (!crypto.subtle || file.size > HASHED) return "";
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Send the bytes, by XMLHttpRequest, since fetch tells no progress.
 * @param {Upload} upload
 * @param {() => void} cancel
 * @returns {Promise<import("./api.js").Item>}
 */
function send(upload, cancel) {
  const { file, avatar, stop, row } = upload;
  const bar = el("progress", { max: "1", value: "0", "aria-label": file.name });
  const status = say(upload, percent(0), t("cancel"), cancel);
  row.append(bar);
  const form = new FormData();
  form.append("size", String(file.size));
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  request.open("POST", addressOf(avatar ? "avatar/upload/" : "files/upload/"));
  request.responseType = "json";
  for (const [name, value] of Object.entries(credentials())) request.setRequestHeader(name, value);
  request.upload.onprogress = ({ loaded, total }) => {
    bar.value = loaded / total;
    status.textContent = `${percent(loaded / total)} · ${size(file.size)}`;
  };
  stop.signal.addEventListener("abort", () => request.abort());
  return new Promise((done, fail) => {
    const refuse = () => fail(refused(request.status, request.response ?? {}, Number(request.getResponseHeader("Retry-After"))));
    request.onload = () => (request.status === 201 ? done(request.response) : refuse());
    request.onerror = request.onabort = refuse;
    request.send(form);
  });
}

/** Take files that are dropped or pasted. @param {boolean} avatar @param {AbortSignal} signal */
export function acceptFiles(avatar, signal) {
  /** @param {Event} event @param {DataTransfer | null} data */
  const take = (event, data) => {
    if (!data?.files.length) return;
    event.preventDefault();
    uploads.add([...data.files], avatar);
  };
  const over = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  const left = () => document.body.classList.remove("dropping");
  addEventListener("dragover", over, { signal });
  addEventListener("dragleave", left, { signal });
  addEventListener("drop", (event) => (left(), take(event, event.dataTransfer)), { signal });
  addEventListener("paste", (event) => take(event, event.clipboardData), { signal });
}

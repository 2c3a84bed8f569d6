/** The service's API, as the page uses it. */

import { soon, t } from "./language.js";

/** @typedef {"image" | "video" | "voice" | "file" | "avatar"} Kind */
/**
 * @typedef {object} Item A file object of the API.
 * @property {number} id
 * @property {string} slot_id
 * @property {string} name
 * @property {number} size
 * @property {string} media_type
 * @property {string} context
 * @property {boolean} is_avatar
 * @property {string} file
 * @property {Record<string, string>} hashes
 * @property {string} created_at
 * @property {Record<string, unknown>} metadata
 * @property {{ url: string } | null} thumbnail
 * @property {number | null} width
 * @property {number | null} height
 */
/** @typedef {{ count: number, used: number }} Share */
/** @typedef {Record<"images" | "videos" | "voices" | "files" | "avatars" | "total", Share> & { quota: number }} Statistics */
/** @typedef {{ jid: string, quota: number, used: number, files: number, created_at: string }} Account */
/** @typedef {Account & { admin: boolean, seen_by_admins: boolean, token_id: number }} Me */
/**
 * @template T
 * @typedef {{ items: T[], total_objects: number, total_pages: number, page: number }} Page
 */

const KEPT = "gallery-session";
/** @typedef {{ token: string, jid: string }} Session */

/** Where the page is, which is also where the API and the media are. */
const BASE = new URL(".", document.baseURI);

/** An answer that is no success; `status` 0: there was none. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {{ error?: string, details?: Record<string, number>, fields?: Record<string, string> }} [body]
   * @param {number} [wait] Seconds after which to try again.
   */
  constructor(status, body = {}, wait = 0) {
    super(body.error ?? "");
    this.status = status;
    this.details = body.details ?? {};
    this.wait = wait;
  }
}

/** Who is signed in. @returns {Session | null} */
export function session() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

/** @param {Session} signedIn @param {boolean} stay Also after the browser was closed. */
export function keepSession(signedIn, stay) {
  forgetSession();
  (stay ? localStorage : sessionStorage).setItem(KEPT, JSON.stringify(signedIn));
}

export function forgetSession() {
  sessionStorage.removeItem(KEPT);
  localStorage.removeItem(KEPT);
}

/** @param {string} path */
export const addressOf = (path) => new URL(`api/v1/${path}`, BASE).href;

/** Headers of a request in the name of who is signed in. @returns {Record<string, string>} */
export function credentials() {
  const token = session()?.token;
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/**
 * Make a call. A GET takes its parameters in the query, any other in a JSON body.
 * @param {"GET" | "POST" | "PUT" | "DELETE"} method
 * @param {string} path
 * @param {Record<string, any>} [params] Those that are empty are left out.
 * @param {RequestInit} [more]
 * @returns {Promise<any>}
 */
export async function call(method, path, params = {}, more = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== undefined);
  const url = new URL(addressOf(path));
  /** @type {RequestInit} */
  const request = { method, headers: credentials(), cache: "no-store", ...more };
  if (method === "GET") url.search = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  else if (given.length) {
    request.body = JSON.stringify(Object.fromEntries(given));
    request.headers = { ...request.headers, "Content-Type": "application/json", "Accept-Language": document.documentElement.lang };
  }
  const answer = await fetch(url, request).catch((error) => {
    throw error.name === "AbortError" ? error : new Refusal(0);
  });
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw refused(answer.status, body, Number(answer.headers.get("Retry-After")));
}

/**
 * The error of an answer. If it says that the token is valid no more, the page begins again.
 * @param {number} status
 * @param {any} body
 * @param {number} [wait]
 */
export function refused(status, body, wait) {
  if (status === 401 && session()) {
    forgetSession();
    dispatchEvent(new Event("signed-out"));
  }
  return new Refusal(status, body, wait);
}

/** @type {Record<number, import("./language.js").Key>} */
const REFUSALS = { 0: "error.offline", 401: "error.session", 408: "error.stalled", 413: "error.large", 429: "error.often", 503: "error.away", 507: "error.full" };

/**
 * What went wrong, in words for the reader.
 * @param {any} error
 * @param {typeof REFUSALS} [special] What a status means here.
 */
export function explain(error, special) {
  if (!(error instanceof Refusal)) return t("error.unknown");
  if (error.status === 403 && "quota" in error.details) return t("error.quota");
  const key = { ...REFUSALS, ...special }[error.status];
  if (!key) return error.message || t("error.unknown");
  return error.wait ? `${t(key)} ${t("error.again", { when: soon(error.wait) })}` : t(key);
}

/** Media beside the page, whatever host the links to it name. @param {string} url */
export const local = (url) => new URL(url.slice(url.lastIndexOf("/media/") + 1), BASE).href;

/** Which tab an item belongs to. @param {Item} item @returns {Kind} */
export function kindOf(item) {
  if (item.is_avatar) return "avatar";
  if (item.context === "voice") return "voice";
  const top = item.media_type.split("/")[0];
  return top === "image" || top === "video" ? top : "file";
}

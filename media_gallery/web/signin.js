/** Signing in: an XMPP address, then the code that the service sends to it. */

import { call, explain, keepSession, Refusal } from "./api.js";
import { button, el, field, fill } from "./dom.js";
import { t } from "./language.js";

/**
 * @param {() => void} done
 * @param {string} notice Why the reader has to sign in again, if so.
 */
export function signIn(done, notice) {
  const place = el("main", { class: "signin" });
  askForAddress(place, done, notice, "");
  return place;
}

/**
 * A form that says below its fields what was refused.
 * @param {string} words
 * @param {(say: (text: string) => void) => Promise<void>} submit
 * @param {...HTMLElement} fields
 */
function form(words, submit, ...fields) {
  const message = el("p", { class: "error", role: "alert" });
  const send = el("button", { class: "main", type: "submit" }, words);
  const onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    send.disabled = true;
    message.textContent = "";
    await submit((text) => (message.textContent = text)).finally(() => (send.disabled = false));
  };
  return el("form", { onsubmit, novalidate: true }, ...fields, message, send);
}

/**
 * @param {HTMLElement} place
 * @param {() => void} done
 * @param {string} notice
 * @param {string} before The address that was typed before.
 */
function askForAddress(place, done, notice, before) {
  const jid = el("input", { autocomplete: "username", inputmode: "email", spellcheck: "false", placeholder: "anna@example.org", value: before });
  const stay = el("input", { type: "checkbox" });
  const ask = async (/** @type {(text: string) => void} */ say) => {
    const address = jid.value.trim();
    try {
      await call("POST", "account/xmpp_code_request/", { jid: address });
      askForCode(place, done, address, stay.checked);
    } catch (error) {
      say(explain(error, { 400: "signin.malformed", 403: "signin.denied", 429: "signin.often", 503: "signin.away" }));
      jid.focus();
    }
  };
  fill(
    place,
    el("h1", {}, t("title")),
    el("p", {}, notice || t("signin.about")),
    form(t("signin.send"), ask, field(t("signin.jid"), jid), el("label", { class: "check" }, stay, t("signin.stay"))),
  );
  jid.focus();
}

/**
 * @param {HTMLElement} place
 * @param {() => void} done
 * @param {string} jid
 * @param {boolean} stay
 */
function askForCode(place, done, jid, stay) {
  const code = el("input", { inputmode: "numeric", autocomplete: "one-time-code", spellcheck: "false", class: "code" });
  const enter = async (/** @type {(text: string) => void} */ say) => {
    if (code.value.length !== 6) return say(t("signin.six"));
    try {
      const given = await call("POST", "account/xmpp_auth/", { jid, code: code.value, client: t("signin.client"), device: device() });
      keepSession({ token: given.token, jid }, stay);
      done();
    } catch (error) {
      say(whyWrong(error));
      code.value = "";
      code.focus();
    }
  };
  code.addEventListener("input", () => {
    code.value = (code.value.match(/\d{6}/)?.[0] ?? code.value.replace(/\D/g, "")).slice(0, 6); // a whole message may be pasted
    if (code.value.length === 6) code.form?.requestSubmit();
  });
  fill(
    place,
    el("h1", {}, t("signin.title")),
    el("p", {}, t("signin.sent"), " ", el("bdi", {}, jid)),
    form(t("signin.enter"), enter, field(t("signin.code"), code)),
    button(t("signin.other"), () => askForAddress(place, done, "", jid), { class: "quiet" }),
  );
  code.focus();
}

/** @param {any} error */
function whyWrong(error) {
  const left = error instanceof Refusal ? error.details.tries_left : 0;
  if (left) return t("signin.left", { n: left });
  return explain(error, { 403: "signin.denied", 404: left === 0 ? "signin.void" : "signin.wrong", 429: "signin.tries" });
}

/** The browser's system, for the list of sessions. */
function device() {
  const names = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"];
  return names.find((name) => navigator.userAgent.includes(name)) ?? "";
}

/** Words, numbers and dates in the reader's language. Each language is one table in `texts/`. */

/** @typedef {keyof typeof import("./texts/en.json")} Key */
/** @typedef {string | Partial<Record<Intl.LDMLPluralRule, string>>} Words */

export const LANGUAGES = { en: "English", ru: "Русский" };
const KEPT = "gallery-language";
/** @type {Record<string, Words>} */
let table = {};
let language = "en";

/** The reader's choice, or the first language of the browser that we have. */
function preferred() {
  const wanted = [localStorage.getItem(KEPT) ?? "", ...navigator.languages].map((tag) => tag.split("-")[0]);
  return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}

/** Load the reader's table. */
export async function load() {
  language = preferred();
  const answer = await fetch(new URL(`texts/${language}.json`, import.meta.url));
  table = await answer.json();
  document.documentElement.lang = language;
  document.documentElement.dir = t("direction");
  document.title = t("title");
}

export const current = () => language;

/** What a step to the right is in the order of reading. */
export const forward = () => (document.documentElement.dir === "rtl" ? -1 : 1);

/** Keep another language, and begin again in it. @param {string} chosen */
export function choose(chosen) {
  localStorage.setItem(KEPT, chosen);
  location.reload();
}

/**
 * The words of a key; `{name}` stands for a value, and `n` also chooses the plural.
 * @param {Key} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const words = table[key] ?? key;
  const chosen = typeof words === "string" ? words : (words[new Intl.PluralRules(language).select(Number(values.n))] ?? words.other ?? key);
  return chosen.replace(/{(\w+)}/g, (_, name) => (name === "n" ? number(Number(values.n)) : String(values[name])));
}

/** @type {Map<any, Intl.NumberFormat | Intl.DateTimeFormat>} Formats are made once, since that takes longer than to use them. */
const made = new Map();

/** @param {any} options Always the same object for the same format. @returns {any} */
function format(options, kind = Intl.NumberFormat) {
  const known = made.get(options) ?? new kind(language, options);
  made.set(options, known);
  return known;
}

const PLAIN = {};
const SHARE = { style: "percent" };

/** @param {number} value @returns {string} */
export const number = (value) => format(PLAIN).format(value);

/** @param {number} share From 0 to 1. @returns {string} */
export const percent = (share) => format(SHARE).format(share);

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"].map((unit, power) =>
  [0, 1].map((digits) => ({ style: "unit", unit, unitDisplay: power ? "short" : "long", maximumFractionDigits: digits })),
);

/** Bytes in a unit that a person reads, each 1024 of the one before. @param {number} bytes @returns {string} */
export function size(bytes) {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
  const value = bytes / 1024 ** power;
  return format(UNITS[power][value < 10 && power > 0 ? 1 : 0]).format(value);
}

/** @type {Record<string, Intl.DateTimeFormatOptions>} */
const DATES = {
  month: { month: "long", year: "numeric" },
  day: { day: "numeric", month: "short", year: "numeric" },
  moment: { dateStyle: "medium", timeStyle: "short" },
};

/**
 * A time of the API (ISO 8601) in the reader's zone.
 * @param {string} time
 * @param {keyof typeof DATES} [form]
 * @returns {string}
 */
export const date = (time, form = "day") => format(DATES[form], /** @type {any} */ (Intl.DateTimeFormat)).format(new Date(time));

/** "in 3 minutes". @param {number} seconds */
export function soon(seconds) {
  const form = new Intl.RelativeTimeFormat(language);
  if (seconds < 90) return form.format(Math.ceil(seconds), "second");
  return seconds < 5400 ? form.format(Math.ceil(seconds / 60), "minute") : form.format(Math.ceil(seconds / 3600), "hour");
}

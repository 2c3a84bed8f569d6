/** The forms of the page about the API: each sends one call and shows its answer. The token is in its field alone. */

const root = new URL("../../", import.meta.url); // of the service, which may lie below a path
const bearer = /** @type {HTMLInputElement} */ (document.getElementById("bearer"));

/** @typedef {HTMLInputElement | HTMLSelectElement} Field */

/** A field as a value of JSON. @param {Field} field @returns {unknown} */
function valueOf(field) {
  if ("list" in field.dataset) return field.value.split(",").map((one) => one.trim());
  return "null" in field.dataset && field.value === "null" ? null : field.value;
}

/** What a form asks for. @param {HTMLFormElement} form @returns {[URL, RequestInit]} */
function request(form) {
  const all = /** @type {Field[]} */ ([...form.querySelectorAll("input, select")]);
  const given = all.filter((field) => field.value !== "");
  const of = (/** @type {string} */ place) => given.filter((field) => field.dataset.in === place);
  const { method = "GET", path = "" } = form.dataset;
  const inPath = of("path").reduce((text, field) => text.replace(`{${field.name}}`, encodeURIComponent(field.value)), path);
  const url = new URL(inPath.slice(1), root);
  const headers = new Headers(bearer.value ? { Authorization: `Bearer ${bearer.value.trim()}` } : {});
  const init = /** @type {RequestInit} */ ({ method, headers, credentials: "omit", cache: "no-store" });
  const named = [...of("query"), ...of("body")];
  if (all.some((field) => field.dataset.in === "form")) {
    const body = new FormData();
    // The fields come before the file, so that they are checked before it is sent.
    for (const field of of("form")) if (field.type !== "file") body.append(field.name, field.value);
    for (const field of of("form")) if (field instanceof HTMLInputElement && field.files?.[0]) body.append(field.name, field.files[0]);
    init.body = body;
  } else if (method === "GET") {
    for (const field of named) url.searchParams.append(field.name, field.value);
  } else if (named.length > 0) {
    headers.set("Content-Type", "application/json");
    init.body = JSON.stringify(Object.fromEntries(named.map((field) => [field.name, valueOf(field)])));
  }
  return [url, init];
}

/** @param {Response} response @returns {Promise<string>} */
async function bodyOf(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    if (response.ok && typeof body.token === "string") bearer.value = body.token;
    return JSON.stringify(body, null, 2);
  } catch {
    return text;
  }
}

/** @param {HTMLFormElement} form */
async function send(form) {
  const shown = /** @type {HTMLElement} */ (form.querySelector(".answer"));
  const sending = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
  const [url, init] = request(form);
  if (init.method === "DELETE" && !confirm(`Really send DELETE ${url.pathname}? What it deletes does not come back.`)) return;
  sending.disabled = true;
  shown.textContent = "…";
  const status = document.createElement("p");
  const body = document.createElement("pre");
  body.tabIndex = 0;
  try {
    const response = await fetch(url, init);
    status.textContent = `${init.method} ${url.pathname}${url.search} → ${response.status} ${response.statusText}`;
    body.textContent = await bodyOf(response);
  } catch {
    status.textContent = "The service could not be reached.";
  }
  sending.disabled = false;
  shown.replaceChildren(status, ...(body.textContent ? [body] : []));
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  send(/** @type {HTMLFormElement} */ (event.target));
});

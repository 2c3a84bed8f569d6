/** Free up space: the oldest files that together are a share of what is used. */

import { call, explain, local } from "./api.js";
import { sendDeletion } from "./deletion.js";
import { button, dialog, el, fill } from "./dom.js";
import { date, percent, t } from "./language.js";

const SHARES = [15, 25, 50, 100];
const SHOWN = 12;

/** @param {(words: string, request: import("./deletion.js").Request, newest: string) => void} onchosen `newest`: the time of the newest that goes. */
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
      const pictures = page.items.filter((/** @type {import("./api.js").Item} */ item) => item.thumbnail);
      fill(seen, el("p", {}, words), el("div", { class: "strip" }, ...pictures.map(picture)));
    } catch (error) {
      fill(seen, el("p", { role: "alert" }, explain(error)));
    }
  }

  function chosen() {
    box.close();
    const request = { path: `files/percent/${share}/`, params: { exclude_avatars: keep.checked } };
    onchosen(t("space.deleting", { n: count }), request, newest);
  }

  preview();
}

/** @param {import("./api.js").Item} item */
const picture = (item) => el("img", { src: local(item.thumbnail?.url ?? ""), alt: item.name, loading: "lazy" });

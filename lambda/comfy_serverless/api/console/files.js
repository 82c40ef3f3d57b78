// The control for files: dropped, pasted, chosen here, or from what is there already: uploads, and outputs of jobs.

import { get, upload } from "./api.js";
import { h, replace } from "./dom.js";
import { action, bar, bytes, dialog, empty, failure, icon, thumb } from "./parts.js";

const SHOWN = /^image\/(png|jpeg|webp|gif|avif|bmp)$/;

/** Whether a type, or a file without one, fits what an input takes: `image/*`. */
export const fitsMedia = (media, type) => media === "*/*" || !type || type.startsWith(media.replace("*", ""));

/** Files of a drop or a paste. */
export const filesIn = (transfer) => [...(transfer?.files ?? [])];

/** A control as those of `controls.js`. Its value is a list: {id, name} of an upload, {address, name}, or one on its way. */
export const fileControl = (field, value, names, onChange) => {
  let items = [];
  const list = h("ul", { class: "files" });
  const input = h("input", { ...names, type: "file", class: "sr", accept: field.media === "*/*" ? null : field.media, multiple: field.most > 1 });
  const words = { "image/*": "a picture", "video/*": "a video", "audio/*": "a sound", "model/*": "a 3D model" }[field.media] ?? "a file";
  const pick = h("label", { class: "pick", for: names.id }, icon("plus"), h("span", {}, `Drop, paste or choose ${field.most > 1 ? words.replace(/^an? /, "") + "s" : words}`));
  const element = h("div", { class: "drop", tabindex: -1 }, list, input, pick,
    h("div", { class: "ways" },
      action("Uploads", () => choose("uploads"), { kind: "quiet small" }),
      action("Outputs", () => choose("outputs"), { kind: "quiet small" }),
      action("Address", () => askAddress(), { kind: "quiet small" })));

  const changed = () => { paint(); onChange(); };
  const add = (more) => {
    items = field.most > 1 ? [...items, ...more].slice(0, field.most) : more.slice(-1);
    changed();
  };
  const send = async (item) => {
    item.problem = "";
    try {
      const asset = await upload(item.file, (share) => { item.share = share; item.bar?.(share); });
      item.id = asset.id;
    } catch (error) {
      item.problem = `${item.name} was not uploaded: ${error.message}`;
    }
    changed();
  };
  const take = (files) => {
    const fitting = files.filter((file) => fitsMedia(field.media, file.type));
    const more = fitting.map((file) => ({ name: file.name, file, size_bytes: file.size, type: file.type, share: 0, url: SHOWN.test(file.type) ? URL.createObjectURL(file) : "" }));
    if (more.length < files.length) more.push({ name: files.find((file) => !fitting.includes(file)).name, problem: `This input takes ${words}.` });
    add(more);
    for (const item of items) if (item.file && !item.id && item.share === 0) { item.share = 0.001; send(item); }
    return fitting.length > 0;
  };
  const choose = (kind) => chooser(kind, field.media, (item) => add([item]));
  const askAddress = () => {
    const text = h("input", { type: "text", placeholder: "https://… or s3://…", "aria-label": "Address of the file", autofocus: true });
    dialog("The address of a file", (close) => h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const address = text.value.trim();
        if (address) add([{ address, name: address.split("/").pop() || address }]);
        close();
      },
    }, text, h("div", { class: "actions" }, h("button", { class: "button primary" }, "Take it"))), { kind: "small" });
  };
  const paint = () => {
    replace(list, items.map((item) => rowOf(item, {
      remove: () => {
        if (item.url?.startsWith("blob:")) URL.revokeObjectURL(item.url);
        items = items.filter((one) => one !== item);
        changed();
        input.focus();
      },
      again: () => { item.share = 0.001; item.problem = ""; paint(); send(item); },
    })));
    pick.hidden = items.length >= field.most && field.most > 1;
    pick.lastChild.textContent = items.length && field.most === 1 ? "Another one" : `Drop, paste or choose ${words}`;
  };
  const set = (next) => {
    items = next.map((one) => ({ ...one }));
    paint();
    items.filter((one) => one.id && !one.url).forEach(lookUp);
  };
  const lookUp = async (item) => {
    try {
      const asset = await get(`assets/${encodeURIComponent(item.id)}`);
      Object.assign(item, { name: asset.file_path?.split("/").pop() ?? item.name, size_bytes: asset.size_bytes, type: asset.content_type, url: SHOWN.test(asset.content_type) ? asset.url : "" });
    } catch (error) {
      if (error.status === 404) item.problem = `${item.name} is not there any more.`;
    }
    paint();
  };

  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  element.addEventListener("paste", (event) => {
    const files = filesIn(event.clipboardData);
    if (files.length) { event.preventDefault(); event.stopPropagation(); take(files); }
  });
  for (const kind of ["dragenter", "dragover"]) {
    element.addEventListener(kind, (event) => { event.preventDefault(); event.stopPropagation(); element.classList.add("over"); });
  }
  element.addEventListener("dragleave", (event) => element.contains(event.relatedTarget) || element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("over");
    take(filesIn(event.dataTransfer));
  });
  set(value);
  return { element, input, isGroup: true, get: () => items, set, take, takes: (type) => fitsMedia(field.media, type) };
};

const rowOf = (item, { remove, again }) => {
  const progress = h("span", { class: "grow" });
  item.bar = (share) => replace(progress, share < 1 ? bar(share, `Uploading ${item.name}`) : null);
  if (item.file && !item.id && !item.problem) item.bar(item.share);
  const picture = item.url ? h("img", { src: item.url, alt: "", width: 64, height: 64 }) : icon("file", 24);
  return h("li", { class: item.problem ? "wrong" : "" }, h("span", { class: "shot" }, picture),
    h("span", { class: "name", title: item.address ?? item.name }, item.problem || item.name, item.size_bytes ? h("small", { class: "dim" }, ` ${bytes(item.size_bytes)}`) : null),
    progress,
    item.problem && item.file ? h("button", { type: "button", class: "button quiet small", onclick: again }, "Again") : null,
    h("button", { type: "button", class: "button quiet icon-only", "aria-label": `Remove ${item.name}`, onclick: remove }, icon("cross")));
};

/** A dialog with what is there already, newest first; what is chosen is given to `take`. */
export const chooser = (kind, media, take) => {
  const grid = h("div", { class: "choices" });
  const more = h("div", { class: "actions" });
  let opened = null;
  const load = async (cursor) => {
    try {
      const type = /^(image|video|audio)\//.exec(media)?.[1];
      const page = kind === "uploads" ? await get("assets", { limit: 60, cursor }) : await get("outputs", { limit: 60, cursor, type });
      const found = (page.assets ?? page.outputs).filter((one) => fitsMedia(media, one.content_type));
      grid.append(...found.map((one) => tile(one, () => { take(itemOf(one)); opened.close(); })));
      if (!grid.childElementCount && !page.next_cursor) replace(grid, empty(`No ${kind} yet`, "What fits this input is shown here."));
      replace(more, page.next_cursor ? action("More", () => load(page.next_cursor)) : null);
    } catch (error) {
      replace(more, failure(error, () => load(cursor)));
    }
  };
  opened = dialog(kind === "uploads" ? "From your uploads" : "From outputs of your jobs", [grid, more]);
  load();
};

const nameOf = (one) => one.name ?? one.file_path?.split("/").pop() ?? one.id;
const itemOf = (one) => ({ id: one.id, name: nameOf(one), size_bytes: one.size_bytes, url: SHOWN.test(one.content_type) ? (one.thumb_url ?? one.url) : "" });
const tile = (one, onclick) => h("button", { type: "button", class: "tile", title: nameOf(one), onclick },
  thumb({ ...one, type: one.type ?? one.content_type.split("/")[0] }, { size: 96 }), h("span", {}, nameOf(one)));

// The controls of a form: one for each field, with its label, its hint and what is wrong with it.

import { get, upload } from "./api.js";
import { h, replace } from "./dom.js";
import { blank, drawn, hasSlider, initial, isSeed } from "./form.js";
import { action, bar, bytes, dialog, empty, failure, icon, thumb } from "./parts.js";

const SEARCHED_FROM = 16;
const MOST_SHOWN = 200;
let made = 0;

/**
 * A form for fields. `onChange` is told each time when somebody has changed something.
 * @returns {{element, held(), fill(held), problems(byField), fileField()}}
 */
export const formOf = (fields, held, onChange = () => {}) => {
  const rows = new Map(fields.map((field) => [field.name, rowOf(field, held[field.name] ?? initial(field), onChange)]));
  const others = h("div", { class: "notice bad", role: "alert", hidden: true });
  const element = h("div", { class: "fields" }, others, fields.length ? [...rows.values()].map((row) => row.element)
    : h("p", { class: "dim wide" }, "This workflow has no inputs: it runs as it stands."));
  return {
    element,
    held: () => Object.fromEntries([...rows].map(([name, row]) => [name, row.get()])),
    fill: (more) => Object.entries(more).forEach(([name, value]) => rows.get(name)?.set(value)),
    /** Say what is wrong, each at its field; the first gets the focus. */
    problems: (byField, rest = []) => {
      for (const [name, row] of rows) row.problem(byField[name] ?? "");
      others.hidden = rest.length === 0;
      replace(others, rest.map((text) => h("p", {}, text)));
      const first = [...rows.keys()].find((name) => byField[name]);
      if (first) rows.get(first).focus();
    },
    /** The control that takes a file of this type, if there is one; one that is empty comes first. */
    fileField: (type) => [...rows.values()].filter((row) => row.takes?.(type)).sort((a, b) => a.get().length - b.get().length)[0] ?? null,
  };
};

const rowOf = (field, value, onChange) => {
  const id = `field-${(made += 1)}`;
  const names = { id, "aria-describedby": `${id}-hint ${id}-problem`, "aria-required": field.isRequired ? "true" : null };
  const control = kindOf(field)(field, value, names, onChange);
  const problem = h("small", { class: "problem", id: `${id}-problem` });
  const isWide = ["text", "file", "json"].includes(field.kind) || isSeed(field);
  const label = control.isGroup ? h("span", { class: "label-text", id: `${id}-label` }, titled(field)) : h("label", { for: id }, titled(field));
  const element = h("div", { class: `field kind-${field.kind}${isWide ? " wide" : ""}`, "data-field": field.name, role: control.isGroup ? "group" : null, "aria-labelledby": control.isGroup ? `${id}-label` : null },
    field.kind === "boolean" ? [control.element] : [label, control.element],
    h("small", { class: "hint", id: `${id}-hint` }, field.hint || null), problem);
  return {
    ...control,
    element,
    problem: (text) => {
      replace(problem, text ? [icon("warn", 12), text] : null);
      element.classList.toggle("wrong", Boolean(text));
      control.input.setAttribute("aria-invalid", text ? "true" : "false");
    },
    focus: () => control.input.focus(),
  };
};

const titled = (field) => [field.title, field.isRequired ? h("span", { class: "dim" }, " (needed)") : null];

const kindOf = (field) => {
  if (isSeed(field)) return seedControl;
  if (field.kind === "choice") return field.choices.length < SEARCHED_FROM && !field.isOpen ? menuControl : searchControl;
  return { boolean: switchControl, integer: numberControl, number: numberControl, file: fileControl }[field.kind] ?? textControl;
};

const plain = (input, onChange, further = {}) => {
  input.addEventListener("input", onChange);
  return { element: input, input, get: () => input.value, set: (value) => { input.value = value; }, ...further };
};

const textControl = (field, value, names, onChange) => {
  const isLong = field.isLong || field.kind === "json" || value.length > 60 || value.includes("\n");
  const input = h(isLong ? "textarea" : "input", { ...names, rows: isLong ? 3 : null, type: isLong ? null : "text", spellcheck: field.role === "prompt" ? "true" : "false", value });
  return plain(input, onChange);
};

const numberInput = (field, value, names) => {
  const input = h("input", { ...names, type: "text", inputmode: field.minimum < 0 ? null : field.kind === "integer" ? "numeric" : "decimal", autocomplete: "off", value });
  // As in a spinner, with all digits of large numbers.
  input.addEventListener("keydown", (event) => {
    const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    input.value = stepped(field, input.value, direction * (event.shiftKey ? 10 : 1));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  return input;
};

/** A number some steps up or down, within its bounds. */
export const stepped = (field, text, steps) => {
  if (field.kind === "integer") {
    const now = /^-?\d+$/.test(text.trim()) ? BigInt(text.trim()) : BigInt(field.minimum ?? 0);
    return String(within(now + BigInt(steps) * BigInt(Math.max(1, Math.round(Number(field.step) || 1))), field, BigInt));
  }
  const step = Number(field.step) || 0.1;
  const digits = Math.min(10, (String(step).split(".")[1] ?? "").length);
  return String(Number(within((Number(text) || 0) + steps * step, field, Number).toFixed(digits)));
};

const within = (value, field, kind) => {
  if (field.maximum !== undefined && value > field.maximum) return kind(field.maximum);
  return field.minimum !== undefined && value < field.minimum ? kind(field.minimum) : value;
};

const range = (field) => {
  if (field.minimum === undefined && field.maximum === undefined) return null;
  return h("span", { class: "range dim" }, `${field.minimum ?? "…"} – ${field.maximum ?? "…"}`);
};

const numberControl = (field, value, names, onChange) => {
  const input = numberInput(field, value, names);
  if (!hasSlider(field)) return { ...plain(input, onChange), element: h("div", { class: "inline" }, input, range(field)) };
  const slider = h("input", { type: "range", min: field.minimum, max: field.maximum, step: field.step ?? 1, "aria-label": `${field.title}, slider`, tabindex: -1, value: value || field.minimum });
  const follow = () => { slider.value = input.value || field.minimum; };
  slider.addEventListener("input", () => { input.value = slider.value; onChange(); });
  input.addEventListener("input", follow);
  const set = (next) => { input.value = next; follow(); };
  return { ...plain(input, onChange), element: h("div", { class: "inline" }, input, slider), set };
};

const switchControl = (field, value, names, onChange) => {
  const input = h("input", { ...names, type: "checkbox", role: "switch", checked: value });
  input.addEventListener("change", onChange);
  return { element: h("label", { class: "switch" }, input, field.title), input, get: () => input.checked, set: (next) => { input.checked = next; } };
};

const menuControl = (field, value, names, onChange) => {
  const texts = field.choices.map(String);
  const options = [field.isRequired || texts.includes(value) ? null : h("option", { value: "" }, value ? `${value} (no longer there)` : "–"), ...texts.map((text) => h("option", { value: text }, text))];
  const input = h("select", names, options);
  input.value = texts.includes(value) ? value : "";
  input.addEventListener("change", onChange);
  return { element: input, input, get: () => input.value, set: (next) => { input.value = next; } };
};

/** A menu that is searched: what is typed narrows it, arrows walk through it, Enter chooses, Escape closes. */
const searchControl = (field, value, names, onChange) => {
  const texts = field.choices.map(String);
  const list = h("ul", { class: "options", id: `${names.id}-list`, role: "listbox", "aria-label": field.title, hidden: true });
  const input = h("input", { ...names, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id, value });
  let at = -1;
  const point = (next) => {
    at = next;
    [...list.children].forEach((one, place) => one.setAttribute("aria-selected", place === at ? "true" : "false"));
    if (list.children[at]) {
      input.setAttribute("aria-activedescendant", list.children[at].id);
      list.children[at].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const open = (words) => {
    const found = texts.filter((text) => words.every((word) => text.toLowerCase().includes(word))).slice(0, MOST_SHOWN);
    replace(list, found.map((text, place) => h("li", { id: `${list.id}-${place}`, role: "option", "data-value": text, onmousedown: (event) => { event.preventDefault(); choose(text); } }, text || "(nothing)")));
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    point(found.indexOf(input.value));
  };
  const close = () => { list.hidden = true; input.setAttribute("aria-expanded", "false"); point(-1); };
  const choose = (text) => { input.value = text; close(); onChange(); };
  input.addEventListener("input", () => { open(input.value.toLowerCase().split(/\s+/)); onChange(); });
  input.addEventListener("click", () => list.hidden && (input.select(), open([])));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) open([]);
      else point(Math.max(0, Math.min(list.children.length - 1, at + step)));
    } else if (event.key === "Enter" && !list.hidden && list.children[at]) {
      event.preventDefault();
      choose(list.children[at].dataset.value);
    } else if (event.key === "Escape" && !list.hidden) {
      event.stopPropagation();
      close();
    }
  });
  return { element: h("div", { class: "search" }, input, list), input, get: () => input.value, set: (next) => { input.value = next; } };
};

const seedControl = (field, value, names, onChange) => {
  const input = numberInput(field, value.digits, names);
  const isRandom = h("input", { type: "checkbox", role: "switch", checked: value.isRandom });
  const show = () => { input.placeholder = isRandom.checked ? "new each time" : "the workflow’s own"; };
  const set = (next) => { input.value = next.digits; isRandom.checked = next.isRandom; show(); };
  const dice = h("button", { type: "button", class: "button icon-only", "aria-label": `Draw ${field.title}`, title: "Draw a seed, and keep it", onclick: () => { set({ digits: drawn(field), isRandom: false }); onChange(); } }, icon("dice"));
  input.addEventListener("input", () => { isRandom.checked = false; show(); onChange(); });
  isRandom.addEventListener("change", () => {
    if (isRandom.checked) input.value = "";
    show();
    onChange();
  });
  show();
  const element = h("div", { class: "inline seed" }, input, dice, h("label", { class: "switch" }, isRandom, "New each time"));
  return { element, input, get: () => ({ digits: input.value.trim(), isRandom: isRandom.checked }), set: (next) => set(next ?? blank(field)) };
};

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
  const rows = new WeakMap();
  // A row stays the one it is: a button that is pressed, or has the focus, while an upload ends is there still.
  const rowOf = (item) => {
    if (!rows.has(item)) rows.set(item, fileRow(item, {
      remove: () => {
        if (item.url?.startsWith("blob:")) URL.revokeObjectURL(item.url);
        items = items.filter((one) => one !== item);
        changed();
        input.focus();
      },
      again: () => { item.share = 0.001; item.problem = ""; paint(); send(item); },
    }));
    const row = rows.get(item);
    row.show();
    return row.element;
  };
  const paint = () => {
    const wanted = items.map(rowOf);
    for (const row of [...list.children]) if (!wanted.includes(row)) row.remove();
    wanted.forEach((row, index) => row === list.children[index] || list.insertBefore(row, list.children[index] ?? null));
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

/** The row of a file: {element, show()}, where `show` brings it up to what the file is by now. */
const fileRow = (item, { remove, again }) => {
  const shot = h("span", { class: "shot" });
  const name = h("span", { class: "name" });
  const progress = h("span", { class: "grow" });
  const cross = h("button", { type: "button", class: "button quiet icon-only", onclick: remove }, icon("cross"));
  const retry = h("button", { type: "button", class: "button quiet small", onclick: () => { cross.focus(); again(); } }, "Again");
  const element = h("li", {}, shot, name, progress, retry, cross);
  let pictured = null;
  item.bar = (share) => replace(progress, share < 1 ? bar(share, `Uploading ${item.name}`) : null);
  const show = () => {
    const { url = "", problem = "" } = item;
    element.className = problem ? "wrong" : "";
    if (pictured !== url) replace(shot, url ? h("img", { src: url, alt: "", width: 64, height: 64 }) : icon("file", 24));
    pictured = url;
    name.title = item.address ?? item.name;
    replace(name, problem || item.name, item.size_bytes ? h("small", { class: "dim" }, ` ${bytes(item.size_bytes)}`) : null);
    item.bar(item.file && !item.id && !problem ? item.share : 1);
    retry.hidden = !(problem && item.file);
    cross.setAttribute("aria-label", `Remove ${item.name}`);
  };
  return { element, show };
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

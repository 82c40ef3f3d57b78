// Parts that several pages show. None asks the API for anything, but for a link in place of one that has ended.

import { linked } from "./api.js";
import { h, replace, svg } from "./dom.js";

const ICONS = {
  check: "M3 8.5l3.2 3L13 4.5", cross: "M4 4l8 8M12 4l-8 8", play: "M5 3.5v9l7-4.5z", pause: "M5.5 3.5v9M10.5 3.5v9",
  stop: "M4.5 4.5h7v7h-7z", again: "M12.5 6A5 5 0 1 0 13 9.5M12.8 2.5V6H9.3", copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  save: "M8 2.5v7M5 6.8l3 3 3-3M2.5 13.5h11", clock: "M8 4.5V8l2.3 1.6M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z",
  image: "M2.5 3h11v10h-11zM2.5 11l3.5-4 2.7 3 2-2 2.8 3M10.5 5.8h.1", video: "M2.5 4h7.5v8H2.5zM10 7l3.5-2v6L10 9",
  audio: "M6 11.5V3.8l6-1.3v7.6M6 11.5a1.8 1.8 0 1 1-3.6 0 1.8 1.8 0 0 1 3.6 0zM12 10a1.8 1.8 0 1 1-3.6 0A1.8 1.8 0 0 1 12 10z",
  text: "M3 4h10M3 7h10M3 10h7M3 13h4", cube: "M8 2l5.2 3v6L8 14l-5.2-3V5zM2.8 5L8 8l5.2-3M8 8v6", file: "M4 2h5l3 3v9H4zM9 2v3h3",
  left: "M10 3L5 8l5 5", right: "M6 3l5 5-5 5", dice: "M3 3h10v10H3zM6 6h.1M10 10h.1M8 8h.1", plus: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3l3.2 3.2", key: "M10.5 2.5a3 3 0 1 0-2.4 4.8L3 12.5V14h2.5v-1.8h1.8v-1.8l1.5-1.5a3 3 0 0 0 1.7-6.4z",
  edit: "M3 13l.6-2.8L10.8 3 13 5.2 5.8 12.4z", warn: "M8 2.5l6 11H2zM8 6.5v3.2M8 11.6h.1", fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10", chart: "M3 13.5v-4M8 13.5v-11M13 13.5V6", pulse: "M1.5 8h3l2-4.5 3 9 2-4.5h3",
};

/** A small picture; nothing to a screen reader: what it means is said beside it. */
export const icon = (name, size = 16) =>
  svg("svg", { class: "icon", width: size, height: size, viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] ?? ICONS.file }));

export const STATUSES = ["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"];
const MARKS = { queued: "clock", running: "pulse", canceling: "stop", succeeded: "check", failed: "cross", canceled: "stop", paused: "pause", completed: "check" };

/** The status of a job or a batch: a word and a mark, never a color alone. */
export const statusChip = (status) =>
  h("span", { class: `chip status ${/^[a-z]+$/.test(status) ? status : ""}` }, icon(MARKS[status] ?? "clock", 12), status);

/** A progress bar. `value` from 0 to 1; null: it goes on, and nobody knows how far. */
export const bar = (value, label = "Progress", kind = "live") => {
  const isKnown = value !== null && value !== undefined;
  const share = Math.min(1, Math.max(0, Number(value) || 0));
  return h("div", {
    class: `bar ${kind}${isKnown ? "" : " unknown"}`, role: "progressbar", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": isKnown ? Math.round(share * 100) : null,
  }, h("i", { style: { transform: `scaleX(${isKnown ? share : 1})` } }));
};

/** A moment: how long ago, and the whole date when it is pointed at. `keepTimes` keeps those up to date. */
export const time = (iso) => (iso ? h("time", { datetime: iso, title: new Date(iso).toLocaleString() }, ago(iso)) : h("span", {}, "–"));

/** Write anew how long ago the moments on the page are. */
export const keepTimes = () => {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const text = ago(element.getAttribute("datetime"));
    if (element.textContent !== text) element.textContent = text;
  }
};

/** "now", "12 s ago", "5 min ago", "3 h ago", "Mon 14:05", "3 Mar", "3 Mar 2025". */
export const ago = (iso, now = Date.now()) => {
  const then = new Date(iso);
  const seconds = Math.round((now - then) / 1000);
  if (Number.isNaN(seconds)) return String(iso);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 6 * 86_400) return then.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
  const isThisYear = then.getFullYear() === new Date(now).getFullYear();
  return then.toLocaleDateString([], { day: "numeric", month: "short", ...(isThisYear ? {} : { year: "numeric" }) });
};

/** "0.4 s", "12 s", "3 min 5 s", "2 h 10 min". */
export const duration = (ms) => {
  if (ms === null || ms === undefined || Number.isNaN(Number(ms))) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min${Math.round(seconds) % 60 ? ` ${Math.round(seconds) % 60} s` : ""}`;
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
};

/** "12 B", "340 kB", "1.2 MB". */
export const bytes = (count) => {
  if (count === null || count === undefined) return "–";
  let value = count;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 999.5 || unit === "GB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return "";
};

/** "$0.0021", "$1.20", "< $0.000001"; "–" if nobody knows. */
export const dollars = (amount) => {
  if (amount === null || amount === undefined) return "–";
  if (amount === 0) return "$0";
  if (amount < 1e-6) return "< $0.000001";
  return `$${amount < 0.1 ? Number(amount).toPrecision(2) : Number(amount).toFixed(2)}`;
};

/** "12,345" */
export const number = (count) => (count === null || count === undefined ? "–" : Number(count).toLocaleString("en-US"));

/** A name and what it has, side by side: a long name leaves its value room. */
const pair = (name, value) => h("span", { class: "pair" }, h("span", { class: "cut" }, name), h("span", { class: "cut" }, value));

/** Labels of a job, each a link to all jobs with it. */
export const labels = (metadata, limit = 4) => {
  const pairs = Object.entries(metadata ?? {});
  return h("span", { class: "labels" },
    pairs.slice(0, limit).map(([name, value]) =>
      h("a", { class: "label", href: `#/jobs?label=${encodeURIComponent(`${name}=${value}`)}`, title: `${name} = ${value}` },
        pair(name, value))),
    pairs.length > limit ? h("span", { class: "dim" }, `+${pairs.length - limit}`) : null);
};

const KINDS = { image: "image", video: "video", audio: "audio", text: "text", "3d": "cube" };

/**
 * The small picture of an output, square; a mark of its kind if it has none. Only WebP of our own making, and pictures
 * that browsers take as pictures, are shown: never an SVG.
 */
export const thumb = (output, { size = 40, alt = "" } = {}) => {
  const box = h("span", { class: "thumb", style: { "--size": `${size}px` } });
  const addressNow = () => output && (output.thumb_url || (isPicture(output) && output.size_bytes < 2_000_000 && output.url));
  let address = addressNow();
  const mark = () => replace(box, output ? icon(KINDS[output.type] ?? "file", Math.min(24, size / 2)) : null);
  if (!address) {
    mark();
    return box;
  }
  const image = h("img", { alt, loading: "lazy", decoding: "async", width: size, height: size, draggable: "false" });
  image.addEventListener("error", async () => {
    await linked(output).catch(() => null);
    if (addressNow() === address) mark();
    else image.src = address = addressNow();
  });
  image.src = address;
  box.append(image);
  if (output.type === "video") box.append(h("span", { class: "kind" }, icon("play", 12)));
  return box;
};

/** Whether a browser can show it as a picture that runs nothing. */
export const isPicture = (output) => /^image\/(png|jpeg|webp|gif|avif|bmp)$/.test(output?.content_type ?? "");

/** Labels, in order of one job to the next of the same workflow and batch, that others may look for. */
export const shortId = (id) => h("code", { class: "id", title: id }, String(id).slice(0, 13));

/** A button that does something once at a time; what fails is told. */
export const action = (text, act, { kind = "", name = null, title = null, ...props } = {}) => {
  const button = h("button", { type: "button", class: `button ${kind}`, title, ...props }, name ? icon(name) : null, text);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    try {
      await act(button);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
    } finally {
      button.removeAttribute("aria-busy");
      // What it did may have painted its place anew: keys go on from the head of the page, not from its beginning.
      if (!button.isConnected && document.activeElement === document.body) document.querySelector("#page h1")?.focus({ preventScroll: true });
    }
  });
  return button;
};

/** Copies a text; says so. */
export const copyButton = (text, label = "Copy") =>
  action(label, async (button) => {
    await navigator.clipboard.writeText(typeof text === "function" ? await text() : text);
    const last = button.lastChild;
    last.textContent = "Copied";
    setTimeout(() => {
      last.textContent = label;
    }, 1500);
  }, { kind: "quiet small", name: "copy" });

/** A sentence at the edge of the page, for a few seconds; screen readers say it. What is below a dialog is neither seen nor said. */
export const toast = (text, kind = "") => {
  const box = document.getElementById("toasts");
  const place = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (box.parentNode !== place) place.append(box);
  const one = h("div", { class: `toast ${kind}` }, text);
  box.append(one);
  setTimeout(() => one.remove(), kind === "bad" ? 9000 : 4000);
};

/** What a page shows instead of a list that is empty. */
export const empty = (title, text = null, ...further) =>
  h("div", { class: "empty" }, h("h2", {}, title), text ? h("p", {}, text) : null, further);

/** What a page shows instead of something that could not be read. */
export const failure = (error, retry = null) =>
  h("div", { class: "notice bad", role: "alert" },
    h("b", {}, error.code ?? "error"), h("p", {}, error.message),
    retry ? action("Try again", retry, { kind: "quiet" }) : null);

/**
 * A dialog over the page. Escape closes it, the focus stays inside and goes back to where it was.
 * @param content elements, or what makes them from a function that closes the dialog
 * @returns {element, close}; `closed` is told when it is gone
 */
export const dialog = (title, content, { kind = "", closed = () => {} } = {}) => {
  const id = `d${Math.random().toString(36).slice(2)}`;
  const box = h("dialog", { class: kind, "aria-labelledby": id });
  const close = () => box.close();
  box.append(
    h("header", {}, h("h2", { id }, title),
      h("button", { type: "button", class: "button quiet icon-only", "aria-label": "Close", onclick: close }, icon("cross"))),
    h("div", { class: "body" }, typeof content === "function" ? content(close) : content));
  box.addEventListener("close", () => {
    document.body.append(...box.querySelectorAll("#toasts"));
    box.remove();
    closed(box.returnValue);
  });
  box.addEventListener("click", (event) => event.target === box && close());
  document.body.append(box);
  box.showModal();
  return { element: box, close };
};

/** Ask before something that cannot be undone. */
export const confirm = (title, text, yes, { kind = "danger" } = {}) => new Promise((done) => {
  let answer = false;
  dialog(title, (close) => [
    h("p", {}, text),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "button quiet", autofocus: true, onclick: close }, "No"),
      h("button", { type: "button", class: `button ${kind}`, onclick: () => { answer = true; close(); } }, yes)),
  ], { kind: "small", closed: () => done(answer) });
});

/** A field with its label above, and what is wrong with it below. */
export const field = (label, control, hint = null) => {
  const id = control.id || `f${Math.random().toString(36).slice(2)}`;
  control.id = id;
  const told = hint ? h("small", { class: "hint", id: `${id}-hint` }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: id }, label), control, told);
};

/** Rows of names and values. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** A label as it is typed, "name=value", as a pair. */
export const labelPair = (text) => [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)];

/** Parameters of the API that ask for labels. */
export const askedLabels = (texts) => Object.fromEntries(texts.map(labelPair).map(([name, value]) => [`metadata[${name}]`, value]));

/** Labels that filter, each a button that takes it away, and a field for another one. `suggest` returns some that there are. */
export const labelFilter = (chosen, change, suggest = () => []) => {
  const known = h("datalist", { id: "known-labels" });
  const input = h("input", {
    type: "search", placeholder: "label=value", "aria-label": "Filter by a label: name=value", list: "known-labels", autocomplete: "off",
    onfocus: () => replace(known, [...new Set(suggest())].slice(0, 100).map((value) => h("option", { value }))),
    onchange: () => {
      const text = input.value.trim();
      if (/^[^=]+=/.test(text) && !chosen.includes(text)) change([...chosen, text]);
    },
  });
  return [
    chosen.map((text) => {
      const [name, value] = labelPair(text);
      return h("button", { type: "button", class: "chip picked", "aria-label": `Remove the filter ${text}`, onclick: () => change(chosen.filter((one) => one !== text)) }, pair(`${name}=`, value), icon("cross", 12));
    }),
    h("span", { class: "narrow" }, input, known),
  ];
};

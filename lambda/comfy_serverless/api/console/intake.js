// A workflow that somebody drops anywhere on the page, pastes or chooses: the server reads it, out of pictures too.

import { get, key, post, put, upload } from "./api.js";
import { filesIn } from "./controls.js";
import { h, replace } from "./dom.js";
import { fieldsOf } from "./form.js";
import { dialog, field, icon } from "./parts.js";

/** Larger files are uploaded first, for an hour. */
const MOST_SENT_BYTES = 4_000_000;
const HOUR_S = 3600;
const ACCEPTED = ".json,application/json,image/*,video/*,audio/*,.glb,.safetensors";

/** The workflow in a file, as every route takes it: {workflow, warnings}. Throws ApiError. */
export const readFile = async (file, onProgress) => {
  const form = new FormData();
  if (file.size <= MOST_SENT_BYTES) form.append("file", file, file.name);
  else form.append("asset_id", (await upload(file, onProgress, { expiresIn: HOUR_S })).id);
  return post("workflows/read", form);
};

/** What a workflow takes and lacks, before it is kept or run: {workflow, fields, outputs, findings, notes, problems}. */
export const looked = async (workflow, name = "dropped") => {
  const told = await put(`workflows/${encodeURIComponent(name)}`, { workflow, dry_run: true });
  return { ...told, workflow, fields: fieldsOf(told.schema, told.inputs) };
};

/** A name that a workflow can have, made of a file's: letters, digits, `-` and `_`. */
export const nameOf = (fileName) =>
  fileName.replace(/\.[^.]*$/, "").normalize("NFKD").replace(/\p{M}/gu, "").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 64) || "workflow";

/** A zone that says what can be dropped, and opens the chooser of files. */
export const zone = (take, text = "Drop a workflow, or a picture that has one inside") => {
  const input = h("input", { type: "file", class: "sr", accept: ACCEPTED, id: "intake", onchange: () => { if (input.files[0]) take(input.files[0]); input.value = ""; } });
  return h("label", { class: "drop zone", for: "intake" }, input, icon("save", 24), h("b", {}, text),
    h("span", { class: "dim" }, "What the editor saves or exports, an API file, or what ComfyUI has made; anywhere on this page, or choose one"));
};

/**
 * Take files that are dropped anywhere, or pasted outside of a field, as long as the page is shown.
 * @returns what ends it
 */
export const everywhere = (take) => {
  const over = new AbortController();
  const { signal } = over;
  const veil = h("div", { class: "veil", hidden: true, "aria-hidden": "true" }, h("b", {}, "Drop it"));
  document.body.append(veil);
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const on = (kind, act) => document.addEventListener(kind, act, { signal });
  on("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    veil.hidden = Boolean(event.target.closest?.(".drop, dialog"));
  });
  on("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
  on("drop", (event) => {
    veil.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(filesIn(event.dataTransfer));
  });
  on("paste", (event) => {
    const files = filesIn(event.clipboardData);
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (event.target.closest?.("dialog")) return;
    if (files.length) {
      event.preventDefault();
      take(files);
    } else if (!event.target.closest?.("input, textarea") && text.trim().startsWith("{")) {
      take([new File([text], "pasted.json", { type: "application/json" })]);
    }
  });
  signal.addEventListener("abort", () => veil.remove());
  return () => over.abort();
};

/** What is wrong with a workflow on the workers, in their words; nothing, if nothing is. */
export const findings = (found, notes = []) => {
  const breaks = found.filter((one) => one.severity === "breaks");
  const warns = found.filter((one) => one.severity !== "breaks");
  const listed = (ones) => h("ul", { class: "bullets" }, ones.map((one) => h("li", {}, one.message, one.node_id ? h("span", { class: "dim" }, ` (node ${one.node_id}${one.class_type ? `, ${one.class_type}` : ""})`) : null)));
  return [
    breaks.length ? h("div", { class: "notice bad" }, h("b", {}, breaks.length === 1 ? "It would not run here:" : `It would not run here, for ${breaks.length} reasons:`), listed(breaks)) : null,
    warns.length ? h("div", { class: "notice warn" }, listed(warns)) : null,
    notes.length ? h("details", {}, h("summary", {}, `Notes (${notes.length})`), h("ul", { class: "bullets" }, notes.map((note) => h("li", {}, note)))) : null,
  ];
};

/** Say in a place what goes on, and what went wrong. */
export const saying = (place, text, isBad = false) =>
  replace(place, text ? h("p", { class: isBad ? "notice bad" : "dim", role: isBad ? "alert" : "status" }, text) : null);

const MOST_PAGES = 20;

/** Every page of a list, up to a bound: what is beyond it is not shown. */
export const pagesOf = async (path, name, query = {}) => {
  const found = [];
  let cursor;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const told = await get(path, { limit: 100, ...query, cursor });
    found.push(...told[name]);
    cursor = told.next_cursor;
    if (!cursor) break;
  }
  return found;
};

/** The workflows that this key's owner may run. */
export const all = () => pagesOf("workflows", "workflows");

/** Whose workflow is meant, whatever this key's owner has of that name. */
export const sourceOf = ({ source }) => (source === "own" ? {} : { source });

/** The address of a workflow on a page of the console: `run`, or `workflows`. */
export const addressOf = (page, one, query = {}) => {
  const asked = new URLSearchParams({ ...sourceOf(one), ...query });
  return `#/${page}/${encodeURIComponent(one.name)}${asked.size ? `?${asked}` : ""}`;
};

/** Whose a workflow is, in words. */
export const sourceWord = (source) => ({ own: "yours", operator: "shared by the operator", image: "in the image" })[source] ?? source;

/** Ask for a name, keep a workflow under it, and go there. */
export const keepAs = (workflow, name, { isFixed = false, done = null } = {}) => {
  const called = h("input", { type: "text", value: name, maxlength: 64, readonly: isFixed, autofocus: !isFixed, required: true });
  const note = h("input", { type: "text", maxlength: 1000, autofocus: isFixed });
  const force = h("input", { type: "checkbox", role: "switch" });
  const problem = h("div", { role: "alert" });
  const forced = h("label", { class: "switch", hidden: true }, force, "Keep it all the same");
  const opened = dialog(isFixed ? `A new version of ${name}` : "Keep it under a name", h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        const kept = await put(`workflows/${encodeURIComponent(called.value.trim())}`, { workflow, note: note.value, force: force.checked });
        opened.close();
        if (done) done(kept);
        else location.hash = `#/workflows/${encodeURIComponent(kept.name)}`;
      } catch (error) {
        replace(problem, h("div", { class: "notice bad" }, h("p", {}, error.message)));
        forced.hidden = !error.details?.findings;
      }
    },
  },
  field("Name", called, "Letters, digits, - and _"),
  field("What is new", note),
  problem, forced,
  h("div", { class: "actions" }, h("button", { class: "button primary" }, "Keep"))), { kind: "small" });
};

/** A few letters that differ from key to key, and tell nothing of it. */
export const keyTag = () => {
  let hash = 5381;
  for (const letter of key()) hash = (hash * 33 + letter.charCodeAt(0)) >>> 0;
  return hash.toString(36);
};

/** A table that scrolls in itself, on a phone. Columns in `wrap` are long texts, in `num` numbers. */
export const table = (label, heads, rows, kinds = []) =>
  h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((text, place) => (text ? h("th", { scope: "col", class: kinds[place] }, text) : h("td"))))), rowsOf(rows, kinds)));

/** The rows of a table: lists of cells. */
export const rowsOf = (rows, kinds = []) => h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, place) => h("td", { class: kinds[place] }, cell)))));

/** Give a file to whoever looks at the page. */
export const hand = (file, name) => {
  const url = URL.createObjectURL(file);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

const LAST = "last:";

/** Where this tab keeps something for the key in use. */
export const memoryOf = (what) => `${LAST}${keyTag()}:${what}`;

/** Keep something in this tab. */
export const store = (memory, value) => {
  try {
    sessionStorage.setItem(memory, JSON.stringify(value));
  } catch {
    // More than a tab may keep: it is not remembered.
    sessionStorage.removeItem(memory);
  }
};

/** What was stored there; null for nothing. What another key has left is dropped. */
export const recalled = (memory) => {
  for (const name of Object.keys(sessionStorage)) if (name.startsWith(LAST) && !name.startsWith(memoryOf(""))) sessionStorage.removeItem(name);
  return JSON.parse(sessionStorage.getItem(memory));
};

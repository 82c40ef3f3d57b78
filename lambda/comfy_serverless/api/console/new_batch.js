// A new batch: of a manifest, of a table, or of many pictures and a workflow. Lines are made here, and sent at once.

import { get, post, upload } from "./api.js";
import { fitsMedia, formOf } from "./controls.js";
import { h, replace } from "./dom.js";
import { stringify } from "./exact.js";
import { changed, fieldsOf, initial, placed, valuesOf } from "./form.js";
import { all, everywhere, keyTag, saying } from "./intake.js";
import { action, bar, bytes, field, number } from "./parts.js";

const AT_ONCE = 4;
/** What is longer goes to S3 first. */
const MOST_SENT = 3_000_000;
const DAY_S = 86_400;
const MOST_SHOWN = 8;

/** The page that makes one. */
export const begin = async (root) => {
  const called = h("input", { type: "text", id: "batch-name", maxlength: 40, pattern: "[A-Za-z0-9_\\-]+", value: suggested() });
  // By hand.
  let isNamed = false;
  called.addEventListener("input", () => { isNamed = true; });
  const status = h("div", {});
  const place = h("div", { class: "stack" });
  let given = null;
  const start = async (body) => {
    saying(status, "");
    try {
      const made = await post("batches", { name: called.value.trim(), ...body });
      location.hash = `#/batches/${encodeURIComponent(made.name)}`;
    } catch (error) {
      const lines = (error.details?.errors ?? []).filter(({ field }) => String(field).startsWith("lines."));
      if (!lines.length) throw error;
      replace(status, problemList(`${number(lines.length)} lines would fail; nothing was begun.`, lines.map(({ field, problem }) => `${field.replace("lines.", "line ")}: ${problem}`)),
        action("Run the others", () => start({ ...body, force: true }), { kind: "small" }));
    }
  };
  const take = async (files) => {
    given?.stop?.();
    saying(status, "");
    try {
      const [first] = files;
      if (!isNamed) called.value = suggested(first.name);
      if (isManifest(first.name)) given = ofManifest(place, first, start);
      else if (isTable(first.name)) given = await ofTable(place, first, start);
      else given = await ofFiles(place, [...(given?.files ?? []), ...files], start);
    } catch (error) {
      if (error.name !== "AbortError") saying(status, error.message, true);
    }
  };
  const input = h("input", { type: "file", multiple: true, class: "sr", id: "batch-files", onchange: () => { if (input.files.length) take([...input.files]); input.value = ""; } });
  const end = everywhere(take);
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1", class: "grow" }, "New batch"), h("a", { class: "button quiet", href: "#/batches" }, "All batches")),
    h("div", { class: "stack" },
      h("label", { class: "drop zone", for: "batch-files" }, input, h("b", {}, "Drop a manifest, a table, or many pictures"),
        h("span", { class: "dim" }, ".jsonl or .json: a request a line. .csv: a row each, its head names the inputs. Pictures: one job each, of a workflow.")),
      field("Name", called), status, place));
  return () => {
    end();
    given?.stop?.();
  };
};

const suggested = (fileName = "") => {
  const stem = fileName.replace(/\..*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 24) || "batch";
  return `${stem}-${new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-")}`;
};

const problemList = (title, problems) =>
  h("div", { class: "notice bad", role: "alert" }, h("b", {}, title), h("ul", { class: "bullets" }, problems.slice(0, MOST_SHOWN).map((text) => h("li", {}, text))));

const starter = (text, act) => h("div", { class: "actions" }, action(text, act, { kind: "primary", name: "play" }));

const ofManifest = (place, file, start) => {
  const head = h("pre", { tabindex: 0, "aria-label": "Its first lines" });
  const isPacked = file.name.endsWith(".gz");
  if (!isPacked) file.slice(0, 4000).text().then((text) => replace(head, text.split("\n").slice(0, MOST_SHOWN).map((line) => `${line.slice(0, 300)}\n`)));
  const send = async () => start(isPacked || file.size > MOST_SENT ? { upload_id: await uploaded(file) } : { manifest: await file.text() });
  replace(place, h("div", { class: "card stack" }, h("p", {}, h("b", {}, file.name), ` ${bytes(file.size)}`), isPacked ? null : head, starter("Run every line", send)));
  return {};
};

const uploaded = async (file) => (await upload(file, () => {}, { expiresIn: DAY_S })).id;

const sendLines = async (requests, start) => {
  const text = requests.map((one) => stringify(one)).join("\n");
  return text.length > MOST_SENT ? start({ upload_id: await uploaded(new File([text], "lines.jsonl", { type: "application/x-ndjson" })) }) : start({ manifest: text });
};

const ofTable = async (place, file, start) => {
  const text = await file.text();
  const told = h("div", { class: "stack" });
  const look = async (name) => {
    const fields = await fieldsOfNamed(name);
    const { requests, problems } = requestsOf(text, name, fields);
    replace(told, problems.length ? problemList(`${number(problems.length)} cells do not fit:`, problems.map(({ line, field, problem }) => `line ${line}, ${field}: ${problem}`)) : starter(`Run ${number(requests.length)} rows`, () => sendLines(requests, start)));
  };
  const menu = await workflowMenu(look);
  replace(place, h("div", { class: "card stack" }, h("p", {}, h("b", {}, file.name), ` ${bytes(file.size)}`), menu, told));
  return {};
};

const fieldsOfNamed = async (name) => {
  const workflow = await get(`workflows/${encodeURIComponent(name.replace(/^shared\//, ""))}`, name.startsWith("shared/") ? { source: "operator" } : {});
  return fieldsOf(workflow.schema, workflow.inputs);
};

/** A menu of workflows; `look` is told which one. */
const workflowMenu = async (look, fits = () => true) => {
  const known = (await all()).filter(fits);
  const problem = h("div", {});
  const menu = h("select", { id: "batch-workflow", onchange: () => menu.value && look(menu.value).then(() => saying(problem, ""), (error) => error.name === "AbortError" || saying(problem, error.message, true)) },
    h("option", { value: "" }, known.length ? "Choose a workflow" : "There are no named workflows yet"),
    known.map((one) => h("option", { value: one.source === "operator" ? `shared/${one.name}` : one.name }, one.name)));
  return [field("Workflow", menu), problem];
};

/** Many files: sent up some at a time, those that failed again; then a line each. What is up there stays up. */
const ofFiles = async (place, files, start) => {
  const items = files.map((file) => ({ file, name: file.name, id: "", problem: "" }));
  const over = new AbortController();
  const progress = h("div", { class: "stack" });
  const chosen = h("div", { class: "stack" });
  const paint = () => {
    const done = items.filter((item) => item.id).length;
    const wrong = items.filter((item) => item.problem);
    replace(progress, bar(done / items.length, "Uploading", done === items.length ? "good" : "live"), h("p", { class: "dim", role: "status" }, `${number(done)} of ${number(items.length)} uploaded`),
      wrong.length ? [problemList("Not uploaded:", wrong.map((item) => `${item.name}: ${item.problem}`)), action("Upload these again", () => { wrong.forEach((item) => { item.problem = ""; }); return work(); }, { kind: "small" })] : null);
  };
  const work = async () => {
    const next = () => items.find((item) => !item.id && !item.problem && !item.isGoing);
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      for (let item = next(); item && !over.signal.aborted; item = next()) {
        item.isGoing = true;
        try {
          item.id = (await once(item.file, over.signal)).id;
        } catch (error) {
          if (error.name !== "AbortError") item.problem = error.message;
        }
        item.isGoing = false;
        paint();
      }
    }));
  };
  const look = async (name) => {
    const fields = await fieldsOfNamed(name);
    const takers = fields.filter((field) => field.kind === "file" && fitsMedia(field.media, files[0].type));
    if (!takers.length) return saying(chosen, `${name} has no input for ${files[0].type || "such files"}.`, true);
    const taker = h("select", { onchange: () => paintForm() }, takers.map((field) => h("option", { value: field.name }, field.title)));
    const rest = h("div", {});
    let form;
    const others = () => fields.filter((field) => field.name !== taker.value);
    const paintForm = () => {
      form = formOf(others(), Object.fromEntries(others().map((field) => [field.name, initial(field)])));
      replace(rest, form.element);
    };
    const run = async () => {
      const held = form.held();
      const { values, problems } = valuesOf(others(), held);
      form.problems(placed(others(), problems).byField);
      if (problems.length) return;
      const ready = items.filter((item) => item.id);
      if (ready.length < items.length) throw new Error(`${items.length - ready.length} files are not uploaded yet.`);
      await sendLines(requestsForFiles(name, changed(others(), values, held), taker.value, ready), start);
    };
    paintForm();
    replace(chosen, takers.length > 1 ? field("Each file is", taker) : null, rest, starter(`Run ${number(items.length)} jobs`, run));
  };
  const menu = await workflowMenu(look);
  replace(place, h("div", { class: "card stack" }, progress, menu, chosen));
  paint();
  work();
  return { files, stop: () => over.abort() };
};

/** Files that this page has sent up already, by name, size and time: dropped again, they are there. */
const sentUp = new Map();
const once = async (file, signal) => {
  const same = `${keyTag()}/${file.name}/${file.size}/${file.lastModified}`;
  if (!sentUp.has(same)) sentUp.set(same, await upload(file, () => {}, { signal }));
  return sentUp.get(same);
};

const MANIFESTS = /\.(jsonl|ndjson|json)(\.gz)?$/i;

/** Whether a file is a manifest by its name. */
export const isManifest = (name) => MANIFESTS.test(name);
/** Whether a file is a table by its name. */
export const isTable = (name) => /\.(csv|tsv)$/i.test(name);

/** The rows of a CSV text (RFC 4180), by commas, semicolons or tabs, whichever its first line has most of. */
export const rowsOf = (text) => {
  const plain = text.replace(/^\uFEFF/, "");
  const first = plain.split(/\r?\n/, 1)[0];
  const mark = [",", ";", "\t"].reduce((best, one) => (first.split(one).length > first.split(best).length ? one : best));
  const rows = [];
  let row = [];
  let cell = "";
  let isQuoted = false;
  for (let at = 0; at < plain.length; at += 1) {
    const letter = plain[at];
    if (isQuoted) {
      if (letter !== '"') cell += letter;
      else if (plain[at + 1] === '"') { cell += '"'; at += 1; }
      else isQuoted = false;
    } else if (letter === '"' && cell === "") isQuoted = true;
    else if (letter === mark) { row.push(cell); cell = ""; }
    else if (letter === "\n") { row.push(cell.replace(/\r$/, "")); rows.push(row); row = []; cell = ""; }
    else cell += letter;
  }
  if (cell !== "" || row.length) rows.push([...row, cell]);
  return rows.filter((one) => one.some((part) => part.trim() !== ""));
};

/**
 * Requests of a table whose head names inputs of a workflow, and labels as `metadata.NAME`.
 *
 * @returns {{requests: object[], problems: {line: number, field: string, problem: string}[]}} lines as a spreadsheet
 *   counts them
 */
export const requestsOf = (text, workflow, fields) => {
  const [head = [], ...rows] = rowsOf(text);
  const names = head.map((name) => name.trim());
  const known = new Map(fields.map((field) => [field.name, field]));
  const problems = names.filter((name) => name && !known.has(name) && !name.startsWith("metadata."))
    .map((name) => ({ line: 1, field: name, problem: `is no input of ${workflow}` }));
  const requests = rows.map((cells, place) => {
    const given = Object.fromEntries(names.map((name, at) => [name, cells[at] ?? ""]).filter(([name, value]) => name && value !== ""));
    const held = Object.fromEntries(Object.entries(given).filter(([name]) => known.has(name)).map(([name, value]) => [name, heldOf(known.get(name), value)]));
    const asked = fields.filter((field) => field.isRequired || Object.hasOwn(held, field.name));
    const told = valuesOf(asked, held);
    problems.push(...told.problems.map((one) => ({ line: place + 2, ...one })));
    const metadata = Object.fromEntries(Object.entries(given).filter(([name]) => name.startsWith("metadata.")).map(([name, value]) => [name.slice(9), value]));
    return { workflow, inputs: told.values, ...(Object.keys(metadata).length ? { metadata } : {}) };
  });
  return { requests, problems };
};

const heldOf = (field, text) => {
  if (field.kind === "boolean") return /^(true|yes|1|x|on)$/i.test(text.trim());
  if (field.kind === "file") return text.split("|").map((address) => ({ address: address.trim() })).filter((one) => one.address);
  if (field.kind === "integer" && field.role === "seed") return { digits: text.trim(), isRandom: text.trim() === "-1" };
  return text;
};

/** A request for each file, all else as the form has it. */
export const requestsForFiles = (workflow, values, input, assets) =>
  assets.map(({ id, name }) => ({
    workflow, inputs: { ...values, [input]: { __type: "core/ASSET", info: { id } } }, metadata: { file: name.slice(0, 200) },
  }));

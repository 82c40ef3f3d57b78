// Tables that people have: CSV, as a spreadsheet writes it, and manifests. Pure.

import { valuesOf } from "./form.js";

const MANIFESTS = /\.(jsonl|ndjson|json)(\.gz)?$/i;

/** Whether a file is a manifest by its name. */
export const isManifest = (name) => MANIFESTS.test(name);
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

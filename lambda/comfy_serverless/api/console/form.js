// A form from the schema of a workflow's inputs: fields, what stands in them, and what a run gets of it. Pure: no page,
// no request. Values of fields are what controls hold: texts, booleans, places in lists, files.

import { parse, stringify, whole } from "./exact.js";

const ASSET = "core/ASSET";
const LARGEST_SEED = 2n ** 64n - 1n;
const LONGEST_SLIDER = 200;

/**
 * The fields of a form, in the order of the schema.
 *
 * @param schema JSON Schema 2020-12 of the inputs, as the API gives it.
 * @param inputs what the API says of the same inputs beside it: their order, and where they lead.
 */
export function fieldsOf(schema, inputs = []) {
  const properties = schema?.properties ?? {};
  const required = new Set(schema?.required ?? []);
  const told = new Map(inputs.map((one) => [one.name, one]));
  const names = [...new Set([...told.keys(), ...Object.keys(properties)])].filter((name) => Object.hasOwn(properties, name));
  return names.map((name) => fieldOf(name, properties[name], required.has(name), told.get(name)));
}

function fieldOf(name, property, isRequired, told) {
  const kind = kindOf(property);
  const file = kind === "file" ? property.anyOf : [];
  return {
    name,
    kind,
    role: property["x-role"] ?? "",
    title: property.title || titleOf(name),
    hint: property.description ?? "",
    isRequired,
    default: property.default,
    minimum: property.minimum,
    maximum: property.maximum,
    step: property["x-step"],
    choices: property.enum ?? property.examples ?? [],
    isOpen: kind === "choice" && !property.enum,
    isLong: Boolean(property["x-multiline"]) || property["x-role"] === "prompt",
    longest: property.maxLength,
    media: file.map((one) => one.contentMediaType).find(Boolean) ?? "*/*",
    most: file.find((one) => one.type === "array")?.maxItems ?? 1,
    targets: told?.targets ?? [],
  };
}

function kindOf(property) {
  if (property.enum || Array.isArray(property.type)) return "choice";
  if (property.anyOf) return "file";
  const plain = { string: "text", integer: "integer", number: "number", boolean: "boolean" };
  return plain[property.type] ?? "json";
}

/** A name as people read it: `negative_prompt` is `Negative prompt`. */
export function titleOf(name) {
  const words = name.replaceAll("_", " ").trim();
  return words ? words[0].toUpperCase() + words.slice(1) : name;
}

/** Whether a field is a seed, which may be drawn for each run. */
export const isSeed = (field) => field.kind === "integer" && field.role === "seed";

/** Whether a slider shows the numbers of a field: few enough steps between two bounds. */
export function hasSlider(field) {
  if (!isNumber(field) || isSeed(field) || field.minimum === undefined || field.maximum === undefined) return false;
  const step = Number(field.step ?? (field.kind === "integer" ? 1 : 0));
  const span = Number(field.maximum) - Number(field.minimum);
  return step > 0 && span > 0 && span / step <= LONGEST_SLIDER;
}

const isNumber = (field) => field.kind === "integer" || field.kind === "number";

/** What stands in a field before anybody has touched it. */
export function initial(field) {
  return shown(field, field.default);
}

/** Whether a field is as it was before anybody has touched it: its value is the workflow's own. */
export const isUntouched = (field, held) => !field.isRequired && JSON.stringify(held) === JSON.stringify(initial(field));

/** The values that somebody has set: the others are the workflow's own, and of two versions each has its own. */
export const changed = (fields, values, held) =>
  Object.fromEntries(fields.filter((field) => Object.hasOwn(values, field.name) && !isUntouched(field, held[field.name])).map((field) => [field.name, values[field.name]]));

/** What a field holds that has nothing in it. */
export function blank(field) {
  if (isSeed(field)) return { digits: "", isRandom: false };
  return field.kind === "boolean" ? false : field.kind === "file" ? [] : "";
}

/** What stands in a field for a value as a run has it; what does not fit at all is shown as nothing. */
export function shown(field, value) {
  if (value === null || value === undefined) return blank(field);
  if (isSeed(field)) {
    const digits = numberText(value);
    return digits === "-1" ? { digits: "", isRandom: true } : { digits, isRandom: false };
  }
  switch (field.kind) {
    case "boolean":
      return value === true;
    case "integer":
    case "number":
      return numberText(value);
    case "file":
      return (Array.isArray(value) ? value : [value]).map(fileOf).filter(Boolean).slice(0, field.most);
    case "json":
      return stringify(value);
    default:
      return typeof value === "object" ? "" : String(value);
  }
}

function numberText(value) {
  return typeof value === "bigint" || (typeof value === "number" && Number.isFinite(value)) ? String(value) : "";
}

function fileOf(value) {
  if (typeof value === "string") return value ? { address: value, name: nameIn(value) } : null;
  const info = value?.__type === ASSET && value.info ? value.info : null;
  if (typeof info?.id === "string") return { id: info.id, name: info.name ?? info.file_path ?? info.id };
  return typeof info?.uri === "string" ? { address: info.uri, name: nameIn(info.uri) } : null;
}

function nameIn(address) {
  if (address.startsWith("data:")) return "a file within the request";
  return address.split(/[?#]/)[0].split("/").pop() || address;
}

/** A seed, drawn from what the field takes. */
export function drawn(field, random = (words) => crypto.getRandomValues(new BigUint64Array(words))[0]) {
  const low = field.minimum === undefined || field.minimum < 0 ? 0n : BigInt(field.minimum);
  const high = field.maximum === undefined ? LARGEST_SEED : BigInt(field.maximum);
  return high > low ? String(low + (random(1) % (high - low + 1n))) : String(low);
}

/**
 * What a run gets, and what is wrong with it.
 *
 * What stands empty is left out: the workflow's own value counts. So does what is as it was before.
 *
 * @returns {{values: object, problems: {field: string, problem: string}[]}}
 */
export function valuesOf(fields, held) {
  const values = {};
  const problems = [];
  for (const field of fields) {
    const [value, problem] = valueOf(field, held[field.name] ?? blank(field));
    if (problem) problems.push({ field: field.name, problem });
    else if (value !== undefined) values[field.name] = value;
    else if (field.isRequired) problems.push({ field: field.name, problem: "is needed" });
  }
  return { values, problems };
}

function valueOf(field, held) {
  if (isSeed(field)) return held.isRandom ? [-1] : numberOf(field, held.digits);
  switch (field.kind) {
    case "boolean":
      return [held];
    case "file":
      return filesOf(field, held);
    case "integer":
    case "number":
      return numberOf(field, held);
    case "choice":
      return choiceOf(field, held);
    case "json":
      return jsonOf(held);
    default:
      return textOf(field, held);
  }
}

// An emptied text is meant, if there was something: a negative prompt may be none.
function textOf(field, held) {
  if (held === "" && !field.default) return [undefined];
  const longest = field.longest ?? Infinity;
  const letters = [...held].length;
  return letters > longest ? [undefined, `has ${letters} characters, and takes at most ${longest}`] : [held];
}

function numberOf(field, text) {
  const typed = text.trim().replace(/^\+/, "");
  if (typed === "") return [undefined];
  const isWhole = /^-?\d+$/.test(typed);
  if (field.kind === "integer" && !isWhole) return [undefined, `takes a whole number, and this is none`];
  const value = isWhole ? whole(typed) : Number(typed.replace(/^(-?\d*),(\d+)$/, "$1.$2"));
  if (typeof value === "number" && !Number.isFinite(value)) return [undefined, "takes a number, and this is none"];
  if (isSeed(field) && value === -1) return [value];
  if (field.minimum !== undefined && value < field.minimum) return [undefined, `is below ${field.minimum}`];
  if (field.maximum !== undefined && value > field.maximum) return [undefined, `is above ${field.maximum}`];
  return [value];
}

function choiceOf(field, held) {
  if (held === "") return [undefined];
  const found = field.choices.find((one) => String(one) === held);
  if (found !== undefined) return [found];
  return field.isOpen ? [held] : [undefined, "is none of the choices"];
}

function filesOf(field, held) {
  if (held.some((one) => one.problem)) return [undefined, held.find((one) => one.problem).problem];
  if (held.some((one) => !one.id && !one.address)) return [undefined, "is still being uploaded"];
  const files = held.map((one) => (one.id ? { __type: ASSET, info: { id: one.id } } : one.address));
  if (files.length === 0) return [undefined];
  return files.length > field.most ? [undefined, `takes ${field.most} at most`] : [field.most > 1 && files.length > 1 ? files : files[0]];
}

function jsonOf(text) {
  if (text.trim() === "") return [undefined];
  try {
    return [parse(text)];
  } catch {
    return [undefined, "takes JSON, and this is none"];
  }
}

/** What a graph in API format has for the fields: what an earlier job ran with. */
export function heldIn(fields, graph) {
  const held = {};
  for (const field of fields) {
    const value = field.targets.map((target) => at(graph, target)).find((one) => one !== undefined);
    if (value !== undefined && !isLink(value)) held[field.name] = shown(field, value);
  }
  return held;
}

// A node's id may have dots (subgraphs have colons), an input's name may too: the first split that leads somewhere.
function at(graph, target) {
  for (let dot = target.indexOf("."); dot > 0; dot = target.indexOf(".", dot + 1)) {
    const inputs = Object.hasOwn(graph, target.slice(0, dot)) ? graph[target.slice(0, dot)]?.inputs : undefined;
    const name = target.slice(dot + 1);
    if (inputs && Object.hasOwn(inputs, name)) return inputs[name];
  }
  return undefined;
}

const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && typeof value[1] === "number";

/** The body of `POST /generate` for a workflow without a name: each value goes where its field leads. */
export function requestOf(fields, values, workflow, metadata = {}) {
  const set = {};
  for (const field of fields) {
    if (!Object.hasOwn(values, field.name)) continue;
    for (const target of field.targets) set[target] = values[field.name];
  }
  return { workflow, set, metadata, wait_s: 0 };
}

/** What a refusal says of fields, and what of no field. `details.errors` of the API: `{field, problem}`. */
export function placed(fields, errors) {
  const known = new Map(fields.flatMap((field) => [[field.name, field.name], ...field.targets.map((target) => [target, field.name])]));
  const byField = {};
  const others = [];
  for (const { field, problem } of errors ?? []) {
    const bare = String(field).replace(/^(inputs|set)\./, "");
    const name = known.get(bare) ?? known.get(bare.split(/[.[]/)[0]);
    if (name === undefined) others.push(`${field}: ${problem}`);
    else byField[name] = byField[name] ? `${byField[name]}; ${problem}` : String(problem);
  }
  return { byField, others };
}

/** What of a form is kept for the next time: nothing of files that are within the request. */
export function kept(fields, held) {
  return Object.fromEntries(
    fields
      .filter((field) => held[field.name] !== undefined)
      .map((field) => [field.name, field.kind === "file" ? held[field.name].filter(isKept).map(bareFile) : held[field.name]]),
  );
}

const isKept = (file) => Boolean(file.id) || (Boolean(file.address) && !file.address.startsWith("data:"));
const bareFile = ({ id, address, name }) => (id ? { id, name } : { address, name });

/** What was kept, as far as the fields still take it: a workflow may have changed since. */
export function restored(fields, saved) {
  const held = {};
  for (const field of fields) {
    const value = saved?.[field.name];
    if (value !== undefined && fits(field, value)) held[field.name] = value;
  }
  return held;
}

function fits(field, value) {
  if (isSeed(field)) return typeof value?.digits === "string" && typeof value?.isRandom === "boolean";
  if (field.kind === "file") return Array.isArray(value) && value.length <= field.most && value.every((one) => one?.id || one?.address);
  if (field.kind === "boolean") return typeof value === "boolean";
  if (typeof value !== "string") return false;
  return field.kind !== "choice" || field.isOpen || value === "" || field.choices.some((one) => String(one) === value);
}

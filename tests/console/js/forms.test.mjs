// The pure parts of the console's forms, under Node: `node --test tests/console/js`.
import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, stringify } from "../../../lambda/comfy_serverless/api/console/exact.js";
import * as form from "../../../lambda/comfy_serverless/api/console/form.js";

const ASSET = { type: "object", properties: { __type: { const: "core/ASSET" } } };
const FILE = { type: "string", format: "uri-reference", minLength: 1, contentMediaType: "image/*" };
const SCHEMA = parse(`{
  "type": "object",
  "properties": {
    "prompt": {"type": "string", "maxLength": 20, "x-role": "prompt", "x-multiline": true, "title": "Prompt", "default": "a fox"},
    "seed": {"type": "integer", "minimum": -1, "maximum": 18446744073709551615, "x-role": "seed", "default": 18446744073709551615},
    "steps": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "denoise": {"type": "number", "minimum": 0, "maximum": 1, "x-step": 0.01, "default": 1},
    "sampler": {"type": "string", "enum": ["euler", "heun"], "default": "euler"},
    "size": {"enum": [512, 1024], "default": 512},
    "model": {"type": ["string", "number", "boolean"], "examples": ["a.safetensors"]},
    "upscale": {"type": "boolean", "default": false},
    "extra": {"not": {"type": "array"}}
  },
  "required": ["photo"]
}`);
SCHEMA.properties.photo = { anyOf: [FILE, ASSET] };
SCHEMA.properties.photos = { anyOf: [FILE, { type: "array", maxItems: 3, items: {} }, ASSET] };
const fields = form.fieldsOf(SCHEMA);
const field = (name) => fields.find((one) => one.name === name);
const start = (more = {}) => ({ ...Object.fromEntries(fields.map((one) => [one.name, form.initial(one)])), photo: [{ id: "a1", name: "fox.png" }], ...more });
const sent = (more) => form.valuesOf(fields, start(more));
const problem = (name, value) => sent({ [name]: value }).problems.find((one) => one.field === name)?.problem;

test("whole numbers keep all their digits, texts stay texts", () => {
  for (const text of ['{"seed":18446744073709551615}', '[-9007199254740993,9007199254740991]', '{"a":"seed: 18446744073709551615 \\" 12345678901234567890"}', '[1e22,1.7976931348623157e308,0.1]', '"123456789012345678901"']) {
    assert.equal(stringify(JSON.parse(text) && parse(text)), text.includes("e") && !text.includes("seed") ? JSON.stringify(JSON.parse(text)) : text);
  }
  assert.equal(parse('{"seed":18446744073709551615}').seed, 18446744073709551615n);
  assert.equal(stringify({ a: [1n << 63n], b: undefined }, 1), '{\n "a": [\n  9223372036854775808\n ]\n}');
  assert.throws(() => parse('{"seed": 12345678901234567890'), SyntaxError);
});

test("a long text with escapes is read at once", () => {
  const text = JSON.stringify({ prompt: '\\"'.repeat(200_000), seed: 1 }).replace(":1}", ":12345678901234567890}");
  assert.equal(stringify(parse(text)), text);
});

test("a schema becomes fields of the kinds that people set", () => {
  const kinds = Object.fromEntries(fields.map((one) => [one.name, one.kind]));
  assert.deepEqual(kinds, { prompt: "text", seed: "integer", steps: "integer", denoise: "number", sampler: "choice", size: "choice", model: "choice", upscale: "boolean", extra: "json", photo: "file", photos: "file" });
  assert.equal(field("photo").isRequired, true);
  assert.equal(field("photo").most, 1);
  assert.equal(field("photos").most, 3);
  assert.equal(field("photo").media, "image/*");
  assert.equal(field("model").isOpen, true);
  assert.equal(form.titleOf("negative_prompt"), "Negative prompt");
  assert.deepEqual([form.hasSlider(field("denoise")), form.hasSlider(field("steps")), form.hasSlider(field("seed"))], [true, true, false]);
});

test("inputs give the order, and where each leads", () => {
  const ordered = form.fieldsOf(SCHEMA, [{ name: "seed", targets: ["3.seed"] }, { name: "prompt", targets: ["6.text"] }, { name: "gone" }]);
  assert.deepEqual(ordered.slice(0, 3).map((one) => one.name), ["seed", "prompt", "steps"]);
  assert.deepEqual(ordered[0].targets, ["3.seed"]);
});

test("a form that nobody has touched runs as it stands", () => {
  const { values, problems } = sent();
  assert.deepEqual(problems, []);
  assert.equal(stringify(values.seed), "18446744073709551615");
  assert.deepEqual(values.photo, { __type: "core/ASSET", info: { id: "a1" } });
  assert.equal(values.size, 512);
  assert.equal("model" in values, false);
  assert.equal("extra" in values, false);
});

test("seeds are exact, random or refused", () => {
  assert.equal(stringify(sent({ seed: { digits: "9007199254740993", isRandom: false } }).values), stringify({ ...sent().values, seed: 9007199254740993n }));
  assert.equal(sent({ seed: { digits: "5", isRandom: true } }).values.seed, -1);
  assert.match(problem("seed", { digits: "18446744073709551616", isRandom: false }), /is above 18446744073709551615/);
  assert.match(problem("seed", { digits: "1.5", isRandom: false }), /whole number/);
  assert.deepEqual(form.shown(field("seed"), -1), { digits: "", isRandom: true });
  assert.equal(form.drawn(field("seed"), () => 2n ** 64n - 1n), "18446744073709551615");
  assert.equal(form.drawn({ minimum: 5, maximum: 7 }, () => 4n), "6");
  for (let time = 0; time < 50; time += 1) assert.equal(sent({ seed: { digits: form.drawn(field("seed")), isRandom: false } }).problems.length, 0);
});

test("every problem is told at its field", () => {
  assert.match(problem("steps", "0"), /is below 1/);
  assert.match(problem("steps", "2.5"), /whole number/);
  assert.match(problem("steps", "many"), /whole number/);
  assert.match(problem("denoise", "NaN"), /takes a number/);
  assert.match(problem("denoise", "Infinity"), /takes a number/);
  assert.match(problem("sampler", "eulr"), /none of the choices/);
  assert.match(problem("prompt", "x".repeat(21)), /21 characters/);
  assert.match(problem("photo", []), /is needed/);
  assert.match(problem("photo", [{ name: "fox.png" }]), /being uploaded/);
  assert.match(problem("extra", "{"), /JSON/);
  assert.equal(sent({ steps: "0", denoise: "2", photo: [] }).problems.length, 3);
});

test("characters count as people count them", () => {
  assert.equal(problem("prompt", "🦊".repeat(20)), undefined);
});

test("numbers are read as people write them, choices keep their type", () => {
  assert.equal(sent({ denoise: "0,5" }).values.denoise, 0.5);
  assert.equal(sent({ denoise: " .25 " }).values.denoise, 0.25);
  assert.equal(sent({ steps: "+7" }).values.steps, 7);
  assert.equal(sent({ size: "1024" }).values.size, 1024);
  assert.equal(sent({ model: "of my own" }).values.model, "of my own");
  assert.equal(sent({ steps: "" }).values.steps, undefined);
});

test("an emptied text is sent, one that was always empty is not", () => {
  assert.equal(sent({ prompt: "" }).values.prompt, "");
  assert.equal(form.valuesOf([{ ...field("prompt"), default: undefined }], { prompt: "" }).values.prompt, undefined);
});

test("several files are a list, one is itself", () => {
  const photos = [{ id: "a" }, { address: "https://example.com/fox.png" }];
  assert.deepEqual(sent({ photos }).values.photos, [{ __type: "core/ASSET", info: { id: "a" } }, "https://example.com/fox.png"]);
  assert.deepEqual(sent({ photos: photos.slice(0, 1) }).values.photos, { __type: "core/ASSET", info: { id: "a" } });
  assert.match(problem("photos", [1, 2, 3, 4].map((id) => ({ id: String(id) }))), /3 at most/);
});

test("an earlier job's graph fills the form in", () => {
  const led = form.fieldsOf(SCHEMA, [
    { name: "prompt", targets: ["6.text"] },
    { name: "seed", targets: ["57:3.seed"] },
    { name: "photo", targets: ["10.image"] },
    { name: "steps", targets: ["3.steps"] },
    { name: "denoise", targets: ["9.gone"] },
  ]);
  const held = form.heldIn(led, parse('{"6":{"inputs":{"text":"a hare"}},"57:3":{"inputs":{"seed":12345678901234567890}},"10":{"inputs":{"image":{"__type":"core/ASSET","info":{"id":"a9"}}}},"3":{"inputs":{"steps":["4",0]}}}'));
  assert.deepEqual(held, { prompt: "a hare", seed: { digits: "12345678901234567890", isRandom: false }, photo: [{ id: "a9", name: "a9" }] });
});

test("a workflow without a name runs by its addresses", () => {
  const led = form.fieldsOf(SCHEMA, [{ name: "prompt", targets: ["6.text", "7.text"] }]);
  const request = form.requestOf(led, { prompt: "a hare" }, { 6: {} }, { console: "dropped" });
  assert.deepEqual(request, { workflow: { 6: {} }, set: { "6.text": "a hare", "7.text": "a hare" }, metadata: { console: "dropped" }, wait_s: 0 });
});

test("a refusal's problems find their fields, by name and by address", () => {
  const led = form.fieldsOf(SCHEMA, [{ name: "prompt", targets: ["6.text"] }]);
  const { byField, others } = form.placed(led, [
    { field: "inputs.steps", problem: "is too large" },
    { field: "set.6.text", problem: "is no text" },
    { field: "photos[1]", problem: "is none" },
    { field: "deadline_s", problem: "is no number" },
  ]);
  assert.deepEqual(byField, { steps: "is too large", prompt: "is no text", photos: "is none" });
  assert.deepEqual(others, ["deadline_s: is no number"]);
});

test("what is kept is taken again as far as it still fits", () => {
  const saved = JSON.parse(JSON.stringify(form.kept(fields, start({ steps: "30", sampler: "heun", photos: [{ address: "data:image/png;base64,AA" }, { id: "b", name: "b.png", url: "https://signed", share: 1 }] }))));
  assert.deepEqual(saved.photos, [{ id: "b", name: "b.png" }]);
  const now = form.fieldsOf({ ...SCHEMA, properties: { ...SCHEMA.properties, sampler: { type: "string", enum: ["euler"] } } });
  const held = form.restored(now, { ...saved, seed: 5, unknown: "x" });
  assert.equal(held.steps, "30");
  assert.equal("sampler" in held, false);
  assert.equal("seed" in held, false);
  assert.deepEqual(form.restored(now, null), {});
});

test("hostile schemas and graphs break nothing", () => {
  for (const schema of [null, {}, { properties: { __proto__: { type: "string" } } }, { properties: { a: {} } }, { properties: { a: { anyOf: [] } } }]) {
    const made = form.fieldsOf(schema, [{ name: "constructor" }, { name: "toString" }]);
    assert.equal(made.some((one) => one.name === "constructor"), false);
    form.valuesOf(made, Object.fromEntries(made.map((one) => [one.name, form.initial(one)])));
  }
  assert.deepEqual(form.heldIn([{ name: "a", kind: "text", targets: ["constructor.name", "6", ".", "6.inputs"] }], { 6: null }), {});
});

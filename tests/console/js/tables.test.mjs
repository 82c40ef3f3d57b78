// Tables, manifests and archives that the console makes, under Node.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { crc32 as known } from "node:zlib";

import { fieldsOf } from "../../../lambda/comfy_serverless/api/console/form.js";
import { isManifest, isTable, requestsForFiles, requestsOf, rowsOf } from "../../../lambda/comfy_serverless/api/console/new_batch.js";
import { crc32, safeName, zipTo } from "../../../lambda/comfy_serverless/api/console/saving.js";

const fields = fieldsOf({
  properties: {
    prompt: { type: "string" },
    steps: { type: "integer", minimum: 1 },
    seed: { type: "integer", minimum: -1, maximum: 2 ** 64, "x-role": "seed" },
    upscale: { type: "boolean" },
    photo: { anyOf: [{ type: "string" }, { type: "array", maxItems: 9 }] },
  },
  required: ["photo"],
});

test("a table is read as spreadsheets write it", () => {
  assert.deepEqual(rowsOf('\uFEFFa,b\r\n"x, ""y""",2\r\n\r\n"two\nlines",'), [["a", "b"], ['x, "y"', "2"], ["two\nlines", ""]]);
  assert.deepEqual(rowsOf("a;b\n1,5;2"), [["a", "b"], ["1,5", "2"]]);
  assert.deepEqual(rowsOf("a\tb\n1\t2\n"), [["a", "b"], ["1", "2"]]);
  assert.deepEqual(rowsOf(""), []);
});

test("rows become requests, with the kinds that the inputs have", () => {
  const text = "prompt,steps,seed,upscale,photo,metadata.campaign\na fox,7,18446744073709551615,yes,s3://b/1.png|s3://b/2.png,autumn\na hare,,,,https://e.com/a.png,\n";
  const { requests, problems } = requestsOf(text, "poster", fields);
  assert.deepEqual(problems, []);
  assert.deepEqual(requests[0], {
    workflow: "poster",
    inputs: { prompt: "a fox", steps: 7, seed: 18446744073709551615n, upscale: true, photo: ["s3://b/1.png", "s3://b/2.png"] },
    metadata: { campaign: "autumn" },
  });
  assert.deepEqual(requests[1], { workflow: "poster", inputs: { prompt: "a hare", photo: "https://e.com/a.png" } });
});

test("what does not fit is told with its line", () => {
  const { problems } = requestsOf("prompt,stepz,steps\na fox,1,0\na hare,1,3\n", "poster", fields);
  assert.deepEqual(problems.map(({ line, field }) => [line, field]), [[1, "stepz"], [2, "steps"], [2, "photo"], [3, "photo"]]);
});

test("each file becomes a request", () => {
  assert.deepEqual(requestsForFiles("small", { width: 64 }, "photo", [{ id: "a1", name: "fox.png" }]), [
    { workflow: "small", inputs: { width: 64, photo: { __type: "core/ASSET", info: { id: "a1" } } }, metadata: { file: "fox.png" } },
  ]);
});

test("files are told by their names", () => {
  assert.deepEqual(["a.jsonl", "a.NDJSON", "a.json.gz", "a.csv", "a.png"].map(isManifest), [true, true, true, false, false]);
  assert.deepEqual(["a.csv", "a.TSV", "a.json"].map(isTable), [true, true, false]);
});

test("the checksum is that of others", { skip: known === undefined ? "this Node has none to compare with" : false }, () => {
  const bytes = Uint8Array.from({ length: 5000 }, (_, at) => (at * 7) & 255);
  assert.equal(crc32(bytes), known(bytes));
  assert.equal(crc32(bytes.subarray(1000), crc32(bytes.subarray(0, 1000))), known(bytes));
});

test("the archive is one that others open", async () => {
  const folder = mkdtempSync(join(tmpdir(), "zip-"));
  try {
    const parts = [];
    const zip = zipTo((bytes) => { parts.push(Buffer.from(bytes)); });
    async function* pieces(text) { for (const letter of text) yield new TextEncoder().encode(letter); }
    await zip.add("ä/fox.txt", pieces("a red fox"));
    await zip.add("ä/fox.txt", pieces("another"));
    await zip.add("../../etc/passwd", pieces(""));
    await zip.end();
    const path = join(folder, "made.zip");
    writeFileSync(path, Buffer.concat(parts));
    const program = "import sys,zipfile,json; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(json.dumps({n: z.read(n).decode() for n in z.namelist()}))";
    const told = JSON.parse(execFileSync("python3", ["-c", program, path], { encoding: "utf-8" }));
    assert.deepEqual(told, { "ä/fox.txt": "a red fox", "ä/fox-2.txt": "another", "etc/passwd": "" });
    assert.ok(readFileSync(path).length < 900);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("names lead out of no folder", () => {
  assert.equal(safeName("..\\..\\boot.ini"), ".._.._boot.ini");
  assert.equal(safeName("/../a/./b<c>.png"), "a/b_c_.png");
  assert.equal(safeName("../.."), "file");
});

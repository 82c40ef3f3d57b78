// A job as a program: each of these runs as it stands, once COMFY_API_KEY is set. The key itself is in none of them.

import { stringify } from "./exact.js";

/** @returns {curl, python, typescript}: texts of programs that submit this workflow to the API at `base`. */
export const snippets = (base, workflow, metadata = {}) => ({
  curl: curl(base, workflow, metadata),
  python: python(base, workflow, metadata),
  typescript: typescript(base, workflow, metadata),
});

const text = (...lines) => `${lines.join("\n")}\n`;
const hasLabels = (metadata) => Object.keys(metadata).length > 0;
const body = (workflow, metadata) => stringify({ workflow, ...(hasLabels(metadata) ? { metadata } : {}) }, 2);

/** For a POSIX shell. In a here-document with a quoted end nothing means anything; JSON has no line that is just END. */
const curl = (base, workflow, metadata) => text(
  "# export COMFY_API_KEY=…",
  `curl -sS --fail-with-body "\${COMFY_BASE_URL:-${shellSafe(base)}}/api/v2/jobs" \\`,
  '  -H "Authorization: Bearer $COMFY_API_KEY" -H "Content-Type: application/json" \\',
  "  --data-binary @- <<'END'",
  body(workflow, metadata),
  "END",
);

/** An address of ours has no other signs; nobody else shall put them there. */
const shellSafe = (base) => base.replace(/[^\w.:/[\]-]/g, "");

const python = (base, workflow, metadata) => text(
  "# pip install comfy-sdk; export COMFY_API_KEY=…",
  "import os",
  "",
  "from comfy_sdk import Comfy",
  "",
  `os.environ.setdefault("COMFY_BASE_URL", ${literal(base)})`,
  `WORKFLOW = ${literal(workflow)}`,
  "",
  "with Comfy() as client:",
  `    job = client.submit(client.workflows.from_json(WORKFLOW)${hasLabels(metadata) ? `, metadata=${literal(metadata, "    ")}` : ""})`,
  "    for output in job.result().outputs:  # raises JobFailed",
  "        print(output.to_file(os.path.basename(output.name)))",
);

/** A value as Python writes it. What JSON escapes in a text means the same in Python. */
const literal = (value, indent = "") => {
  const deeper = `${indent}    `;
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) {
    if (!value.some((one) => one && typeof one === "object")) return `[${value.map((one) => literal(one)).join(", ")}]`;
    return `[\n${value.map((one) => `${deeper}${literal(one, deeper)},\n`).join("")}${indent}]`;
  }
  const parts = Object.entries(value).filter(([, one]) => one !== undefined);
  return parts.length ? `{\n${parts.map(([name, one]) => `${deeper}${JSON.stringify(name)}: ${literal(one, deeper)},\n`).join("")}${indent}}` : "{}";
};

/** With the SDK. Its submit takes no labels, and JavaScript no number above 2^53: then with `fetch`, and JSON as text. */
const typescript = (base, workflow, metadata) =>
  hasLabels(metadata) || holdsLarge(workflow) ? plain(base, body(workflow, metadata)) : withSdk(base, workflow);

const holdsLarge = (value) =>
  typeof value === "bigint" || (value !== null && typeof value === "object" && Object.values(value).some(holdsLarge));

const withSdk = (base, workflow) => text(
  "// npm install @comfyorg/sdk; export COMFY_API_KEY=…",
  'import { basename } from "node:path";',
  'import { Comfy } from "@comfyorg/sdk";',
  "",
  `process.env.COMFY_BASE_URL ??= ${JSON.stringify(base)};`,
  `const workflow = ${stringify(workflow, 2)};`,
  "",
  "const client = new Comfy({ apiKey: process.env.COMFY_API_KEY });",
  "const job = await client.submit(client.workflows.fromJson(workflow));",
  "await job.result(); // throws JobFailed",
  "for (const output of job.outputs) console.log(await output.toFile(basename(output.name)));",
);

const plain = (base, json) => text(
  "// Node 22.18 or later; export COMFY_API_KEY=…",
  `const base = process.env.COMFY_BASE_URL ?? ${JSON.stringify(base)};`,
  'const headers = { authorization: `Bearer ${process.env.COMFY_API_KEY}`, "content-type": "application/json" };',
  "const ask = async (path: string, options: RequestInit = {}) => {",
  "  const answer = await fetch(base + path, { ...options, headers });",
  "  if (!answer.ok) throw new Error(await answer.text());",
  "  return answer.json();",
  "};",
  "",
  `const body = ${JSON.stringify(json)}; // as text: numbers that JavaScript would round stay whole`,
  'let job = await ask("/api/v2/jobs", { method: "POST", body });',
  "while (!job.completed_at) {",
  "  await new Promise((done) => setTimeout(done, 500));",
  "  job = await ask(job.urls.self);",
  "}",
  "if (job.error) throw new Error(job.error.message);",
  "for (const output of job.outputs) console.log(output.name, output.url);",
);

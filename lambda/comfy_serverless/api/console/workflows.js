// Named workflows: what there is; of one its versions, aliases and inputs, and whether it would run on the workers.

import { del, get, post } from "./api.js";
import { h, replace } from "./dom.js";
import { stringify } from "./exact.js";
import { addressOf, all, everywhere, findings, hand, keepAs, looked, nameOf, pagesOf, readFile, rowsOf, saying, sourceOf, sourceWord, table, zone } from "./intake.js";
import { action, confirm, dialog, empty, failure, field, time, toast } from "./parts.js";

const OWN = "own";
const pathOf = (name, more = "") => `workflows/${encodeURIComponent(name)}${more}`;

const show = (root, [name], query) => (name ? one(root, name, query.get("source")) : list(root));

const list = async (root) => {
  const status = h("div", {});
  const place = h("div", {});
  const take = (file) => pushed(file, status, null, null);
  const stop = everywhere(([file]) => take(file));
  const known = await all();
  const found = h("ul", { class: "rows" });
  const broken = new Map();
  const paint = (text = "") => {
    const words = text.toLowerCase().split(/\s+/);
    replace(found, known.filter((workflow) => words.every((word) => `${workflow.name} ${workflow.title}`.toLowerCase().includes(word))).map((workflow) => row(workflow, broken.get(workflow.name))));
  };
  paint();
  replace(place, known.length ? h("div", { class: "card" }, known.length > 8 ? h("input", { type: "search", placeholder: `Search ${known.length} workflows`, "aria-label": "Search workflows", oninput: (event) => paint(event.target.value) }) : null, found)
    : empty("No named workflows yet", "Drop one to keep it: apps then call it by its name, and its inputs by theirs."));
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Workflows")), h("div", { class: "stack" }, zone(take, "Drop a workflow to keep it under a name"), status, place));
  pagesOf("workflows/doctor", "versions").then((versions) => {
    versions.filter((version) => version.breaks).forEach((version) => broken.set(version.name, version));
    if (broken.size) paint();
  // It is a hint: the page of the workflow says why it could not be asked.
  }, () => {});
  return stop;
};

const row = (workflow, broken) =>
  h("li", {}, h("div", {}, h("a", { class: "name", href: addressOf("workflows", workflow) }, workflow.name), h("div", { class: "dim" }, workflow.title)),
    h("div", { class: "row" }, Object.entries(workflow.aliases).map(([alias, { weights }]) => h("span", { class: "chip" }, `${alias} → ${weightWords(weights)}`)), broken ? h("span", { class: "chip bad" }, `v${broken.version} would fail`) : null,
      h("span", { class: "dim" }, sourceWord(workflow.source)), workflow.updated_at ? time(workflow.updated_at) : null),
    h("a", { class: "button small", href: addressOf("run", workflow), "aria-label": `Run ${workflow.name}` }, "Run"));

/** "v3", or "v3 90 %, v4 10 %" */
const weightWords = (weights) => {
  const pairs = Object.entries(weights);
  const sum = pairs.reduce((total, [, weight]) => total + weight, 0);
  if (pairs.length < 2 || !sum) return pairs.map(([version]) => `v${version}`).join(", ") || "nothing";
  return pairs.map(([version, weight]) => `v${version} ${Math.round((100 * weight) / sum)} %`).join(", ");
};

/** Read a file, show what it takes and lacks, and keep it under a name. */
const pushed = async (file, status, name, done) => {
  saying(status, `Reading ${file.name} …`);
  try {
    const { workflow, warnings } = await readFile(file);
    const told = await looked(workflow, name ?? "dropped");
    replace(status, h("div", { class: "card stack" }, h("h2", {}, `${file.name}: ${told.inputs.length} inputs`), findings(told.findings, [...warnings, ...told.notes]), inputTable(told.inputs),
      h("div", { class: "actions" }, action("Not now", () => replace(status), { kind: "quiet" }), action(name ? "Keep as a new version" : "Keep it", () => keepAs(workflow, name ?? nameOf(file.name), { isFixed: Boolean(name), done }), { kind: "primary" }))));
  } catch (error) {
    if (error.name !== "AbortError") saying(status, error.message, true);
  }
};

const one = async (root, name, source) => {
  const status = h("div", {});
  const place = h("div", { class: "stack" });
  let stop = () => {};
  const load = async () => {
    const workflow = await get(pathOf(name), source ? { source } : {});
    const isOwn = workflow.source === OWN;
    const versions = workflow.source === "image" ? { versions: [] } : await get(pathOf(name, "/versions"), { limit: 50, source });
    const take = (file) => pushed(file, status, name, async (kept) => {
      toast(kept.is_new ? `Version ${kept.version} is kept. Promote it to run it.` : `Nothing new: it is version ${kept.version}.`);
      replace(status);
      await load();
    });
    stop();
    stop = isOwn ? everywhere(([file]) => take(file)) : () => {};
    const picker = h("input", { type: "file", class: "sr", id: "push", onchange: () => { if (picker.files[0]) take(picker.files[0]); picker.value = ""; } });
    replace(place,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, name), h("span", { class: "chip" }, sourceWord(workflow.source)), h("span", { class: "grow" }),
        isOwn ? [picker, h("label", { class: "button", for: "push" }, "New version"), action("Retire", () => retire(name), { kind: "danger" })] : null,
        h("a", { class: "button primary", href: addressOf("run", workflow) }, "Run")),
      workflow.description ? h("p", { class: "dim about" }, workflow.description) : null, status,
      workflow.source === "image" ? null : aliasCard(workflow, isOwn, load), health(workflow),
      versions.versions.length ? versionCard(workflow, versions, isOwn, load) : null,
      h("section", { class: "card" }, h("h2", {}, workflow.version === undefined ? "Inputs" : `Inputs of version ${workflow.version}`), inputTable(workflow.inputs)),
      workflow.history?.length ? h("details", { class: "card" }, h("summary", {}, "Moves"), h("ul", { class: "bullets" }, [...workflow.history].reverse().map((move) => h("li", {}, `${move.alias}: ${weightWords(move.before)} → ${weightWords(move.weights)}, by ${move.by}, `, time(move.at))))) : null);
  };
  replace(root, place);
  await load();
  return () => stop();
};

const aliasCard = (workflow, isOwn, load) =>
  h("section", { class: "card" }, h("header", {}, h("h2", { class: "grow" }, "Aliases"), isOwn ? action("Move or split", () => askMove(workflow, load), { kind: "small" }) : null),
    h("ul", { class: "rows" }, Object.entries(workflow.aliases).map(([alias, { weights }]) => h("li", {}, h("b", {}, alias), h("div", {}, h("div", {}, weightWords(weights)), shares(weights)),
      h("span", { class: "row" }, isOwn ? action("Roll back", async () => moved(await post(pathOf(workflow.name, "/alias"), { alias, rollback: true }), alias, load), { kind: "quiet small" }) : null,
        isOwn && alias !== "live" ? action("Drop", async () => {
          if (!(await confirm(`Drop ${alias}?`, "Runs that name it are refused. Its versions stay.", "Drop it"))) return;
          await del(pathOf(workflow.name, `/alias/${encodeURIComponent(alias)}`));
          await load();
        }, { kind: "quiet small" }) : null)))),
    Object.keys(workflow.aliases).length ? null : h("p", { class: "dim" }, "None: promote a version."));

const shares = (weights) => {
  const pairs = Object.entries(weights);
  const sum = pairs.reduce((total, [, weight]) => total + weight, 0);
  return pairs.length < 2 || !sum ? null : h("div", { class: "split", "aria-hidden": "true" }, pairs.map(([, weight], place) => h("i", { class: place % 2 ? "live" : "good", style: { width: `${(100 * weight) / sum}%` } })));
};

const moved = async (entry, alias, load) => {
  toast(`${alias} is ${weightWords(entry.aliases[alias]?.weights ?? {})} now.`);
  await load();
};

/** Move an alias: to a version, or to several with weights: `3=90 4=10`. What it led to must still be so. */
const askMove = (workflow, load, version = workflow.latest, name = "live") => {
  const alias = h("input", { type: "text", id: "move-alias", value: name, maxlength: 64, list: "move-aliases" });
  const to = h("input", { type: "text", id: "move-to", value: String(version), autofocus: true });
  const problem = h("div", {});
  let button = null;
  dialog(`Move an alias of ${workflow.name}`, (close) => h("form", { onsubmit: (event) => { event.preventDefault(); button.click(); } },
    h("datalist", { id: "move-aliases" }, Object.keys(workflow.aliases).map((one) => h("option", { value: one }))),
    field("Alias", alias),
    field("Leads to", to, "A version: 3. Or several with their shares: 3=90 4=10"),
    problem, h("div", { class: "actions" }, (button = action("Move", async () => {
      const called = alias.value.trim();
      try {
        const entry = await post(pathOf(workflow.name, "/alias"), { alias: called, ...targetOf(to.value), expected: workflow.aliases[called]?.weights ?? {} });
        close();
        await moved(entry, called, load);
      } catch (error) {
        saying(problem, error.message, true);
      }
    }, { kind: "primary" })))), { kind: "small" });
};

/** What `3`, `v3` or `3=90 4=10` asks for. */
export const targetOf = (text) => {
  const parts = text.trim().split(/[\s,]+/).map((part) => part.replace(/^v/i, "").split("="));
  if (parts.length === 1 && parts[0].length === 1) return { version: Number(parts[0][0]) };
  return { weights: Object.fromEntries(parts.map(([version, weight]) => [version, Number(weight)])) };
};

const HEADS = ["Version", "What is new", "By", "When", ""];
const KINDS = ["", "wrap", "", "", ""];

const versionCard = (workflow, page, isOwn, load) => {
  const cells = (version) => versionCells(workflow, version, isOwn, load);
  const more = h("div", { class: "actions" });
  const paintMore = (cursor) => replace(more, cursor ? action("Older ones", async () => {
    const next = await get(pathOf(workflow.name, "/versions"), { limit: 50, cursor, ...sourceOf(workflow) });
    card.querySelector("tbody").append(...rowsOf(next.versions.map(cells), KINDS).children);
    paintMore(next.next_cursor);
  }, { kind: "quiet small" }) : null);
  paintMore(page.next_cursor);
  const card = h("section", { class: "card" }, h("h2", {}, "Versions"), table("Versions", HEADS, page.versions.map(cells), KINDS), more);
  return card;
};

const versionCells = (workflow, version, isOwn, load) => [
  h("span", { class: "row" }, h("b", {}, `v${version.number}`), version.aliases.map((alias) => h("span", { class: "chip good" }, alias))),
  version.note || h("span", { class: "dim" }, "–"), version.created_by, time(version.created_at),
  h("span", { class: "row" },
    isOwn && !version.aliases.includes("live") ? action("Promote", async () => moved(await post(pathOf(workflow.name, "/alias"), { alias: "live", version: version.number, expected: workflow.aliases.live?.weights ?? {} }), "live", load), { kind: "small" }) : null,
    isOwn ? action("Alias", () => askMove(workflow, load, version.number, "staging"), { kind: "quiet small" }) : null,
    h("a", { class: "button quiet small", href: addressOf("run", workflow, { version: version.number }), "aria-label": `Run version ${version.number}` }, "Run"),
    action("JSON", () => saved(workflow, version.number), { kind: "quiet small", title: "Save the graph" })),
];

const saved = async (workflow, number) => {
  const { name } = workflow;
  const version = await get(pathOf(name, `/versions/${number}`), sourceOf(workflow));
  hand(new Blob([stringify(version.editors ?? version.workflow, 1)], { type: "application/json" }), `${name}-${number}.json`);
};

const retire = async (name) => {
  if (!(await confirm(`Retire ${name}?`, "It is hidden, and its runs are refused. Its versions stay: a push brings it back.", "Retire it"))) return;
  await del(pathOf(name));
  location.hash = "#/workflows";
};

/** What the workers say of the versions that run. */
const health = (workflow) => {
  const place = h("section", {});
  if (workflow.source === "operator") return null;
  get("workflows/doctor", { name: workflow.name }).then(({ versions, is_known }) => {
    const found = versions.filter((version) => version.findings.length && Boolean(version.version) === (workflow.source === OWN));
    replace(place, is_known ? null : h("p", { class: "dim" }, "No worker has told yet which nodes and models it has: run any job first, and its needs are checked."),
      is_known && !found.length ? h("p", { class: "good" }, "It has all nodes and models that it needs.") : null,
      found.map((version) => h("div", { class: "stack" }, versions.length > 1 ? h("h3", {}, `Version ${version.version}`) : null, findings(version.findings))));
  }, (error) => error.name === "AbortError" || replace(place, failure(error)));
  return place;
};

const inputTable = (inputs) =>
  inputs.length ? table("Inputs", ["Name", "Takes", "Unless set", "Goes to"], inputs.map((input) => [
    [h("b", {}, input.name), input.is_required ? h("span", { class: "dim" }, " (needed)") : null, input.description ? h("div", { class: "dim" }, input.description) : null],
    takes(input), input.default === null || input.default === undefined ? h("span", { class: "dim" }, "–") : String(input.default).slice(0, 120), h("code", {}, input.targets.join(", "))]), ["wrap", "wrap", "wrap", "wrap"]) : h("p", { class: "dim" }, "None: it runs as it stands.");

const takes = (input) => {
  if (input.kind === "choice") return `${input.choices?.length ?? "any"} choices`;
  const range = input.minimum !== undefined || input.maximum !== undefined ? ` ${input.minimum ?? "…"} – ${input.maximum ?? "…"}` : "";
  return `${{ text: "text", integer: "whole number", number: "number", boolean: "on or off", file: input.media || "file" }[input.kind] ?? input.kind}${range}`;
};

export default { name: "workflows", title: "Workflows", show };

// Run: choose a named workflow, or drop one; fill in the form made from its inputs; see it run.

import { ApiError, get, newId, post } from "./api.js";
import { formOf } from "./controls.js";
import { h, replace } from "./dom.js";
import { changed, fieldsOf, heldIn, initial, isSeed, kept, placed, requestOf, restored, valuesOf } from "./form.js";
import { everywhere, findings, looked, nameOf, readFile, saying, zone } from "./intake.js";
import { action, empty, failure, toast } from "./parts.js";
import { keyTag, runList } from "./runs.js";
import { all, keepAs, sourceWord } from "./named.js";

const LAST = "last:";
const MOST_TIMES = 20;
/** What was dropped, until another one is, or the key changes: {fileName, told, whose}. */
let dropped = null;

const show = async (root, [name], query) => {
  const place = h("div", { class: "stack" });
  const status = h("div", {});
  let shown = null;
  const list = runList((seeds) => shown?.useSeeds(seeds));
  const begin = async () => {
    saying(status, "");
    try {
      if (name) shown = await named(place, name, query, list);
      else if (query.get("from")) shown = await ofJob(place, query.get("from"), list);
      else if (dropped?.whose === keyTag()) shown = unnamed(place, dropped, list, again);
      else shown = await choice(place, take);
    } catch (error) {
      if (error.name !== "AbortError") replace(place, failure(error, begin));
    }
  };
  const again = () => { dropped = null; begin(); };
  const take = async (file) => {
    saying(status, `Reading ${file.name} …`);
    try {
      const { workflow, warnings } = await readFile(file, (share) => saying(status, `Uploading ${file.name}: ${Math.round(share * 100)} %`));
      const told = await looked(workflow);
      dropped = { fileName: file.name, told: { ...told, notes: [...warnings, ...told.notes] }, whose: keyTag() };
      if (name || query.toString()) location.hash = "#/run";
      else await begin();
      saying(status, "");
    } catch (error) {
      if (error.name === "AbortError") return;
      // A picture without a workflow may be meant for the form that is open.
      if (error.status === 422 && shown?.take?.([file])) {
        saying(status, "");
        toast(`${file.name} has no workflow inside: it is an input now.`);
      } else saying(status, error.message, true);
    }
  };
  const stop = everywhere((files) => (files.length > 1 && shown?.take?.(files) ? null : files[0] && take(files[0])));
  replace(root, h("div", { class: "run-page" }, h("div", { class: "stack" }, status, place), list.element));
  await begin();
  return () => {
    stop();
    list.end();
  };
};

/** The workflows that there are, and where to drop another one. */
const choice = async (place, take) => {
  const known = await all();
  const found = h("ul", { class: "cards" });
  const paint = (text) => {
    const words = text.toLowerCase().split(/\s+/);
    const fitting = known.filter((one) => words.every((word) => `${one.name} ${one.title}`.toLowerCase().includes(word)));
    replace(found, fitting.map((one) => h("li", {}, h("a", { class: "card link", href: addressOf(one) }, h("b", {}, one.name), one.title ? h("span", { class: "dim" }, one.title) : null, h("small", { class: "dim" }, sourceWord(one.source))))));
  };
  replace(place, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Run")), zone(take),
    known.length > 8 ? h("input", { type: "search", placeholder: `Search ${known.length} workflows`, "aria-label": "Search workflows", oninput: (event) => paint(event.target.value) }) : null,
    known.length ? found : empty("No named workflows yet", "Drop one to run it once; keep it under a name to run it again."));
  paint("");
  return null;
};

const addressOf = (one) => `#/run/${encodeURIComponent(one.name)}${one.source === "own" ? "" : `?source=${one.source}`}`;

const named = async (place, name, query, list) => {
  const which = Object.fromEntries(["alias", "version", "source"].map((part) => [part, query.get(part)]).filter(([, value]) => value));
  const path = `workflows/${encodeURIComponent(name)}`;
  const workflow = await get(path, which);
  const fields = fieldsOf(workflow.schema, workflow.inputs);
  const memory = `${LAST}${keyTag()}:${workflow.source}/${name}`;
  const held = { ...remembered(memory, fields), ...(query.get("from") ? await heldOfJob(fields, query.get("from")) : {}) };
  if (workflow.version === undefined) {
    replace(place, headOf(name), empty("Nothing runs under this name", "Its alias leads nowhere: promote a version first."));
    return null;
  }
  return formView(place, {
    head: headOf(name, [versionMenu(workflow, which), h("a", { class: "button quiet small", href: `#/workflows/${encodeURIComponent(name)}` }, "Versions")]),
    about: workflow.description ? h("p", { class: "dim about" }, workflow.description) : null,
    fields,
    held,
    list,
    called: name,
    remember: (now) => sessionStorage.setItem(memory, JSON.stringify(kept(fields, now))),
    forget: () => sessionStorage.removeItem(memory),
    send: (id, { values, held: now, metadata }) => post(`${path}/runs`, { inputs: changed(fields, values, now), metadata }, { query: which, idempotencyKey: id }),
  });
};

const unnamed = (place, { fileName, told }, list, again) =>
  formView(place, {
    head: headOf(fileName, [action("Keep it under a name", () => keepAs(told.workflow, nameOf(fileName)), { kind: "small" }), action("Another one", again, { kind: "quiet small" })]),
    about: findings(told.findings, told.notes),
    fields: told.fields,
    held: {},
    list,
    called: fileName,
    send: (id, { values, metadata }) => post("/generate", { ...requestOf(told.fields, values, told.workflow, metadata), job_id: id }),
  });

/** The workflow of an earlier job, with what it ran with. */
const ofJob = async (place, id, list) => {
  const { workflow } = await get(`jobs/${encodeURIComponent(id)}/workflow`);
  const told = await looked(workflow);
  return unnamed(place, { fileName: `Job ${id.slice(0, 13)}`, told }, list, () => { location.hash = "#/run"; });
};

const heldOfJob = async (fields, id) => {
  const { workflow, format } = await get(`jobs/${encodeURIComponent(id)}/workflow`);
  return heldIn(fields, format === "api" ? workflow : (await post("workflows/convert", { workflow })).workflow);
};

const headOf = (title, further = []) =>
  h("div", { class: "head" }, h("h1", { tabindex: "-1", class: "grow" }, title), ...further, h("a", { class: "button quiet small", href: "#/run" }, "All workflows"));

/** Which version runs: an alias, or a number. */
const versionMenu = (workflow, which) => {
  if (workflow.source === "image") return h("span", { class: "chip" }, "in the image");
  const names = [...new Set(["live", ...Object.keys(workflow.aliases), which.alias].filter(Boolean))];
  const now = which.version ? `v${which.version}` : (which.alias ?? "live");
  const told = (alias) => {
    const weights = Object.entries(workflow.aliases[alias]?.weights ?? {});
    return weights.length ? `${alias} (${weights.map(([version, weight]) => (weights.length > 1 ? `v${version} ${weight}` : `v${version}`)).join(", ")})` : alias;
  };
  const menu = h("select", { class: "small", "aria-label": "Version", onchange: () => {
    const [, version] = /^v(\d+)$/.exec(menu.value) ?? [];
    const query = new URLSearchParams({ ...(workflow.source === "operator" ? { source: "operator" } : {}), ...(version ? { version } : menu.value === "live" ? {} : { alias: menu.value }) });
    location.hash = `#/run/${encodeURIComponent(workflow.name)}${query.size ? `?${query}` : ""}`;
  } }, names.map((alias) => h("option", { value: alias }, told(alias))), which.version ? h("option", { value: now }, now) : null);
  menu.value = now;
  return menu;
};

/** The form, and the button that runs it. */
const formView = (place, { head, about, fields, held, list, called, send, remember = () => {}, forget = () => {} }) => {
  const form = formOf(fields, held, () => remember(form.held()));
  const times = h("input", { type: "number", min: 1, max: MOST_TIMES, value: 1, class: "times", "aria-label": "How many times" });
  const labels = h("input", { type: "text", placeholder: "campaign=autumn, market=nordics", id: "run-labels" });
  const problem = h("div", {});
  const submit = async () => {
    const now = form.held();
    const { values, problems } = valuesOf(fields, now);
    const { byField } = placed(fields, problems);
    saying(problem, "");
    form.problems(byField);
    if (problems.length) return;
    remember(now);
    const count = Math.min(MOST_TIMES, Math.max(1, Number(times.value) || 1));
    try {
      for (let turn = 1; turn <= count; turn += 1) list.add(await sent(send, { values, held: now, metadata: labelsOf(labels.value) }), called);
    } catch (error) {
      if (error.name !== "AbortError") refused(error);
    }
  };
  const refused = (error) => {
    const told = placed(fields, error.details?.errors);
    if (error.status === 422 && Object.keys(told.byField).length) form.problems(told.byField, told.others);
    else saying(problem, error.message, true);
  };
  const element = h("form", { class: "card", novalidate: true, onsubmit: (event) => event.preventDefault(), onkeydown: (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) button.click();
  } });
  const button = action("Run", submit, { kind: "primary", name: "play", title: "Ctrl + Enter" });
  element.append(form.element,
    h("details", {}, h("summary", {}, "Labels"), h("div", { class: "field" }, h("label", { for: "run-labels" }, "Labels of the job, to find it again by"), labels)), problem,
    h("div", { class: "run-bar" }, button, h("span", { class: "dim" }, "×"), times, h("span", { class: "grow" }),
      action("Reset", () => { forget(); form.fill(Object.fromEntries(fields.map((field) => [field.name, initial(field)]))); form.problems({}); }, { kind: "quiet small" })));
  replace(place, head, about, element);
  return {
    take: (files) => form.fileField(files[0]?.type)?.take(files) ?? false,
    useSeeds: (seeds) => form.fill(seedsOf(fields, seeds)),
  };
};

/** The seeds of a job, `node.input`, at the fields that lead there. */
const seedsOf = (fields, seeds) =>
  Object.fromEntries(fields.filter(isSeed).map((field) => [field.name, field.targets.map((target) => seeds[target]).find((seed) => seed !== undefined)])
    .filter(([, seed]) => seed !== undefined).map(([name, seed]) => [name, { digits: String(seed), isRandom: false }]));

/** Send a run; one whose answer was lost once more: it is the same run. */
const sent = async (send, asked) => {
  const id = newId();
  for (let tries = 1; ; tries += 1) {
    try {
      return await send(id, asked);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 0 || tries === 3) throw error;
    }
  }
};

const labelsOf = (text) =>
  Object.fromEntries(text.split(",").map((part) => part.split("=").map((word) => word.trim())).filter(([name, value]) => name && value));

const remembered = (memory, fields) => {
  for (const name of Object.keys(sessionStorage)) {
    if (name.startsWith(LAST) && !name.startsWith(`${LAST}${keyTag()}:`)) sessionStorage.removeItem(name); // another key's
  }
  try {
    return restored(fields, JSON.parse(sessionStorage.getItem(memory)));
  } catch {
    return {};
  }
};

export default { name: "run", title: "Run", show };

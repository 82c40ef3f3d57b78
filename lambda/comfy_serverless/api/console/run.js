// Run: choose a named workflow, or drop one; fill in the form made from its inputs; see it run.

import { ApiError, get, newId, post } from "./api.js";
import { formOf } from "./controls.js";
import { h, replace } from "./dom.js";
import { changed, fieldsOf, heldIn, initial, isSeed, kept, placed, requestOf, restored, valuesOf } from "./form.js";
import { addressOf, all, everywhere, findings, keepAs, keyTag, looked, memoryOf, nameOf, readFile, recalled, saying, sourceWord, store, zone } from "./intake.js";
import { OVER, watchJob } from "./live.js";
import { fileLink, full, isSound, isVideo } from "./media.js";
import { action, bar, dollars, duration, empty, failure, field, isPicture, shortId, statusChip, thumb, toast } from "./parts.js";

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
      if (name) shown = await namedOrJob(place, name, query, list);
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
    replace(found, fitting.map((one) => h("li", {}, h("a", { class: "card link", href: addressOf("run", one) }, h("b", {}, one.name), one.title ? h("span", { class: "dim" }, one.title) : null, h("small", { class: "dim" }, sourceWord(one.source))))));
  };
  replace(place, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Run")), zone(take),
    known.length > 8 ? h("input", { type: "search", placeholder: `Search ${known.length} workflows`, "aria-label": "Search workflows", oninput: (event) => paint(event.target.value) }) : null,
    known.length ? found : empty("No named workflows yet", "Drop one to run it once; keep it under a name to run it again."));
  paint("");
  return null;
};

/** A job's label may name a workflow that is not there, or no more: then it is the job's own. */
const namedOrJob = async (place, name, query, list) => {
  try {
    return await named(place, name, query, list);
  } catch (error) {
    if (error.status !== 404 || !query.get("from")) throw error;
    return ofJob(place, query.get("from"), list);
  }
};

const named = async (place, name, query, list) => {
  const which = Object.fromEntries(["alias", "version", "source"].map((part) => [part, query.get(part)]).filter(([, value]) => value));
  const path = `workflows/${encodeURIComponent(name)}`;
  const workflow = await get(path, which);
  const fields = fieldsOf(workflow.schema, workflow.inputs);
  const memory = memoryOf(`${workflow.source}/${name}`);
  const held = { ...restored(fields, recalled(memory)), ...(query.get("from") ? await heldOfJob(fields, query.get("from")) : {}) };
  if (workflow.version === undefined) {
    replace(place, headOf(name), empty("Nothing runs under this name", "Its alias leads nowhere: promote a version first."));
    return null;
  }
  return formView(place, {
    head: headOf(name, [versionMenu(workflow, which), h("a", { class: "button quiet small", href: addressOf("workflows", workflow) }, "Versions")]),
    about: workflow.description ? h("p", { class: "dim about" }, workflow.description) : null,
    fields,
    held,
    list,
    called: name,
    remember: (now) => store(memory, kept(fields, now)),
    forget: () => sessionStorage.removeItem(memory),
    send: (id, { values, held: now, metadata }) => post(`${path}/runs`, { inputs: changed(fields, values, now), metadata }, { query: which, idempotencyKey: id }),
  });
};

const unnamed = (place, { fileName, told, held = {} }, list, again) =>
  formView(place, {
    head: headOf(fileName, [action("Keep it under a name", () => keepAs(told.workflow, nameOf(fileName)), { kind: "small" }), action("Another one", again, { kind: "quiet small" })]),
    about: findings(told.findings, told.notes),
    fields: told.fields,
    held,
    list,
    called: fileName,
    send: (id, { values, metadata }) => post("/generate", { ...requestOf(told.fields, values, told.workflow, metadata), job_id: id }),
  });

/** The workflow of an earlier job, with what it ran with. */
const ofJob = async (place, id, list) => {
  const { workflow, seeds } = await earlierJob(id);
  const told = await looked(workflow);
  const held = seedsOf(told.fields, seeds);
  return unnamed(place, { fileName: `Job ${id.slice(0, 13)}`, told, held }, list, () => { location.hash = "#/run"; });
};

const heldOfJob = async (fields, id) => {
  const { workflow, format, seeds } = await earlierJob(id);
  const graph = format === "api" ? workflow : (await post("workflows/convert", { workflow })).workflow;
  return { ...heldIn(fields, graph), ...seedsOf(fields, seeds) };
};

/** What was submitted for a job, and the seeds that were drawn for it. */
const earlierJob = async (id) => {
  const path = `jobs/${encodeURIComponent(id)}`;
  const [submitted, { seeds }] = await Promise.all([get(`${path}/workflow`), get(path)]);
  return { ...submitted, seeds: seeds ?? {} };
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
    location.hash = addressOf("run", workflow, version ? { version } : menu.value === "live" ? {} : { alias: menu.value });
  } }, names.map((alias) => h("option", { value: alias }, told(alias))), which.version ? h("option", { value: now }, now) : null);
  menu.value = now;
  return menu;
};

/** The form, and the button that runs it. */
const formView = (place, { head, about, fields, held, list, called, send, remember = () => {}, forget = () => {} }) => {
  const form = formOf(fields, held, () => remember(form.held()));
  const times = h("input", { type: "number", min: 1, max: MOST_TIMES, value: 1, class: "times", "aria-label": "How many times" });
  const labels = h("input", { type: "text", placeholder: "campaign=autumn, market=nordics" });
  const problem = h("div", { class: "refusal" });
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
    h("details", {}, h("summary", {}, "Labels"), field("Labels of the job, to find it again by", labels)),
    h("div", { class: "run-bar" }, problem, button, h("span", { class: "dim" }, "×"), times, h("span", { class: "grow" }),
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

/** `campaign=autumn, market=nordics` */
export const labelsOf = (text) =>
  Object.fromEntries(text.split(",").map((part) => part.split(/=(.*)/s).map((word) => word.trim())).filter(([name, value]) => name && value));

/** Watched at once; those behind them wait for their turn anyhow. */
const MOST_WATCHED = 2;
const MOST_KEPT = 40;
const MOST_AGAIN = 12;
const SHOWN_PREVIEWS = /^image\/(png|jpeg|webp)$/;

let runs = [];
let whose = "";

/**
 * The list of runs of this tab, as long as its page is shown.
 * @param useSeeds called with the seeds of a job, and the job, to keep them
 * @returns {{element, add(job, name), end()}}
 */
export const runList = (useSeeds) => {
  if (whose !== keyTag()) {
    runs = [];
    whose = keyTag();
  }
  const memory = memoryOf("runs");
  const told = h("p", { class: "sr", role: "status" });
  const list = h("ol", { class: "runs", "aria-label": "Runs" });
  const nothing = empty("Nothing run yet", "What you run is shown here while it runs.");
  const stops = [];
  const pump = () => {
    const waiting = runs.filter((run) => !run.isOver);
    for (const run of waiting.slice(0, MOST_WATCHED)) if (!run.isWatched) watch(run);
    nothing.hidden = runs.length > 0;
  };
  const watch = (run) => {
    run.isWatched = true;
    const end = async (error) => {
      run.isWatched = false;
      try {
        run.job = await get(`jobs/${encodeURIComponent(run.job.id)}`);
      } catch (problem) {
        if (problem.name === "AbortError") return;
        error = problem;
      }
      if (OVER.has(run.job.status)) {
        run.isOver = true;
        run.preview = "";
        replace(told, `${run.name}: ${run.job.status}`);
      } else if (error) {
        run.isOver = true;
        run.problem = error.message;
      }
      run.paint();
      pump();
    };
    stops.push(watchJob(run.job, {
      status: ({ status, queue_position }) => { Object.assign(run.job, { status, queue_position }); run.paint(); },
      progress: (progress) => { run.job.progress = progress; run.paint(); },
      preview: ({ content_type, data_base64 }) => {
        if (SHOWN_PREVIEWS.test(content_type)) run.preview = `data:${content_type};base64,${data_base64}`;
        run.paint();
      },
      end,
    }));
  };
  const card = (run) => {
    const head = h("header", {});
    const stage = h("div", { class: "stage" });
    const foot = h("div", { class: "foot" });
    const element = h("li", { class: "card run", "aria-label": run.name }, head, stage, foot);
    let before = "";
    run.paint = () => {
      const { job } = run;
      const now = `${job.status} ${run.isOver} ${run.problem ?? ""}`;
      if (now !== before) {
        before = now;
        replace(head, statusChip(job.status), h("b", { class: "grow" }, run.name), shortId(job.id),
          OVER.has(job.status) ? null : action("Cancel", () => post(`jobs/${encodeURIComponent(job.id)}/cancel`), { kind: "quiet small" }),
          h("a", { class: "button quiet small", href: `#/jobs/${encodeURIComponent(job.id)}` }, "Open"));
        replace(foot, footOf(run, useSeeds));
        if (run.isOver) replace(stage, resultOf(run));
      }
      if (!run.isOver) live(stage, run);
    };
    run.paint();
    return element;
  };
  const shown = () => {
    replace(list, [...runs].reverse().map(card));
    runs.forEach((run) => { run.isWatched = false; });
    pump();
  };
  const keep = () => store(memory, runs.slice(-MOST_AGAIN).map(({ job, name }) => [job.id, name]));
  /** Those of before a reload. */
  const remember = async () => {
    const found = await Promise.all((recalled(memory) ?? []).map(([id, name]) => get(`jobs/${encodeURIComponent(id)}`).then((job) => ({ job, name, isOver: OVER.has(job.status), isWatched: false, preview: "" }), () => null)));
    const known = new Set(runs.map((run) => run.job.id));
    runs = [...found.filter((run) => run && !known.has(run.job.id)), ...runs];
    shown();
  };
  if (runs.length) shown();
  else remember();
  return {
    element: h("section", { class: "stack", "aria-label": "Runs of this tab" }, told, nothing, list),
    add: (job, name) => {
      const run = { job, name, isOver: OVER.has(job.status), isWatched: false, preview: "" };
      runs = [...runs, run].slice(-MOST_KEPT);
      keep();
      list.prepend(card(run));
      while (list.children.length > MOST_KEPT) list.lastChild.remove();
      pump();
    },
    end: () => stops.forEach((stop) => stop()),
  };
};

const live = (stage, { job, preview }) => {
  const image = stage.querySelector("img.preview");
  if (preview && image) image.src = preview;
  const words = job.status === "queued" ? (job.queue_position ? `${job.queue_position} before it` : "waits for a worker") : (job.progress?.message ?? "runs");
  const line = [bar(job.status === "queued" ? null : job.progress?.value, `Progress of ${job.id}`), h("p", { class: "dim message" }, words)];
  const box = stage.querySelector(".going");
  if (box && Boolean(preview) === Boolean(image)) replace(box, line);
  else replace(stage, preview ? h("img", { class: "preview", alt: "Preview", src: preview }) : null, h("div", { class: "going" }, line));
};

const resultOf = ({ job, problem }) => {
  if (problem) return h("div", { class: "notice bad" }, h("p", {}, problem));
  const { error, outputs } = job;
  return [
    error ? h("div", { class: "notice bad" }, h("b", {}, error.code), h("p", {}, error.message), error.node_id ? h("small", {}, `node ${error.node_id}${error.class_type ? `, ${error.class_type}` : ""}`) : null) : null,
    outputs.length ? h("div", { class: `made${outputs.length === 1 ? " one" : ""}` }, outputs.slice(0, 12).map(outputOf)) : error ? null : h("p", { class: "dim" }, job.status === "succeeded" ? "It made nothing." : null),
    outputs.length > 12 ? h("p", { class: "dim" }, `and ${(job.outputs_total ?? outputs.length) - 12} more`) : null,
  ];
};

const outputOf = (output) => {
  if (isVideo(output) || isSound(output)) return full(output);
  return fileLink(output, isPicture(output) ? full(output) : [thumb(output, { size: 64 }), h("span", {}, output.name)]);
};

const footOf = ({ job, isOver }, useSeeds) => {
  if (!isOver) return null;
  const seeds = Object.values(job.seeds ?? {});
  const took = job.started_at ? duration(new Date(job.completed_at) - new Date(job.started_at)) : null;
  return [
    seeds.length ? h("span", {}, "seed ", h("code", {}, String(seeds[0]))) : null,
    seeds.length && useSeeds ? action("Keep this seed", () => useSeeds(job.seeds), { kind: "quiet small" }) : null,
    h("span", { class: "grow" }),
    took ? h("span", { class: "dim" }, took) : null,
    job.cost_usd ? h("span", { class: "dim" }, dollars(job.cost_usd)) : null,
  ];
};

export default { name: "run", title: "Run", show };

// One job: what it made, how far it is, why it failed, where its time went, and how to do it again.

import { baseUrl, get, post } from "./api.js";
import { h, replace } from "./dom.js";
import { graphView } from "./graph.js";
import { OVER, watchJob } from "./live.js";
import { again, caption, changesOf, download, full, isShown, isSound, isText, isVideo, lightbox, name, tile } from "./media.js";
import { action, bar, bytes, copyButton, dollars, duration, facts, icon, isPicture, labels, number, statusChip, time, toast } from "./parts.js";
import { snippets } from "./snippets.js";

const FIRST_OUTPUTS = 24;
const LISTED = 100;
/** The phases of a job, in their order, as `timings_ms` names them; `queue` is all its waiting. */
const PHASES = [
  ["queue", "waiting"], ["preparing", "preparing"], ["fetching", "fetching inputs"], ["models", "fetching models"], ["loading", "loading models"],
  ["executing", "executing"], ["delivering", "delivering"], ["overhead", "overhead"],
];

const show = async (root, [id]) => {
  const path = `jobs/${encodeURIComponent(id)}`;
  let job = await get(path);
  let graph = null;
  const parts = Object.fromEntries(["head", "live", "made", "error", "times", "facts", "notes"].map((part) => [part, h("div", { class: "part" })]));
  const said = h("p", { class: "sr", role: "status" });
  const shape = h("section", { class: "card", "aria-label": "Graph" });

  const paint = () => {
    document.title = `${titleOf(job)}: ${job.status} – comfy-serverless`;
    replace(parts.head, head(job, { cancel, reload }));
    replace(parts.live, OVER.has(job.status) ? null : live.element);
    replace(parts.error, job.error ? errorOf(job) : null);
    replace(parts.times, times(job));
    replace(parts.facts, about(job));
    replace(parts.notes, notes(job));
    paintGraph();
  };
  const paintGraph = () => graph?.update({
    failed: job.error?.node_id, running: OVER.has(job.status) ? null : job.progress?.current_node, nodesMs: job.nodes_ms ?? {},
  });
  const made = outputs(job, path);
  replace(parts.made, made.element);
  const live = liveView();

  const cancel = async () => {
    job = { ...job, ...(await post(`${path}/cancel`)) };
    toast(job.status === "canceled" ? "The job is canceled." : "The job is being canceled.");
    paint();
  };
  const reload = async () => {
    job = await get(path);
    paint();
    made.update(job);
  };

  replace(root, parts.head, said,
    h("div", { class: "job-page" },
      h("div", { class: "stack" }, parts.live, parts.error, parts.made, shape),
      h("aside", { class: "stack", "aria-label": "About this job" }, parts.facts, parts.times, parts.notes, logOf(path, () => job), asProgram(path, () => job))));
  paint();
  showGraph(path, shape).then((view) => {
    graph = view;
    paintGraph();
  }, (error) => error.name === "AbortError" || replace(shape, h("h2", {}, "Graph"), h("p", { class: "dim" }, error.message)));
  if (OVER.has(job.status)) return undefined;
  let told = job.status;
  const stop = watchJob({ ...job }, {
    status: (state) => {
      if (state.status !== told) replace(said, `The job is ${state.status}.`);
      told = state.status;
      job = { ...job, ...state };
      if (!OVER.has(state.status)) {
        live.state(job);
        replace(parts.head, head(job, { cancel, reload }));
      }
    },
    progress: (progress) => {
      job = { ...job, progress };
      live.progress(progress);
      paintGraph();
    },
    preview: live.preview,
    output: (output) => made.add(output),
    end: () => reload().catch((error) => error.name === "AbortError" || toast(error.message, "bad")),
  });
  live.state(job);
  const clock = setInterval(() => live.tick(job), 1000);
  return () => {
    stop();
    clearInterval(clock);
    live.close();
  };
};

const titleOf = (job) => {
  const { workflow, version } = job.metadata ?? {};
  return workflow ? `${workflow}${version ? `@${version}` : ""}` : `Job ${job.id.slice(0, 13)}`;
};

const head = (job, { cancel }) => {
  const isOver = OVER.has(job.status);
  return h("div", { class: "head" },
    h("a", { class: "button quiet icon-only", href: "#/jobs", "aria-label": "To all jobs", title: "All jobs" }, icon("left")),
    h("h1", { tabindex: "-1" }, titleOf(job)), statusChip(job.status), h("span", { class: "grow" }),
    isOver ? null : action("Cancel", cancel, { kind: "danger", name: "stop", disabled: job.status === "canceling" }),
    h("a", { class: "button", href: changesOf({ job_id: job.id, metadata: job.metadata }) }, icon("edit"), "Run with changes"),
    action("Run again", async () => {
      location.hash = `#/jobs/${encodeURIComponent((await again(job)).id)}`;
    }, { kind: isOver ? "primary" : "", name: "again" }));
};

/** What runs: how far, what it does, and the newest preview. */
const liveView = () => {
  const far = h("div", {});
  const message = h("span", { class: "dim" }, "");
  const since = h("span", { class: "dim", "data-varies": "" });
  const picture = h("div", { class: "preview", hidden: true });
  let address = null;
  return {
    element: h("section", { class: "card live", "aria-label": "Progress" }, h("div", { class: "row between" }, message, since), far, picture),
    state(job) {
      if (job.status !== "queued") return void this.progress(job.progress);
      const place = job.queue_position;
      replace(message, place === null || place === undefined ? "Waits for a worker" : `Waits for a worker: number ${place + 1} in the queue`);
      replace(far, bar(null, "Waiting"));
    },
    progress(progress) {
      if (!progress) {
        replace(message, "Begins");
        replace(far, bar(null, "Progress of the job"));
        return;
      }
      replace(message, progress.message ?? "", progress.nodes_total ? h("span", {}, ` · node ${progress.nodes_done} of ${progress.nodes_total}`) : null);
      const old = far.firstElementChild;
      if (old?.hasAttribute("aria-valuenow")) {
        old.setAttribute("aria-valuenow", Math.round(progress.value * 100));
        old.firstChild.style.setProperty("transform", `scaleX(${progress.value})`);
      } else replace(far, bar(progress.value, "Progress of the job"));
    },
    preview({ content_type: type, data_base64: data }) {
      if (!/^image\/(png|jpeg|webp)$/.test(type)) return;
      const old = address;
      address = URL.createObjectURL(new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], { type }));
      const image = picture.firstChild ?? h("img", { alt: "Preview of the picture that is being made" });
      image.src = address;
      if (!picture.firstChild) picture.append(image);
      picture.hidden = false;
      if (old) URL.revokeObjectURL(old);
    },
    tick(job) {
      const from = job.started_at ?? job.created_at;
      replace(since, duration(Math.max(0, Date.now() - new Date(from))).replace(/\.\d/, ""));
    },
    close: () => address && URL.revokeObjectURL(address),
  };
};

/** All outputs: those that can be shown in a grid, texts and sounds as they are, files as links. */
const outputs = (first, path) => {
  let job = first;
  let listed = [...(job.outputs ?? [])];
  let shown = FIRST_OUTPUTS;
  let cursor = null;
  const element = h("section", { class: "card", "aria-label": "Outputs" });
  const seeded = () => listed.map((output) => ({ seeds: job.seeds, metadata: job.metadata, ...output }));
  const paint = () => {
    const total = Math.max(job.outputs_total ?? 0, listed.length);
    element.hidden = !listed.length;
    const all = seeded();
    const open = (output) => {
      const pictures = all.filter(isShown);
      lightbox(pictures, pictures.findIndex((one) => one.id === output.id), { isInJob: true });
    };
    const part = all.slice(0, shown);
    const looks = part.filter((output) => isPicture(output) || isVideo(output));
    const others = part.filter((output) => !looks.includes(output));
    replace(element,
      h("header", {}, h("h2", {}, total === 1 ? "Output" : `${number(total)} outputs`), h("span", { class: "grow" }), total > 1 && total === listed.length ? action("Download all", () => saveAll(listed), { kind: "quiet small", name: "save" }) : null),
      looks.length === 1 && all.length === 1 ? one(looks[0], open) : h("div", { class: "grid" }, looks.map((output) => tile(output, () => open(output)))),
      others.length ? h("ul", { class: "file-list" }, others.map(asRow)) : null,
      shown < total ? h("div", { class: "row center" }, action(`Show more (${number(total - shown)})`, more, { kind: "quiet" })) : null);
  };
  const more = async () => {
    shown += LISTED;
    if (shown > listed.length && (job.outputs_total ?? 0) > listed.length) {
      const page = await get(`${path}/outputs`, { limit: LISTED, cursor: cursor ?? String(listed.length) });
      cursor = page.next_cursor ?? null;
      listed = [...listed, ...page.outputs];
    }
    paint();
  };
  paint();
  return {
    element,
    add(output) {
      if (listed.some((one) => one.id === output.id)) return;
      listed = [...listed, output];
      paint();
    },
    update(newest) {
      job = newest;
      const ids = new Set(newest.outputs.map((output) => output.id));
      const isSame = listed.length === newest.outputs.length && listed.every((output) => ids.has(output.id));
      if (!isSame || !listed.length) listed = [...newest.outputs];
      else listed = listed.map((output) => ({ ...output, thumb_url: output.thumb_url ?? newest.outputs.find((other) => other.id === output.id)?.thumb_url }));
      paint();
    },
  };
};

/** The only output, large. */
const one = (output, open) =>
  h("figure", { class: "single" },
    isPicture(output) ? h("button", { type: "button", class: "piece-open", "aria-label": `Open ${name(output)}`, onclick: () => open(output) }, full(output)) : full(output),
    h("figcaption", { class: "row between" }, h("span", { class: "dim" }, caption(output)), download(output, "Download", "quiet small")));

const asRow = (output) =>
  h("li", {}, h("div", { class: "row between" }, h("span", { class: "row" }, icon(isSound(output) ? "audio" : isText(output) ? "text" : output.type === "3d" ? "cube" : "file"),
    h("span", { class: "cut" }, name(output)), h("span", { class: "dim" }, bytes(output.size_bytes))), download(output, "Download", "quiet small")),
  isSound(output) || isText(output) ? full(output) : null);

const saveAll = async (all) => {
  for (const output of all) {
    const button = download(output);
    button.click();
    while (button.getAttribute("aria-busy")) await new Promise((done) => setTimeout(done, 50));
  }
};

const errorOf = ({ error }) =>
  h("section", { class: "notice bad error", "aria-label": "Error" },
    h("div", { class: "row" }, icon("warn"), h("b", {}, error.code), error.node_id ? h("span", { class: "chip bad" }, `node ${error.node_id}${error.class_type ? ` ${error.class_type}` : ""}`) : null,
      error.retryable ? h("span", { class: "chip" }, "may work when run again") : null),
    h("p", {}, error.message),
    error.traceback ? h("details", {}, h("summary", {}, "Traceback"), h("pre", { tabindex: "0" }, error.traceback)) : null,
    Object.keys(error.details ?? {}).length ? h("details", {}, h("summary", {}, "Details"), h("pre", { tabindex: "0" }, JSON.stringify(error.details, null, 2))) : null);

/** Where the time went, as one bar and its legend; and the nodes that took longest. */
export const phasesOf = (job) => {
  const told = { ...(job.timings_ms ?? {}) };
  told.queue = (job.metrics?.queue_ms ?? 0) + (told.queued ?? 0); // for a worker, and then for its other jobs
  const without = (whole, ...parts) => {
    if (told[whole]) told[whole] = Math.max(0, parts.reduce((left, part) => left - (told[part] ?? 0), told[whole]));
  };
  without("overhead", "preparing", "delivering"); // first: `preparing` is whole here
  without("preparing", "fetching", "models");
  without("executing", "loading");
  const known = new Set([...PHASES.map(([key]) => key), "total", "queued"]);
  const further = Object.keys(told).filter((key) => !known.has(key)).map((key) => [key, key.replaceAll("_", " ")]);
  return [...PHASES, ...further].map(([key, text]) => ({ key, text, ms: told[key] })).filter(({ ms }) => ms > 0);
};

const times = (job) => {
  const phases = phasesOf(job);
  if (!phases.length) return null;
  const total = phases.reduce((sum, { ms }) => sum + ms, 0);
  const nodes = Object.entries(job.nodes_ms ?? {}).sort(([, one], [, other]) => other - one);
  const longest = nodes[0]?.[1] ?? 1;
  return h("section", { class: "card", "aria-label": "Time" },
    h("header", {}, h("h2", {}, "Time"), h("span", { class: "grow" }), h("span", { class: "dim", "data-varies": "" }, duration(total))),
    h("div", { class: "phases", "aria-hidden": "true" }, phases.map(({ key, ms }) => h("i", { class: `phase-${key}`, style: { "flex-grow": ms } }))),
    h("ul", { class: "legend" }, phases.map(({ key, text, ms }) => h("li", {}, h("i", { class: `phase-${key}` }), h("span", {}, text), h("span", { class: "dim", "data-varies": "" }, duration(ms))))),
    nodes.length ? h("details", {}, h("summary", {}, `${nodes.length} node${nodes.length > 1 ? "s" : ""} by time`),
      h("ol", { class: "nodes" }, nodes.slice(0, 50).map(([id, ms]) => h("li", {}, h("code", {}, id), bar(ms / longest, `Node ${id}`, "accent"), h("span", { class: "dim" }, duration(ms)))))) : null);
};

const about = (job) =>
  h("section", { class: "card", "aria-label": "Facts" }, facts([
    ["Job", h("span", { class: "row tightly" }, h("code", { class: "id whole" }, job.id), copyButton(job.id, "Copy"))],
    ["Submitted", time(job.created_at)], ["Started", job.started_at ? time(job.started_at) : null], ["Ended", job.completed_at ? time(job.completed_at) : null],
    ["Kept until", h("span", { "data-varies": "" }, new Date(job.expires_at).toLocaleDateString())],
    ["Labels", Object.keys(job.metadata ?? {}).length ? labels(job.metadata, 12) : null],
    ...Object.entries(job.seeds ?? {}).slice(0, 8).map(([place, seed]) => [`Seed ${place}`, h("code", {}, String(seed))]),
    ["Cost, estimated", job.cost_usd === null || job.cost_usd === undefined ? null : dollars(job.cost_usd)],
    ["GPU memory at its peak", job.metrics?.gpu_memory_peak_mb ? `${number(job.metrics.gpu_memory_peak_mb)} MB` : null],
    ["Engine", job.engine], ["Image", job.release_version ? h("code", {}, job.release_version.slice(0, 12)) : null],
  ]));

const notes = (job) => (job.warnings?.length ? h("section", { class: "notice warn", "aria-label": "Warnings" },
  h("b", {}, job.warnings.length === 1 ? "A warning" : `${job.warnings.length} warnings`), h("ul", { class: "plain" }, job.warnings.map((text) => h("li", {}, text)))) : null);

const logOf = (path, job) => {
  const box = h("div", {});
  const load = async () => {
    replace(box, h("p", { class: "dim" }, "…"));
    try {
      const log = await get(`${path}/log`);
      replace(box, log.note ? h("p", { class: "dim" }, log.note) : null,
        log.lines?.length ? h("pre", { tabindex: "0", "aria-label": "Log lines" }, log.lines.join("\n")) : h("p", { class: "dim" }, "No lines are kept of this job."),
        log.is_complete === false || !OVER.has(job().status) ? action("Newer lines", load, { kind: "quiet small", name: "again" }) : null);
    } catch (error) {
      if (error.name !== "AbortError") replace(box, h("p", { class: "dim" }, error.message));
    }
  };
  return h("details", { class: "card fold", ontoggle: (event) => event.target.open && !box.firstChild && load() }, h("summary", {}, h("h2", {}, "Log")), box);
};

const showGraph = async (path, box) => {
  const { workflow } = await get(`${path}/workflow`);
  const picked = h("div", { role: "status" });
  const view = graphView(workflow, {
    onPick: (node) => replace(picked, h("div", { class: "picked-node" }, h("h3", {}, `${node.id} ${node.title}`), h("span", { class: "dim" }, node.type),
      facts(Object.entries(node.inputs).map(([key, value]) => [key, h("code", {}, Array.isArray(value) ? `← ${value[0]}` : String(typeof value === "object" ? JSON.stringify(value) : value).slice(0, 400))])))),
  });
  const list = h("details", {}, h("summary", {}, "Nodes as a list"),
    h("ul", { class: "plain node-list" }, view.nodes.map((node) => h("li", {}, h("code", {}, node.id), " ", node.title === node.type ? node.type : `${node.title} (${node.type})`))));
  replace(box, h("header", {}, h("h2", {}, "Graph"), h("span", { class: "dim" }, `${view.nodes.length} node${view.nodes.length === 1 ? "" : "s"}`), h("span", { class: "grow" }), view.tools), view.element, picked, list);
  return view;
};

/** The job as a program, in three languages. */
const asProgram = (path, job) => {
  const box = h("div", {});
  const load = async () => {
    let { workflow, format } = await get(`${path}/workflow`);
    if (format === "save") workflow = (await post("workflows/convert", { workflow }).catch(() => ({ workflow }))).workflow;
    const programs = snippets(baseUrl(), workflow, job().metadata ?? {});
    const text = h("pre", { tabindex: "0", "aria-label": "Program" });
    let chosen = "curl";
    const tab = (kind, label) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(kind === chosen), "data-kind": kind, onclick: () => pick(kind),
    }, label);
    const tabs = h("div", { class: "row", role: "group", "aria-label": "Language" }, tab("curl", "curl"), tab("python", "Python"), tab("typescript", "TypeScript"), h("span", { class: "grow" }), copyButton(() => programs[chosen]));
    const pick = (kind) => {
      chosen = kind;
      for (const one of tabs.querySelectorAll("[data-kind]")) one.setAttribute("aria-pressed", String(one.dataset.kind === kind));
      replace(text, programs[kind]);
    };
    pick(chosen);
    replace(box, tabs, text);
  };
  return h("details", {
    class: "card fold", ontoggle: (event) => event.target.open && !box.firstChild && load().catch((error) => replace(box, h("p", { class: "dim" }, error.message))),
  }, h("summary", {}, h("h2", {}, "As a program")), box);
};

export default { name: "job", title: "Job", show };

// Runs that this tab has begun: each a card with its progress, preview and results, the newest first.

import { get, key, post } from "./api.js";
import { h, replace } from "./dom.js";
import { OVER, watchJob } from "./live.js";
import { action, bar, dollars, duration, empty, isPicture, shortId, statusChip, thumb } from "./parts.js";

/** Watched at once; those behind them wait for their turn anyhow. */
const MOST_WATCHED = 2;
const MOST_KEPT = 40;
const SHOWN_PREVIEWS = /^image\/(png|jpeg|webp)$/;

let runs = [];
let whose = "";

/** A few letters that differ from key to key, and tell nothing of it. */
export const keyTag = () => {
  let hash = 5381;
  for (const letter of key()) hash = (hash * 33 + letter.charCodeAt(0)) >>> 0;
  return hash.toString(36);
};

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
  replace(list, [...runs].reverse().map(card));
  runs.forEach((run) => { run.isWatched = false; });
  pump();
  return {
    element: h("section", { class: "stack", "aria-label": "Runs of this tab" }, told, nothing, list),
    add: (job, name) => {
      const run = { job, name, isOver: OVER.has(job.status), isWatched: false, preview: "" };
      runs = [...runs, run].slice(-MOST_KEPT);
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
  const link = (content) => h("a", { href: output.url, target: "_blank", rel: "noopener", title: output.name }, content);
  if (isPicture(output)) return link(h("img", { src: output.url, alt: output.name, loading: "lazy", width: output.width, height: output.height }));
  if (output.type === "video" || output.type === "audio") return h(output.type, { src: output.url, controls: true, preload: "metadata", "aria-label": output.name });
  return link([thumb(output, { size: 64 }), h("span", {}, output.name)]);
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

// All jobs of the key's owner, newest first. What runs moves; what has ended shows what it made, or why it did not.

import { get, post } from "./api.js";
import { h, replace } from "./dom.js";
import { OVER, watchList } from "./live.js";
import { again } from "./media.js";
import { STATUSES, action, askedLabels, bar, duration, empty, failure, icon, labelFilter, labelPair, labels, shortId, statusChip, thumb, time, toast } from "./parts.js";
import { windowed } from "./windowed.js";

const PAGE = 100;
const EXPAND = "outputs,progress,error";
const SINCE = { "": "Any time", "1h": "Last hour", "24h": "Last day", "7d": "Last 7 days" };
const HOURS = { "1h": 1, "24h": 24, "7d": 168 };
/** With nothing that waits or runs, an API without a stream is asked less often. */
const QUIET_TURNS = 5;

/** What of the address filters: {status, labels: ["name=value"], since}. */
export const filtersOf = (query) => ({
  status: STATUSES.includes(query.get("status")) ? query.get("status") : "",
  labels: [...query.getAll("label"), ...(query.get("workflow") ? [`workflow=${query.get("workflow")}`] : [])].filter((text) => text.includes("=")),
  since: Object.hasOwn(HOURS, query.get("since")) ? query.get("since") : "",
});

/** The same as parameters of the API's list. */
export const asked = (filters, now = Date.now()) => {
  const query = { status: filters.status, ...askedLabels(filters.labels) };
  if (filters.since) query.created_after = new Date(now - HOURS[filters.since] * 3_600_000).toISOString();
  return query;
};

/** Whether a job that was just told belongs into the list. */
export const fits = (job, filters, now = Date.now()) =>
  (!filters.status || job.status === filters.status) &&
  filters.labels.every((text) => {
    const [name, value] = labelPair(text);
    return job.metadata?.[name] === value;
  }) &&
  (!filters.since || now - new Date(job.created_at) < HOURS[filters.since] * 3_600_000);

/** Newest first, each once; what was told last counts. */
export const merged = (jobs, news) => {
  const known = new Map(jobs.map((job) => [job.id, job]));
  for (const job of news) {
    const old = known.get(job.id);
    if (!old || JSON.stringify(signature(old)) !== JSON.stringify(signature(job))) known.set(job.id, job);
  }
  return [...known.values()].sort((one, other) => (one.created_at < other.created_at ? 1 : one.created_at > other.created_at ? -1 : one.id < other.id ? 1 : -1));
};

/** What of a job a row shows: links are made anew with each answer, and an old one still works. */
const signature = (job) => [job.status, job.started_at, job.completed_at, job.progress, job.error, job.outputs_total, job.outputs?.map((one) => [one.id, Boolean(one.thumb_url)])];

const show = async (root, _params, query) => {
  let filters = filtersOf(query);
  let jobs = [];
  let cursor = null;
  let turn = 0;
  let isLoading = false;
  let quiet = 0;

  const list = windowed({
    label: "Jobs", keyOf: (job) => job.id, render: row, rowHeight: () => (window.innerWidth <= 760 ? 76 : 60),
    onNearEnd: () => cursor && !isLoading && more(),
  });
  const note = h("div", {});
  const mode = h("span", { class: "live-mode dim" });
  const bars = h("div", { class: "filters" });
  const count = h("span", { class: "dim", "data-varies": "" });

  const paint = () => {
    list.update(jobs);
    replace(count, jobs.length ? `${jobs.length}${cursor ? "+" : ""}` : null);
    paintCounts();
    list.element.hidden = !jobs.length;
    replace(note, jobs.length || isLoading ? null : isFiltered(filters)
      ? empty("No job fits", "Change the filters, or look for all of them.", action("Show all", () => change({ status: "", labels: [], since: "" })))
      : empty("No jobs yet", "Choose a workflow, fill in its form, and watch it run.", h("a", { class: "button primary", href: "#/run" }, icon("play"), "Run a workflow")));
  };

  const take = (news) => {
    jobs = merged(jobs, news).filter((job) => fits(job, filters));
    paint();
  };

  const load = async () => {
    const mine = ++turn;
    isLoading = true;
    try {
      const page = await get("jobs", { limit: PAGE, expand: EXPAND, ...asked(filters) });
      if (mine !== turn) return;
      [jobs, cursor] = [page.jobs, page.next_cursor ?? null];
      replace(note);
    } catch (error) {
      if (mine !== turn || error.name === "AbortError") return;
      isLoading = false;
      replace(note, failure(error, load));
      return;
    }
    isLoading = false;
    paint();
  };

  const more = async () => {
    const mine = turn;
    isLoading = true;
    try {
      const page = await get("jobs", { limit: PAGE, expand: EXPAND, cursor, ...asked(filters) });
      if (mine !== turn) return;
      cursor = page.next_cursor ?? null;
      take(page.jobs);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
      cursor = null;
    } finally {
      isLoading = false;
    }
  };

  /** Ask for what is new: the newest page, and what still ran further down. */
  const poll = async () => {
    const open = jobs.filter((job) => !OVER.has(job.status));
    quiet = open.length ? 0 : quiet + 1;
    if (quiet % QUIET_TURNS) return;
    const mine = turn;
    const page = await get("jobs", { limit: open.length > 20 ? PAGE : 25, expand: EXPAND, ...asked(filters) });
    if (mine !== turn) return;
    const told = new Set(page.jobs.map((job) => job.id));
    const oldest = page.jobs.at(-1)?.created_at ?? "";
    const deeper = open.filter((job) => !told.has(job.id) && (job.created_at < oldest || filters.status));
    const rest = await Promise.all(deeper.slice(0, 10).map((job) => get(`jobs/${encodeURIComponent(job.id)}`)));
    if (mine === turn) take([...page.jobs, ...rest]);
  };

  const change = (next) => {
    filters = { ...filters, ...next };
    const query = new URLSearchParams();
    if (filters.status) query.set("status", filters.status);
    for (const text of filters.labels) query.append("label", text);
    if (filters.since) query.set("since", filters.since);
    history.replaceState(null, "", `#/jobs${query.size ? `?${query}` : ""}`);
    paintFilters();
    return load();
  };

  const chips = new Map();
  const paintCounts = () => {
    const counts = {};
    for (const job of jobs) counts[job.status] = (counts[job.status] ?? 0) + 1;
    for (const [status, chip] of chips) {
      chip.button.hidden = status === "expired" && !counts.expired && filters.status !== status;
      const known = filters.status ? (status === filters.status ? jobs.length : null) : counts[status] ?? 0;
      replace(chip.number, known === null || status === "" ? null : `${known}${cursor && known ? "+" : ""}`);
    }
  };

  const paintFilters = () => {
    chips.clear();
    const chip = (status, text) => {
      const counted = h("span", { class: "count" });
      const button = h("button", {
        type: "button", class: `chip status ${status}`, "aria-pressed": String(filters.status === status), onclick: () => change({ status }),
      }, text, counted);
      chips.set(status, { number: counted, button });
      return button;
    };
    replace(bars,
      h("div", { class: "row", role: "group", "aria-label": "Status" }, chip("", "All"), ["queued", "running", "succeeded", "failed", "canceled", "expired"].map((status) => chip(status, status))),
      h("div", { class: "row grow end" },
        labelFilter(filters.labels, (labels) => change({ labels }), () => jobs.flatMap((job) => Object.entries(job.metadata ?? {}).map((pair) => pair.join("=")))),
        h("span", { class: "narrow" }, h("select", { "aria-label": "Submitted", onchange: (event) => change({ since: event.target.value }) },
          Object.entries(SINCE).map(([value, text]) => h("option", { value, selected: value === filters.since }, text))))));
    paintCounts();
  };

  list.element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const index = list.indexOf(event.target);
    const move = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (move) list.focus(Math.min(jobs.length - 1, Math.max(0, index + move)));
    else if (event.key === "Home") list.focus(0);
    else if (event.key === "c" && jobs[index]) tell(cancel(jobs[index]));
    else if (event.key === "r" && jobs[index]) tell(again(jobs[index]));
    else return;
    event.preventDefault();
  });
  const tell = (doing) => doing.catch((error) => toast(error.message, "bad"));
  list.element.addEventListener("act", ({ detail }) => {
    const job = jobs.find((one) => one.id === detail.id);
    if (job) tell(detail.what === "cancel" ? cancel(job) : again(job));
  });

  const cancel = async (job) => {
    if (OVER.has(job.status)) return;
    const told = await post(`jobs/${encodeURIComponent(job.id)}/cancel`);
    take([{ ...job, status: told.status, completed_at: told.completed_at }]);
    toast(told.status === "canceled" ? "The job is canceled." : "The job is being canceled.");
  };

  replace(root,
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Jobs"), count, mode, h("span", { class: "grow" }),
      h("span", { class: "hint keys" }, h("kbd", {}, "↑ ↓"), " move ", h("kbd", {}, "C"), " cancel ", h("kbd", {}, "R"), " run again"),
      h("a", { class: "button primary", href: "#/run" }, icon("play"), "Run")),
    bars, note, h("div", { class: "card list" }, list.element));
  paintFilters();
  await load();
  list.remeasure();
  const stop = watchList({
    job: (entry) => take([entry]),
    poll,
    state: (state) => replace(mode, state === "live" ? [h("span", { class: "dot" }), "live"] : [h("span", { class: "dot still" }), "every 2 s"]),
  });
  return () => {
    stop();
    list.close();
  };
};

const isFiltered = (filters) => Boolean(filters.status || filters.labels.length || filters.since);

/** One job. Its main link covers the row; what else can be clicked lies above it. */
const row = (job) => {
  const isOver = OVER.has(job.status);
  const workflow = job.metadata?.workflow;
  const others = Object.fromEntries(Object.entries(job.metadata ?? {}).filter(([name]) => !(workflow && (name === "workflow" || name === "version"))));
  const node = h("li", { class: "job" },
    picture(job),
    h("div", { class: "what" },
      h("a", { class: "cover", href: `#/jobs/${encodeURIComponent(job.id)}` },
        workflow ? [h("b", {}, workflow), job.metadata.version ? h("span", { class: "dim" }, `@${job.metadata.version}`) : null] : shortId(job.id)),
      h("small", { class: "dim" }, workflow ? shortId(job.id) : made(job))),
    h("div", { class: "how" }, statusChip(job.status), told(job)),
    labels(others, 3),
    h("div", { class: "when" }, time(job.created_at), h("small", { class: "dim", "data-varies": "" }, taken(job))),
    h("div", { class: "acts" }, isOver
      ? act(job, "again", "again", "Run again") : act(job, "cancel", "stop", "Cancel")));
  return node;
};

const act = (job, what, mark, title) =>
  h("button", {
    type: "button", class: "button quiet icon-only", title, "aria-label": `${title}: ${job.metadata?.workflow ?? "job"} ${job.id.slice(0, 8)}`,
    onclick: (event) => event.currentTarget.dispatchEvent(new CustomEvent("act", { bubbles: true, detail: { id: job.id, what } })),
  }, icon(mark));

const picture = (job) => {
  const shown = job.outputs?.find((one) => one.thumb_url) ?? job.outputs?.find((one) => one.type === "image") ?? job.outputs?.[0];
  const box = thumb(shown, { size: 44 });
  if (job.status === "failed" && !shown) box.append(icon("warn", 20));
  if (job.outputs_total > 1) box.append(h("span", { class: "many" }, job.outputs_total));
  return box;
};

const made = (job) => (job.outputs_total ? `${job.outputs_total} output${job.outputs_total > 1 ? "s" : ""}` : "");

/** The third of what a row says: how far it is, or what went wrong. */
const told = (job) => {
  if (job.error) return h("small", { class: `cut ${job.status === "canceled" ? "dim" : "bad"}`, title: job.error.message }, `${job.error.code}: ${job.error.message}`);
  if (OVER.has(job.status) || !job.progress) return null;
  return h("span", { class: "far" }, bar(job.progress.value, "Progress of the job"), h("small", { class: "dim cut" }, job.progress.message ?? ""));
};

const taken = (job) => {
  if (!job.started_at) return "";
  return duration((job.completed_at ? new Date(job.completed_at) : new Date()) - new Date(job.started_at));
};

export default { name: "jobs", title: "Jobs", show };

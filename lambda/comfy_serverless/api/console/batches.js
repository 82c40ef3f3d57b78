// Batches: how far each is, what failed, its results; and new ones, of a manifest, a table, or many pictures.

import { get, post } from "./api.js";
import { h, replace } from "./dom.js";
import { table } from "./intake.js";
import { every } from "./live.js";
import { begin } from "./new_batch.js";
import { action, bar, confirm, dialog, duration, empty, failure, field, number, shortId, statusChip, thumb, time, toast } from "./parts.js";
import { saveAll, saveLinks } from "./saving.js";

const LOOK_MS = 2000;
const LIST_MS = 4000;
const PAGE = 50;
const MOST_ON_SHEET = 2000;
const ENDED = new Set(["completed", "failed", "canceled"]);

const addressOf = (name, more = "") => `#/batches/${encodeURIComponent(name)}${more}`;
const pathOf = (name, more = "") => `batches/${encodeURIComponent(name)}${more}`;

const show = (root, [name], query) => {
  if (name && query.has("sheet")) return sheet(root, name);
  if (name) return one(root, name);
  return query.has("new") ? begin(root) : list(root);
};

const list = async (root) => {
  const place = h("div", {});
  let more = [];
  let cursor = null;
  const paint = (first) => {
    const known = new Set(first.map((batch) => batch.id));
    const found = [...first, ...more.filter((batch) => !known.has(batch.id))];
    replace(place, found.length ? h("div", { class: "card" }, h("ul", { class: "rows" }, found.map((batch, place) => row(batch, found.findIndex((other) => other.name === batch.name) < place))), further)
      : empty("No batches yet", "A batch runs many jobs: a line of a manifest, a row of a table, or a picture each.", h("a", { class: "button primary", href: "#/batches?new=1" }, "New batch")));
  };
  const further = h("div", { class: "actions" });
  const look = async () => {
    const page = await get("batches", { limit: PAGE });
    if (!more.length) cursor = page.next_cursor;
    replace(further, cursor ? action("More", async () => {
      const next = await get("batches", { limit: PAGE, cursor });
      more = [...more, ...next.batches];
      cursor = next.next_cursor;
      await look();
    }) : null);
    paint(page.batches);
  };
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1", class: "grow" }, "Batches"), h("a", { class: "button primary", href: "#/batches?new=1" }, "New batch")), place);
  await look();
  return every(LIST_MS, look);
};

/** A name is that of the newest batch of it; those before it are named by their ids. */
const row = (batch, isBefore) =>
  h("li", {},
    h("div", {}, h("a", { class: "name", href: addressOf(isBefore ? batch.id : batch.name) }, batch.name), h("div", { class: "row dim" }, statusChip(batch.status), time(batch.created_at))),
    h("div", { class: "stack" }, split(batch), counts(batch)),
    h("span", { class: "dim", "data-varies": "" }, pace(batch)));

/** Shares of a batch, in colors and in words. */
const split = (batch) => {
  const total = Math.max(1, batch.lines_total);
  const parts = [["good", batch.succeeded], ["bad", batch.failed + batch.bad + batch.expired], ["warn", batch.canceled], ["other", batch.duplicates], ["live", batch.running]];
  return h("div", { class: "split", role: "img", "aria-label": `${batch.ended} of ${batch.lines_total} ended` },
    parts.filter(([, count]) => count > 0).map(([kind, count]) => h("i", { class: kind, style: { width: `${(100 * count) / total}%` } })));
};

const counts = (batch) =>
  h("div", { class: "counts" }, h("span", {}, h("b", {}, number(batch.ended)), ` of ${batch.is_read ? "" : "about "}${number(batch.lines_total)}`),
    ["running", "queued", "succeeded", "failed", "bad", "duplicates", "canceled", "expired"].filter((name) => batch[name]).map((name) =>
      h("span", { class: { succeeded: "good", failed: "bad", bad: "bad" }[name] ?? "dim" }, `${number(batch[name])} ${name}`)));

/** "3.2 a second, 4 min left" */
const pace = (batch) => {
  if (ENDED.has(batch.status)) return "";
  const rate = batch.per_second ? (batch.per_second >= 1 ? `${batch.per_second.toFixed(1)} a second` : `${(batch.per_second * 60).toFixed(1)} a minute`) : "";
  return [rate, batch.left_s === null || batch.left_s === undefined ? "" : `${duration(batch.left_s * 1000)} left`].filter(Boolean).join(", ");
};

const one = async (root, name) => {
  const head = h("div", { class: "head" });
  const state = h("section", { class: "card", "aria-label": "How far it is" });
  const failures = h("section", { "aria-label": "First failures" });
  const results = resultsOf(name);
  let before = "";
  let batch;
  const paint = () => {
    replace(state, split(batch), counts(batch), h("p", { class: "dim", "data-varies": "" }, pace(batch) || null),
      h("p", { class: "dim row" }, "begun ", time(batch.created_at), batch.counted_at ? [" · counted ", time(batch.counted_at)] : null));
    const now = JSON.stringify([batch.status, batch.is_read, batch.report_url !== null, batch.first_failures, batch.notes]);
    if (now.replace(/"https?:[^"]*"/g, "") === before) return;
    before = now.replace(/"https?:[^"]*"/g, "");
    replace(head, h("h1", { tabindex: "-1" }, batch.name), statusChip(batch.status), h("span", { class: "grow" }), doable(batch));
    replace(failures, failed(batch));
  };
  const look = async () => {
    batch = await get(pathOf(name));
    paint();
  };
  const act = (word) => async () => {
    batch = await post(pathOf(name, `/${word}`));
    paint();
  };
  const doable = ({ status }) => [
    status === "running" ? action("Pause", act("pause"), { name: "pause" }) : null,
    status === "paused" ? action("Resume", act("resume"), { name: "play", kind: "primary" }) : null,
    ENDED.has(status) ? action("Retry", () => askRetry(batch), { name: "again" }) : action("Cancel", async () => {
      if (await confirm(`Cancel ${name}?`, "What waits is not run. What runs is stopped.", "Cancel the batch")) await act("cancel")();
    }, { kind: "danger", name: "stop" }),
    h("a", { class: "button", href: addressOf(name, "?sheet=1") }, "Contact sheet"),
    action("Download all", () => download(name), { name: "save" }),
  ];
  replace(root, h("div", { class: "stack" }, head, state, failures, results.element));
  await look();
  results.more();
  return every(LOOK_MS, async () => {
    if (batch && ENDED.has(batch.status) && batch.ended >= batch.lines) return;
    const made = batch.succeeded;
    await look();
    if (made !== batch.succeeded) results.refresh();
  });
};

const failed = (batch) => {
  const found = batch.first_failures ?? [];
  const reports = [["Report (CSV)", "csv_url"], ["Rows (JSON)", "rows_url"], ["Summary", "report_url"]].filter(([, kind]) => batch[kind]);
  const notes = (batch.notes ?? []).map((note) => h("p", { class: "wrap" }, note));
  if (!found.length && !reports.length) return notes.length ? h("div", { class: "card" }, notes) : null;
  return h("div", { class: "card" }, notes, h("header", {}, h("h2", { class: "grow" }, found.length ? "First failures" : "Report"),
    // Asked for anew: the link of an hour ago has ended.
    reports.map(([text, kind]) => action(text, async () => h("a", { href: (await get(pathOf(batch.id)))[kind], target: "_blank", rel: "noopener" }).click(), { kind: "quiet small" }))),
  found.length ? table("First failures", ["Line", "Job", "Why"], found.map((one) => [one.line ?? "–", one.job_id ? h("a", { href: `#/jobs/${encodeURIComponent(one.job_id)}` }, shortId(one.job_id)) : "–", [h("b", {}, one.code), " ", one.message]]), ["num", "", "wrap"]) : null);
};

const askRetry = (batch) => {
  const menu = h("select", { autofocus: true }, [["curable", "what may succeed a second time"], ["failed", "all that failed"], ["canceled", "what was canceled"], ["all", "every line"]].map(([value, text]) => h("option", { value }, text)));
  dialog(`Run again of ${batch.name}`, (close) => h("form", {
    onsubmit: (event) => event.preventDefault(),
  }, field("Which lines", menu, "They become a batch of their own."),
  h("div", { class: "actions" }, action("Run again", async () => {
    const made = await post(pathOf(batch.name, "/retry"), { only: menu.value });
    close();
    location.hash = addressOf(made.name);
  }, { kind: "primary" }))), { kind: "small" });
};

/** The results, page by page. */
const resultsOf = (name) => {
  const grid = h("div", { class: "sheet" });
  const further = h("div", { class: "actions" });
  const element = h("section", { class: "card", hidden: true, "aria-label": "Results" }, h("h2", {}, "Results"), grid, further);
  const known = new Set();
  let cursor;
  let isFirst = true;
  const load = async () => {
    const page = await get(pathOf(name, "/outputs"), { limit: PAGE, cursor });
    const fresh = page.outputs.filter((output) => !known.has(output.id));
    fresh.forEach((output) => known.add(output.id));
    grid.append(...fresh.map(figure));
    element.hidden = known.size === 0;
    isFirst = false;
    if (page.next_cursor) cursor = page.next_cursor;
    replace(further, page.next_cursor ? action("More", load) : null);
  };
  return { element, more: () => load().catch((error) => error.name === "AbortError" || (element.hidden = false, replace(further, failure(error, load)))), refresh: () => (isFirst || known.size < PAGE ? load().catch(() => {}) : null) };
};

const figure = (output) =>
  h("figure", {}, h("a", { href: output.job_id ? `#/jobs/${encodeURIComponent(output.job_id)}` : output.url, title: output.name }, thumb(output, { size: 128, alt: "" }), h("span", { class: "sr" }, `Line ${output.line}: ${output.name}`)),
    h("figcaption", { "aria-hidden": "true" }, `${output.line} · ${Object.values(output.metadata ?? {})[0] ?? output.name}`));

/** Every output of a batch, page by page. */
async function* outputsOf(name) {
  let cursor;
  do {
    const page = await get(pathOf(name, "/outputs"), { limit: 100, cursor }, { signal: null });
    yield* page.outputs;
    cursor = page.next_cursor;
  } while (cursor);
}

/** All of it on paper: a grid that prints. */
const sheet = async (root, name) => {
  const grid = h("div", { class: "sheet" });
  const told = h("p", { class: "dim", role: "status" }, "Loading …");
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1", class: "grow" }, name), told,
    h("a", { class: "button quiet no-print", href: addressOf(name) }, "Back"), h("button", { type: "button", class: "button no-print", onclick: () => print() }, "Print")), grid);
  let isShown = true;
  const fill = async () => {
    for await (const output of outputsOf(name)) {
      if (!isShown || grid.childElementCount >= MOST_ON_SHEET) break;
      grid.append(figure(output));
    }
    if (!isShown) return;
    // What is not seen yet is printed, too.
    grid.querySelectorAll("img").forEach((image) => { image.loading = "eager"; });
    replace(told, `${number(grid.childElementCount)} outputs${grid.childElementCount >= MOST_ON_SHEET ? " (the first ones)" : ""}`);
    if (!grid.childElementCount) replace(grid, empty("Nothing made yet"));
  };
  fill().catch((error) => isShown && replace(told, error.message));
  return () => { isShown = false; };
};

/** One archive, written while it is fetched; or the list of links. */
const download = async (name) => {
  const status = h("p", { role: "status" }, "Each file goes from S3 straight into the archive on your disk.");
  const progress = h("div", {});
  const over = new AbortController();
  const links = action("Only the links", async () => {
    replace(status, `${number(await saveLinks(`${name}.txt`, outputsOf(name)))} links, good for an hour or so: `, h("code", {}, `wget -i ${name}.txt`));
  });
  const start = action("Save the archive", async () => {
    const done = await saveAll(`${name}.zip`, outputsOf(name), {
      signal: over.signal,
      onFile: (count, size) => { replace(progress, bar(null, "Saving")); replace(status, `${number(count)} files, ${number(Math.round(size / 1e6))} MB`); },
    });
    replace(progress);
    if (done) replace(status, `Saved ${number(done.files)} files.${done.lost.length ? ` ${done.lost.length} could not be fetched: ${done.lost.slice(0, 3).join(", ")}` : ""}`);
  }, { kind: "primary", name: "save" });
  dialog(`Download ${name}`, [status, progress, h("div", { class: "actions" }, links, start)], { kind: "small", closed: () => over.abort() });
};

export default { name: "batches", title: "Batches", show };

// What all jobs have made, newest first.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { OVER, watchList } from "./live.js";
import { isShown, lightbox, tile } from "./media.js";
import { action, askedLabels, empty, failure, icon, labelFilter, toast } from "./parts.js";

const PAGE = 60;
const KINDS = [["", "All"], ["image", "Pictures"], ["video", "Videos"], ["audio", "Sounds"], ["3d", "3D"], ["text", "Texts"]];
/** A page of the API may be empty although more follow: so many are asked for in a row. */
const MOST_EMPTY = 20;
const POLL_TURNS = 5;

/** What of the address filters: {type, workflow, batch, labels}. */
export const filtersOf = (query) => ({
  type: KINDS.some(([kind]) => kind === query.get("type")) ? query.get("type") : "",
  workflow: query.get("workflow") ?? "", batch: query.get("batch") ?? "",
  labels: query.getAll("label").filter((text) => text.includes("=")),
});

/** The same as parameters of the API. */
export const asked = ({ type, workflow, batch, labels }) => ({
  type, workflow, batch,
  ...askedLabels(labels),
});

/** The same as an address. */
export const addressed = ({ type, workflow, batch, labels }) => {
  const query = new URLSearchParams(Object.entries({ type, workflow, batch }).filter(([, value]) => value));
  for (const text of labels) query.append("label", text);
  return `#/gallery${query.size ? `?${query}` : ""}`;
};

const show = async (root, _params, query) => {
  let filters = filtersOf(query);
  const outputs = [];
  const known = new Set();
  let cursor = null;
  let turn = 0;
  let isLoading = false;
  const grid = h("ul", { class: "gallery", "aria-label": "Outputs" });
  const note = h("div", {});
  const foot = h("div", { class: "gallery-foot" });
  const bars = h("div", { class: "filters" });
  const said = h("p", { class: "sr", role: "status" });

  const open = (output) => {
    const shown = outputs.filter(isShown);
    const index = shown.indexOf(output);
    lightbox(index < 0 ? [output] : shown, Math.max(0, index), {
      onNearEnd: async () => {
        if (!cursor || isLoading) return;
        const before = outputs.length;
        await more();
        shown.push(...outputs.slice(before).filter(isShown));
      },
    });
  };
  const item = (output) => h("li", { "data-id": keyOf(output) }, tile(output, () => open(output), 220));

  const fetchPage = async (from) => {
    for (let tries = 0; tries < MOST_EMPTY; tries += 1) {
      const page = await get("outputs", { limit: PAGE, cursor: from, ...asked(filters) });
      if (page.outputs.length || !page.next_cursor) return page;
      from = page.next_cursor;
    }
    return { outputs: [], next_cursor: from };
  };

  const load = async () => {
    const mine = ++turn;
    isLoading = true;
    replace(note);
    try {
      const page = await fetchPage(null);
      if (mine !== turn) return;
      outputs.length = 0;
      known.clear();
      replace(grid);
      add(page.outputs);
      cursor = page.next_cursor ?? null;
    } catch (error) {
      if (mine === turn && error.name !== "AbortError") replace(note, failure(error, load));
      return;
    } finally {
      if (mine === turn) isLoading = false;
    }
    const isFiltered = addressed(filters) !== "#/gallery";
    replace(note, outputs.length || cursor ? null : isFiltered
      ? empty("Nothing fits", "Change the filters, or look at everything.", action("Show all", () => change({ type: "", workflow: "", batch: "", labels: [] })))
      : empty("Nothing here yet", "What jobs make is shown here.", h("a", { class: "button primary", href: "#/run" }, icon("play"), "Run a workflow")));
  };

  const add = (more, atTop = false) => {
    const fresh = more.filter((output) => !known.has(keyOf(output)));
    for (const output of fresh) known.add(keyOf(output));
    if (atTop) {
      outputs.unshift(...fresh);
      grid.prepend(...fresh.map(item));
    } else {
      outputs.push(...fresh);
      grid.append(...fresh.map(item));
    }
    return fresh.length;
  };

  const more = async () => {
    if (!cursor || isLoading) return;
    const mine = turn;
    isLoading = true;
    foot.setAttribute("aria-busy", "true");
    try {
      const page = await fetchPage(cursor);
      if (mine !== turn) return;
      add(page.outputs);
      cursor = page.next_cursor ?? null;
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
      cursor = null;
    } finally {
      isLoading = false;
      foot.removeAttribute("aria-busy");
    }
  };

  const renew = async () => {
    const mine = turn;
    const page = await get("outputs", { limit: PAGE, ...asked(filters) });
    if (mine !== turn) return;
    const count = add(page.outputs, true);
    if (count) {
      replace(said, `${count} new output${count > 1 ? "s" : ""}`);
      replace(note);
    }
  };

  const change = (next) => {
    filters = { ...filters, ...next };
    history.replaceState(null, "", addressed(filters));
    paintFilters();
    return load();
  };

  const paintFilters = () => {
    const search = (label, placeholder, value, taken, list = null) => {
      const input = h("input", { type: "search", placeholder, "aria-label": label, value, list, autocomplete: "off" });
      input.addEventListener("change", () => taken(input.value.trim()));
      return h("span", { class: "narrow" }, input);
    };
    replace(bars,
      h("div", { class: "row", role: "group", "aria-label": "Kind" }, KINDS.map(([type, text]) => h("button", {
        type: "button", class: "chip", "aria-pressed": String(filters.type === type), onclick: () => change({ type }),
      }, text))),
      h("div", { class: "row grow end" },
        search("Workflow", "workflow", filters.workflow, (workflow) => change({ workflow }), "known-workflows"),
        search("Batch", "batch", filters.batch, (batch) => change({ batch })),
        labelFilter(filters.labels, (labels) => change({ labels }), () => outputs.flatMap((one) => Object.entries(one.metadata ?? {}).map((pair) => pair.join("=")))), names));
  };
  const names = h("datalist", { id: "known-workflows" });

  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Gallery")), bars, said, note, grid, foot);
  paintFilters();
  const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && fill(), { rootMargin: "800px" });
  const fill = async () => {
    await more();
    // Seen anew, it is told again: until the window is full.
    near.unobserve(foot);
    if (cursor) near.observe(foot);
  };
  await load();
  near.observe(foot);
  get("workflows", { limit: 100 }).then((page) => replace(names, (page.workflows ?? []).map((one) => h("option", { value: one.name }))), () => null);
  moveByKeys(grid);
  let waiting = null;
  let polls = 0;
  const soon = () => {
    waiting ??= setTimeout(() => {
      waiting = null;
      renew().catch((error) => error.name === "AbortError" || console.warn(error.message));
    }, 700);
  };
  const stop = watchList({
    job: (entry) => OVER.has(entry.status) && (entry.outputs_total ?? 1) && soon(),
    poll: async () => {
      polls += 1;
      if (polls % POLL_TURNS === 0) await renew();
    },
  });
  return () => {
    stop();
    clearTimeout(waiting);
    near.disconnect();
  };
};

const keyOf = (output) => `${output.job_id}/${output.id}`;

/** Arrow keys move through the grid, as its columns are now. */
const moveByKeys = (grid) => grid.addEventListener("keydown", (event) => {
  const all = [...grid.querySelectorAll(".piece-open")];
  const index = all.indexOf(document.activeElement);
  if (index < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -index, End: all.length - 1 - index }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  all[Math.min(all.length - 1, Math.max(0, index + by))].focus();
});

export default { name: "gallery", title: "Gallery", show };

// Usage: what the owner's jobs took and cost; for admins of everybody, and the keys.

import { del, get, me, post } from "./api.js";
import { h, replace, svg } from "./dom.js";
import { table } from "./intake.js";
import { action, bytes, confirm, copyButton, dialog, dollars, duration, empty, failure, field, number, time } from "./parts.js";

const DAYS = { 7: "7 days", 30: "30 days", 90: "90 days" };
const BY = { workflow: "Workflow", key: "Key", day: "Day", owner: "Owner" };
const BUDGETS = { warn: "warns", refuse: "refuses" };

const show = async (root, _params, query) => {
  const who = (await me()) ?? { is_admin: false };
  const asked = {
    days: Object.hasOwn(DAYS, query.get("days")) ? Number(query.get("days")) : 30,
    by: Object.hasOwn(BY, query.get("by")) && (query.get("by") !== "owner" || who.is_admin) ? query.get("by") : who.is_admin ? "owner" : "workflow",
    owner: who.is_admin ? (query.get("owner") ?? "") : "",
  };
  const usage = h("div", { class: "stack" });
  const keys = who.is_admin ? h("section", { class: "card" }) : null;
  replace(root, h("div", { class: "head" }, h("h1", { tabindex: "-1", class: "grow" }, asked.owner ? `Usage of ${asked.owner}` : asked.by === "owner" ? "Usage of everybody" : "Usage"), tabs(asked, who)), h("div", { class: "stack" }, budgetOf(who), usage, keys));
  const load = async () => {
    try {
      await paintUsage(usage, asked, who);
    } catch (error) {
      if (error.name !== "AbortError") replace(usage, failure(error, load));
    }
  };
  await Promise.all([load(), keys ? paintKeys(keys) : null]);
};

const hashOf = (asked, more) => {
  const { days, by, owner } = { ...asked, ...more };
  return `#/usage?${new URLSearchParams({ days, by, ...(owner ? { owner } : {}) })}`;
};

const tabs = (asked, who) => {
  const link = (text, more, isOn) => h("a", { class: `button small ${isOn ? "" : "quiet"}`, href: hashOf(asked, more), "aria-current": isOn ? "true" : null }, text);
  return h("nav", { class: "tabs", "aria-label": "What is shown" },
    Object.entries(BY).filter(([by]) => by !== "owner" || who.is_admin).map(([by, text]) => link(text, { by }, asked.by === by)),
    h("span", { class: "grow" }), Object.entries(DAYS).map(([days, text]) => link(text, { days }, asked.days === Number(days))));
};

const budgetOf = ({ budget }) => {
  if (!budget) return null;
  const share = budget.spent_usd === null ? null : budget.spent_usd / budget.budget_usd;
  return h("div", { class: `notice ${share >= 1 ? "bad" : share >= 0.8 ? "warn" : ""}` },
    h("p", {}, `This key has used ${dollars(budget.spent_usd)} of ${dollars(budget.budget_usd)}${budget.month ? ` in ${budget.month}` : " this month"}; what goes beyond it ${budget.action === "refuse" ? "is refused" : "gets a warning"}.`),
    share === null ? null : h("div", { class: "split wide", "aria-hidden": "true", style: { width: "100%" } }, h("i", { class: share >= 1 ? "bad" : "live", style: { width: `${Math.min(100, 100 * share)}%` } })));
};

/** The first and the last day of so many, in UTC. */
export const span = (days, now = Date.now()) => {
  const day = (ago) => new Date(now - ago * 86_400_000).toISOString().slice(0, 10);
  return { from: day(days - 1), to: day(0) };
};

const paintUsage = async (place, asked, who) => {
  const range = span(asked.days);
  const whose = asked.owner ? { owner: asked.owner } : {};
  const ask = (by) => get("usage", { by, ...range, ...whose });
  const [rows, days] = await Promise.all([ask(asked.by), asked.by === "day" ? null : ask(asked.by === "owner" && !asked.owner ? "day,owner" : "day")]);
  const daily = (days ?? rows).rows;
  const total = rows.total;
  if (!total?.jobs) return replace(place, empty("No jobs in this time", "What jobs took and cost is counted as each ends."));
  return replace(place,
    h("div", { class: "card stack" }, h("div", { class: "counts" }, [["jobs", number(total.jobs)], ["failed", number(total.failed)], ["time", duration(total.seconds * 1000)], ["outputs", number(total.outputs)], ["made", bytes(total.bytes)], ["cost", dollars(total.cost_usd)]].map(([name, value]) => h("span", {}, h("b", {}, value), h("span", { class: "dim" }, ` ${name}`)))), chart(daily, range)),
    h("div", { class: "card" }, usageTable(rows.rows, asked, who)));
};

/** Every day between two, also those that have nothing. */
export const everyDay = (rows, { from, to }) => {
  const known = new Map();
  for (const { day, jobs, failed } of rows) {
    const sum = known.get(day) ?? { day, jobs: 0, failed: 0 };
    known.set(day, { day, jobs: sum.jobs + jobs, failed: sum.failed + failed });
  }
  const found = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) {
    const day = new Date(at).toISOString().slice(0, 10);
    found.push(known.get(day) ?? { day, jobs: 0, failed: 0 });
  }
  return found;
};

const chart = (rows, range) => {
  const days = everyDay(rows, range);
  const most = Math.max(1, ...days.map((day) => day.jobs));
  const width = 100 / days.length;
  const column = (day, place, count, kind, below = 0) => {
    const height = (100 * count) / most;
    return svg("rect", { class: kind, x: place * width + width * 0.12, width: width * 0.76, y: 100 - height - (100 * below) / most, height });
  };
  return h("figure", {}, svg("svg", { class: "chart", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `Jobs a day, from ${range.from} to ${range.to}: ${number(most)} at most` },
    days.map((day, place) => svg("g", {}, svg("title", {}, `${day.day}: ${day.jobs} jobs, ${day.failed} failed`), column(day, place, day.jobs - day.failed, "", day.failed), column(day, place, day.failed, "bad")))),
  h("figcaption", { class: "row dim" }, h("small", {}, range.from), h("small", { class: "grow" }, ""), h("small", {}, "jobs a day"), h("small", { class: "grow" }, ""), h("small", {}, range.to)));
};

const usageTable = (rows, asked, who) => {
  const most = Math.max(0.000001, ...rows.map((row) => row.seconds));
  const nameOf = (row) => row.key_name || row[asked.by] || "(none)";
  const cell = (row) => {
    if (asked.by === "workflow" && row.workflow) return h("a", { href: `#/jobs?label=${encodeURIComponent(`workflow=${row.workflow}`)}` }, row.workflow);
    if (asked.by === "owner" && who.is_admin) return h("a", { href: hashOf(asked, { by: "workflow", owner: row.owner }) }, row.owner);
    return nameOf(row);
  };
  return table("Usage", [BY[asked.by], "Jobs", "Failed", "Time", "Outputs", "Made", "Cost"], rows.map((row) => [
    [cell(row), h("span", { class: "share", "aria-hidden": "true", style: { width: `${(100 * row.seconds) / most}%` } })],
    number(row.jobs), number(row.failed), duration(row.seconds * 1000), number(row.outputs), bytes(row.bytes), dollars(row.cost_usd)]), ["wrap", "num", "num", "num", "num", "num", "num"]);
};

const paintKeys = async (place) => {
  const load = () => paintKeys(place);
  try {
    const { keys } = await get("keys");
    const works = (key) => !key.is_revoked && !(key.expires_at && new Date(key.expires_at) < new Date());
    const sorted = [...keys].sort((one, other) => Number(works(other)) - Number(works(one)) || (one.created_at < other.created_at ? 1 : -1));
    replace(place, h("header", {}, h("h2", { class: "grow" }, "Keys"), action("New key", () => askKey(load), { kind: "small", name: "plus" })),
      table("Keys", ["Name", "Owner", "Made", "Limits", ""], sorted.map((key) => [
        [h("b", {}, key.name), key.is_admin ? [" ", h("span", { class: "chip warn" }, "admin")] : null, works(key) ? null : [" ", h("span", { class: "chip bad" }, key.is_revoked ? "revoked" : "expired")]],
        key.owner, time(key.created_at), limitsOf(key),
        works(key) && !key.is_admin ? action("Revoke", async () => {
          if (!(await confirm(`Revoke ${key.name}?`, "Requests with it are refused within a minute. This cannot be undone.", "Revoke it"))) return;
          await del(`keys/${encodeURIComponent(key.id)}`);
          await load();
        }, { kind: "danger small", "aria-label": `Revoke ${key.name}` }) : null]), ["wrap", "wrap", "", "wrap", ""]));
  } catch (error) {
    if (error.name !== "AbortError") replace(place, failure(error, load));
  }
};

const limitsOf = (key) =>
  [key.max_in_flight && `${number(key.max_in_flight)} at once`, key.requests_per_minute && `${number(key.requests_per_minute)} a minute`,
    key.budget_usd && `${dollars(key.budget_usd)} a month (${BUDGETS[key.budget_action] ?? key.budget_action})`, key.expires_at && `until ${key.expires_at.slice(0, 10)}`].filter(Boolean).join(", ") || h("span", { class: "dim" }, "none");

const askKey = (load) => {
  const named = {};
  const input = (name, label, props = {}, hint = null) => {
    named[name] = h("input", { type: "text", autocomplete: "off", ...props });
    return field(label, named[name], hint);
  };
  const onBudget = h("select", {}, h("option", { value: "warn" }, "warn"), h("option", { value: "refuse" }, "refuse further jobs"));
  const problem = h("div", {});
  let button = null;
  dialog("New key", (close) => h("form", {
    onsubmit: (event) => { event.preventDefault(); button.click(); },
  }, input("name", "Name", { required: true, autofocus: true, maxlength: 64 }), input("owner", "Owner", { required: true, maxlength: 64 }, "Whose jobs and files it opens"),
  h("div", { class: "fields" }, input("max_in_flight", "Jobs at once", { inputmode: "numeric" }), input("requests_per_minute", "Requests a minute", { inputmode: "numeric" }),
    input("days", "Ends after days", { inputmode: "numeric" }), input("budget_usd", "Dollars a month", { inputmode: "decimal" }), field("Beyond them", onBudget)),
  h("small", { class: "hint" }, "What stands empty is no limit."), problem,
  h("div", { class: "actions" }, (button = action("Make the key", async () => {
    try {
      const made = await post("keys", asKey(Object.fromEntries(Object.entries(named).map(([name, one]) => [name, one.value.trim()])), onBudget.value));
      close();
      showKey(made);
      await load();
    } catch (error) {
      replace(problem, h("div", { class: "notice bad", role: "alert" }, h("p", {}, error.message)));
    }
  }, { kind: "primary" })))), { kind: "small" });
};

/** The body of a request for a key; what is left empty is left out. */
export const asKey = (text, onBudget) => {
  const body = { name: text.name, owner: text.owner };
  for (const name of ["max_in_flight", "requests_per_minute", "budget_usd"]) if (text[name]) body[name] = Number(text[name].replace(",", "."));
  if (text.days) body.expires_in_s = Math.round(Number(text.days) * 86_400);
  if (text.budget_usd) body.budget_action = onBudget;
  return body;
};

const showKey = (made) =>
  dialog(`Key ${made.name}`, [h("p", {}, "This is shown once: copy it now."), h("div", { class: "secret" }, h("code", {}, made.key), copyButton(made.key)), h("p", { class: "dim" }, `It opens what is ${made.owner}’s.`)], { kind: "small" });

export default { name: "usage", title: "Usage", show };

// What jobs, gallery, graph and programs decide without a page, under Node.
import assert from "node:assert/strict";
import { test } from "node:test";

import { isSafe } from "../../../lambda/comfy_serverless/api/console/dom.js";
import * as gallery from "../../../lambda/comfy_serverless/api/console/gallery.js";
import { arrange, cut, graphOf, layout, nodeOf, timesOf } from "../../../lambda/comfy_serverless/api/console/graph.js";
import { phasesOf } from "../../../lambda/comfy_serverless/api/console/job.js";
import { asked, filtersOf, fits, merged } from "../../../lambda/comfy_serverless/api/console/jobs.js";
import { EventReader } from "../../../lambda/comfy_serverless/api/console/live.js";
import { changesOf, isShown } from "../../../lambda/comfy_serverless/api/console/media.js";
import { ago, bytes, dollars, duration, isPicture } from "../../../lambda/comfy_serverless/api/console/parts.js";

const NOW = Date.parse("2026-11-30T12:00:00Z");
const job = (id, more = {}) => ({ id, status: "succeeded", created_at: `2026-11-30T11:00:${id}Z`, metadata: {}, ...more });

test("events come in pieces of any size", () => {
  const text = ": hello\n\nid: 7\nevent: job\ndata: {\"a\":\ndata: 1}\n\nevent: status\r\ndata: x\r\n\r\ndata: rest";
  for (let size = 1; size < text.length; size += 1) {
    const reader = new EventReader();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...reader.read(text.slice(at, at + size)));
    assert.deepEqual(found, [{ event: "job", data: '{"a":\n1}', id: "7" }, { event: "status", data: "x", id: null }], `pieces of ${size}`);
  }
});

test("an address filters, and nothing else in it does", () => {
  const filters = filtersOf(new URLSearchParams("status=failed&label=a=b=c&label=x&workflow=poster&since=24h"));
  assert.deepEqual(filters, { status: "failed", labels: ["a=b=c", "workflow=poster"], since: "24h" });
  assert.deepEqual(asked(filters, NOW), { status: "failed", "metadata[a]": "b=c", "metadata[workflow]": "poster", created_after: "2026-11-29T12:00:00.000Z" });
  assert.deepEqual(filtersOf(new URLSearchParams("status=<b>&since=toString")), { status: "", labels: [], since: "" });
  const of = gallery.filtersOf(new URLSearchParams("type=video&batch=b&label=a=b&type=x"));
  assert.deepEqual(of, { type: "video", workflow: "", batch: "b", labels: ["a=b"] });
  assert.deepEqual(gallery.asked(of), { type: "video", workflow: "", batch: "b", "metadata[a]": "b" });
  assert.deepEqual(gallery.filtersOf(new URLSearchParams(gallery.addressed(of).split("?")[1])), of);
});

test("a job that was told belongs into the list or not", () => {
  const filters = { status: "failed", labels: ["a=b"], since: "1h" };
  const fit = job("30", { status: "failed", metadata: { a: "b" }, created_at: "2026-11-30T11:30:00Z" });
  assert.equal(fits(fit, filters, NOW), true);
  for (const other of [{ status: "running" }, { metadata: {} }, { created_at: "2026-11-30T10:59:00Z" }]) assert.equal(fits({ ...fit, ...other }, filters, NOW), false);
});

test("news take their places, and what is the same stays the same row", () => {
  const [one, two] = [job("01"), job("02", { status: "running", progress: { value: 0.1 } })];
  const again = { ...one, outputs: undefined };
  const further = { ...two, progress: { value: 0.2 } };
  const list = merged([two, one], [again, further, job("03")]);
  assert.deepEqual(list.map((each) => each.id), ["03", "02", "01"]);
  assert.equal(list[2], one);
  assert.equal(list[1], further);
});

test("a graph has its nodes and edges in both formats", () => {
  const api = graphOf({ 1: { class_type: "A", inputs: { x: 3, list: ["none", 0] } }, 2: { class_type: "B", inputs: { a: ["1", 0], b: [1, 1] }, _meta: { title: "<b>" } }, odd: null });
  assert.deepEqual(api.nodes.map((node) => [node.id, node.title]), [["1", "A"], ["2", "<b>"]]);
  assert.deepEqual(api.edges, [{ from: "1", to: "2" }, { from: "1", to: "2" }]);
  const saved = graphOf({
    nodes: [{ id: 1, type: "A", pos: [10, 20], size: [200, 90] }, { id: 2, type: "u-1", pos: { 0: 400, 1: 20 }, size: { 0: 50, 1: 30 } }, { id: 9, type: "Note", pos: [0, 0] }],
    links: [[1, 1, 0, 2, 0, "IMAGE"], { id: 2, origin_id: 1, target_id: 9 }, null], definitions: { subgraphs: [{ id: "u-1", name: "Inner" }] },
  });
  assert.deepEqual(saved.nodes.map((node) => node.title), ["A", "Inner"]);
  assert.deepEqual(saved.edges, [{ from: "1", to: "2" }]);
  arrange(saved);
  assert.deepEqual(saved.nodes.map((node) => [node.x, node.y]), [[0, 0], [390, 0]]);
});

test("a node's title is cut between letters, and those of Chinese are wide", () => {
  assert.equal(cut("EmptyLatentImage", 176), "EmptyLatentImage");
  assert.equal(cut("a".repeat(40), 176), `${"a".repeat(22)}…`);
  assert.equal(cut("采".repeat(40), 176), `${"采".repeat(10)}…`);
  assert.equal(cut("🦊".repeat(40), 176), `${"🦊".repeat(10)}…`);
});

const random = (seed) => () => ((seed = (seed * 48271) % 2147483647) / 2147483647);

test("a layout goes from left to right, and no node lies on another", () => {
  for (const count of [1, 2, 30, 300]) {
    const draw = random(count);
    const graph = { nodes: Array.from({ length: count }, (_, id) => ({ id: String(id), w: 176, h: 48 })), edges: [] };
    for (let to = 1; to < count; to += 1) {
      for (let each = 0; each < 2; each += 1) graph.edges.push({ from: String(Math.floor(draw() * to)), to: String(to) });
    }
    const size = layout(graph);
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    for (const { from, to } of graph.edges) assert.ok(byId.get(from).x < byId.get(to).x, `${count}: ${from} is left of ${to}`);
    for (const one of graph.nodes) {
      assert.ok(one.x >= 0 && one.y >= 0 && one.x + one.w <= size.width && one.y + one.h <= size.height);
      for (const other of graph.nodes) assert.ok(one === other || one.x !== other.x || Math.abs(one.y - other.y) >= 48, `${count}: ${one.id} is on ${other.id}`);
    }
  }
});

test("a circle is cut, and nothing hangs", () => {
  const graph = { nodes: ["a", "b", "c"].map((id) => ({ id, w: 1, h: 1 })), edges: [{ from: "a", to: "b" }, { from: "b", to: "c" }, { from: "c", to: "a" }] };
  assert.ok(layout(graph).width > 0);
});

test("a node of a subgraph is shown at what it lies in", () => {
  const known = new Map([["5", 1], ["7:1", 1]]);
  assert.deepEqual(["5", "5:12", "5:1:2", "7:1:3", "7", 5, null].map((id) => nodeOf(id, known)), ["5", "5", "5", "7:1", null, "5", null]);
  assert.deepEqual([...timesOf({ "5:1": 10, "5:2": 5, 9: 1 }, known)], [["5", 15]]);
});

test("phases add up: loading is part of executing", () => {
  const phases = phasesOf({ timings_ms: { preparing: 5, loading: 300, executing: 1000, delivering: 20, total: 1100, new_phase: 7 }, metrics: { queue_ms: 40 } });
  assert.deepEqual(phases.map(({ key, ms }) => [key, ms]), [["queue", 40], ["preparing", 5], ["loading", 300], ["executing", 700], ["delivering", 20], ["new_phase", 7]]);
  assert.deepEqual(phasesOf({ timings_ms: {}, metrics: {} }), []);
});

test("no part of a job's time is told twice", () => {
  const timings_ms = { total: 1500, queued: 100, preparing: 200, models: 120, fetching: 50, executing: 1000, loading: 300, delivering: 60, overhead: 400 };
  const phases = phasesOf({ timings_ms, metrics: { queue_ms: 40 } });
  assert.equal(phases.reduce((sum, { ms }) => sum + ms, 0), 1500 + 40);
  assert.deepEqual(Object.fromEntries(phases.map(({ key, ms }) => [key, ms])),
    { queue: 140, preparing: 30, fetching: 50, models: 120, loading: 300, executing: 700, delivering: 60, overhead: 140 });
});

test("no address runs a script", () => {
  for (const bad of ["javascript:alert(1)", " JaVaScRiPt:alert(1)", "java\nscript:alert(1)", "\u0001javascript:x", "data:text/html,x", "vbscript:x", "data:image/svg+xml,<svg onload=x>"]) assert.equal(isSafe(bad), false, bad);
  for (const good of ["#/jobs", "https://a/b", "/docs", "docs", "blob:http://a/1", "data:image/png;base64,AA", "?a=b"]) assert.equal(isSafe(good), true, good);
});

test("what could run something is a file", () => {
  const of = (type) => isShown({ content_type: type });
  assert.deepEqual(["image/png", "video/mp4", "audio/flac", "text/plain"].map(of), [true, true, true, true]);
  assert.deepEqual(["image/svg+xml", "text/html", "application/xhtml+xml", "text/xml", "model/gltf-binary", "image/png+xml", ""].map(of), Array(7).fill(false));
  assert.equal(isPicture({ content_type: "image/svg+xml" }), false);
  assert.equal(isPicture(undefined), false);
});

test("a form to change a run is that of its workflow", () => {
  assert.equal(changesOf({ job_id: "a/b" }), "#/run?from=a%2Fb");
  assert.equal(changesOf({ job_id: "a", metadata: { workflow: "x y" } }), "#/run/x%20y?from=a");
});

test("numbers are short", () => {
  assert.deepEqual([0, 999, 1000, 12_400, 61_000, 3_600_000, 7_860_000, null].map(duration), ["0 ms", "999 ms", "1.0 s", "12 s", "1 min 1 s", "1 h", "2 h 11 min", "–"]);
  assert.deepEqual([0, 999, 1000, 999_499, 1_500_000, 2e12].map(bytes), ["0 B", "999 B", "1.0 kB", "999 kB", "1.5 MB", "2000 GB"]);
  assert.deepEqual([0, 6.7e-7, 0.0000234, 0.00123, 1.5, null].map(dollars), ["$0", "< $0.000001", "$0.000023", "$0.0012", "$1.50", "–"]);
  assert.deepEqual([2, 30, 300, 7200].map((seconds) => ago(new Date(NOW - seconds * 1000).toISOString(), NOW)), ["now", "30 s ago", "5 min ago", "2 h ago"]);
  assert.equal(ago("nonsense", NOW), "nonsense");
});

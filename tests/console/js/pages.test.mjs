// What the pages decide without a page, under Node.
import assert from "node:assert/strict";
import { test } from "node:test";

import { asKey, everyDay, span } from "../../../lambda/comfy_serverless/api/console/admin.js";
import { fitsMedia, stepped } from "../../../lambda/comfy_serverless/api/console/controls.js";
import { nameOf } from "../../../lambda/comfy_serverless/api/console/intake.js";
import { labelsOf } from "../../../lambda/comfy_serverless/api/console/run.js";
import { targetOf } from "../../../lambda/comfy_serverless/api/console/workflows.js";

test("an alias is moved to a version, or split", () => {
  assert.deepEqual(targetOf("3"), { version: 3 });
  assert.deepEqual(targetOf(" v3 "), { version: 3 });
  assert.deepEqual(targetOf("3=90, v4=10"), { weights: { 3: 90, 4: 10 } });
});

test("arrows step within the bounds, with all digits", () => {
  const seed = { kind: "integer", minimum: -1, maximum: 18446744073709551615n };
  assert.equal(stepped(seed, "18446744073709551614", 1), "18446744073709551615");
  assert.equal(stepped(seed, "18446744073709551615", 1), "18446744073709551615");
  assert.equal(stepped({ kind: "integer", minimum: 1, step: 8 }, "", 1), "9");
  assert.equal(stepped({ kind: "number", minimum: 0, maximum: 1, step: 0.01 }, "0.1", 2), "0.12");
  assert.equal(stepped({ kind: "number", minimum: 0, maximum: 1, step: 0.01 }, "1", 1), "1");
});

test("files fit by their media, and names can be names", () => {
  assert.deepEqual([fitsMedia("image/*", "image/png"), fitsMedia("image/*", "video/mp4"), fitsMedia("*/*", "x/y"), fitsMedia("video/*", "")], [true, false, true, true]);
  assert.deepEqual(["Mein Füchs.json", "../../x.png", "🦊.png", `${"a".repeat(90)}.json`].map(nameOf), ["Mein-Fuchs", "x", "workflow", "a".repeat(64)]);
});

test("labels are read as people write them", () => {
  assert.deepEqual(labelsOf("campaign=autumn, market = nordics,, x, =y, q=a=b"), { campaign: "autumn", market: "nordics", q: "a=b" });
});

test("a chart has every day, also those with nothing", () => {
  const range = span(3, Date.UTC(2026, 2, 1, 12));
  assert.deepEqual(range, { from: "2026-02-27", to: "2026-03-01" });
  assert.deepEqual(everyDay([{ day: "2026-02-28", jobs: 3, failed: 1 }, { day: "2026-02-28", jobs: 1, failed: 0 }], range).map((day) => day.jobs), [0, 4, 0]);
});

test("a key's limits are numbers, and what stands empty is none", () => {
  assert.deepEqual(asKey({ name: "ann", owner: "team", max_in_flight: "4", requests_per_minute: "", budget_usd: "12,5", days: "1" }, "refuse"), {
    name: "ann", owner: "team", max_in_flight: 4, budget_usd: 12.5, budget_action: "refuse", expires_in_s: 86_400,
  });
});

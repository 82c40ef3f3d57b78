// What the console's streams do when they end, under Node: the browser's parts that they need are stood in for.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.sessionStorage = { getItem: () => "a-key", setItem() {}, clear() {} };
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { linked, refusal, signals } = await import("../../../lambda/comfy_serverless/api/console/api.js");
const { watchJob, watchList } = await import("../../../lambda/comfy_serverless/api/console/live.js");

const json = (document) => new Response(JSON.stringify(document), { headers: { "content-type": "application/json" } });

test("each connection of a list has a link of its own, as the one before may have expired", async () => {
  let links = 0;
  const opened = [];
  const twice = new Promise((done) => {
    globalThis.fetch = async (url) => {
      if (url.pathname.endsWith("/me")) return json({ events_url: `https://live.example/events?token=${(links += 1)}` });
      opened.push([url.host, url.searchParams.get("token")]);
      if (opened.length === 2) done();
      throw new TypeError("the connection was lost");
    };
  });
  const stop = watchList({ job() {}, poll: async () => {} });
  await twice;
  stop();
  assert.deepEqual(opened, [["live.example", "1"], ["live.example", "2"]]);
});

test("a job whose link has expired before it was used is followed by another one", async () => {
  const opened = [];
  globalThis.fetch = async (url) => {
    if (url.pathname.endsWith("/jobs/1")) return json({ id: "1", urls: { events: "https://live.example/1?token=new" } });
    opened.push(url.searchParams.get("token"));
    if (opened.length === 1) return Object.defineProperty(new Response("{}", { status: 401 }), "url", { value: url.href });
    return new Response('event: status\ndata: {"status": "succeeded"}\n\n');
  };
  const told = [];
  const error = await new Promise((end) => {
    watchJob({ id: "1", urls: { events: "https://live.example/1?token=old" } }, { status: ({ status }) => told.push(status), end });
  });
  assert.deepEqual([error, opened, told], [undefined, ["old", "new"], ["succeeded"]]);
});

test("a link that has expired is not taken for a key that does not work", async () => {
  const told = [];
  signals.addEventListener("refused", () => told.push("refused"));
  const answer = (url) => Object.defineProperty(new Response("{}", { status: 401 }), "url", { value: url });
  await refusal(answer("https://live.example/events?token=old"));
  assert.deepEqual(told, []);
  await refusal(answer(new URL("../../../lambda/comfy_serverless/api/v2/jobs", import.meta.url).href));
  assert.deepEqual(told, ["refused"]);
});

test("pictures whose links have ended at once ask for others once, and where the clock is wrong not for ever", async () => {
  const requests = [];
  const at = (s) => new Date(Date.now() + s * 1000).toISOString();
  const links = { url_expires_at: at(900) };
  globalThis.fetch = async (url) => {
    requests.push(url.pathname);
    const outputs = ["a", "b"].map((id) => ({ id, url: `https://s3.example/${id}?${requests.length}`, thumb_url: null, ...links }));
    return json({ outputs, next_cursor: null });
  };
  const ended = (id) => ({ id, job_id: "7", url: "https://s3.example/old", url_expires_at: at(-1) });
  const [one, two] = await Promise.all([linked(ended("a")), linked(ended("b"))]);
  assert.deepEqual([one.url, two.url], ["https://s3.example/a?1", "https://s3.example/b?1"]);
  await linked(one);
  assert.equal(requests.length, 1);

  links.url_expires_at = at(-3600); // this machine's clock is hours ahead: every link seems to have ended
  const here = ended("a");
  for (let times = 0; times < 5; times += 1) await linked(here);
  assert.equal(requests.length, 2);
  assert.equal(here.url, "https://s3.example/a?2");
});

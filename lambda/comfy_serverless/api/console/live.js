// What happens now: server-sent events by `fetch`, which can send the key, and questions where there is no stream.

import { parse } from "./exact.js";
import { ApiError, address, get, pageSignal, refusal, rights, setLost } from "./api.js";

const POLL_MS = 2000;
const LONGEST_PAUSE_MS = 15_000;
/** After so many tries without an answer a list is asked for instead; after so long its stream is tried again. */
const MOST_TRIES = 3;
const STREAM_AGAIN_MS = 60_000;
/** A stream that says nothing for so long has been lost without a word; a living one says something each 10 s. */
const SILENCE_MS = 45_000;
/** A tab that nobody has looked at for so long needs no stream, which costs its API an execution. */
const HIDDEN_MS = 20_000;
export const OVER = new Set(["succeeded", "failed", "canceled", "expired"]);

/** Reads events out of the text of a stream, in pieces of any size. */
export class EventReader {
  #rest = "";

  /** The events that are whole now: {event, data, id}. */
  read(text) {
    this.#rest += text;
    const found = [];
    for (;;) {
      const end = /\r?\n\r?\n/.exec(this.#rest);
      if (!end) return found;
      const block = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const frame = { event: "message", data: "", id: null };
      const data = [];
      for (const line of block.split(/\r?\n/)) {
        if (!line || line.startsWith(":")) continue;
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "data") data.push(value);
        else if (name === "event") frame.event = value;
        else if (name === "id") frame.id = value;
      }
      frame.data = data.join("\n");
      if (data.length || frame.id !== null) found.push(frame);
    }
  }
}

/** Do something again and again: never twice at once, not in a hidden tab, not after the page. Returns what ends it. */
export const every = (ms, act) => {
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, pageSignal()]);
  const run = async () => {
    while (!signal.aborted) {
      await isSeen(signal);
      if (signal.aborted) return;
      await act().catch((error) => {
        if (error.name !== "AbortError") console.warn(error.message);
      });
      await sleep(ms, signal);
    }
  };
  run();
  return () => over.abort();
};

/**
 * The events of one job, until it is over.
 * @param job a Job, as the API gives it
 * @param on {status, progress, output, preview, end}: called with the data of each event; `end` once
 * @returns what stops it
 */
export const watchJob = (job, on) => {
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, pageSignal()]);
  let isOver = false;
  const take = ({ event, data }) => {
    const content = parse(data);
    on[event]?.(content);
    if (event === "status" && OVER.has(content.status)) isOver = true;
  };
  follow({
    url: () => renewed(job),
    take,
    isOver: () => isOver,
    signal,
  }).then(() => signal.aborted || on.end?.(), (error) => signal.aborted || on.end?.(error));
  return () => over.abort();
};

/** A signed link is short-lived: after a lost connection the job is asked for another one. */
const renewed = async (job) => {
  if (!job.used) {
    job.used = true;
    return job.urls.events;
  }
  return (await get(`jobs/${encodeURIComponent(job.id)}`)).urls.events;
};

/**
 * Changes of the jobs in a list. With a stream each one comes by itself; without one, `poll` is called each two seconds.
 * @param on {job(entry), poll(): Promise, state("live" | "polling")}
 */
export const watchList = (on) => {
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, pageSignal()]);
  run(on, signal).catch((error) => {
    if (!signal.aborted) console.warn(error.message);
  });
  return () => over.abort();
};

/** Where an owner's stream is: at an address with a right of its own, where there is one. That right ends soon, so it is asked for anew. */
const listStream = async () => (await get("me").catch(() => null))?.events_url ?? "events";

const run = async (on, signal) => {
  let hasStream = true;
  while (!signal.aborted) {
    if (hasStream) hasStream = await stream(on, signal);
    on.state?.("polling");
    const until = performance.now() + STREAM_AGAIN_MS;
    while (!signal.aborted && (!hasStream || performance.now() < until)) {
      await isSeen(signal);
      if (!signal.aborted) await on.poll();
      await sleep(POLL_MS, signal);
    }
  }
};

/** Follow a list's stream as long as it can be had. Returns whether there may be one again. */
const stream = async (on, signal) => {
  try {
    await follow({
      url: listStream,
      take: ({ event, data }) => event === "job" && on.job(parse(data)),
      isOver: () => false,
      onOpen: () => on.state?.("live"),
      // What changed meanwhile.
      onLost: () => on.poll(),
      signal,
      needsLife: true,
    });
  } catch (error) {
    if (!signal.aborted) console.warn(error.message);
    return !(error instanceof NoStream) && ![404, 405, 501].includes(error.status);
  }
  return true;
};

/** What was opened as a stream is a snapshot: each answer ends at once, as behind an HTTP API. */
class NoStream extends Error {
  message = "The stream of events ends at once: this API sends snapshots.";
}

/** Read a stream until it is over, through lost connections and hidden tabs. Raises what cannot be healed. */
const follow = async ({ url, take, isOver, onOpen, onLost, signal, needsLife = false }) => {
  let last = null;
  let short = 0;
  let isRenewed = false;
  for (let tries = 0; !signal.aborted && !isOver(); tries += 1) {
    await isSeen(signal);
    if (signal.aborted) return;
    const began = performance.now();
    try {
      if (tries && onLost) await onLost();
      await read(address(await url()), last, signal, (frame) => {
        if (frame.id !== null) last = frame.id;
        if (frame.data) take(frame);
      }, () => {
        tries = 0;
        isRenewed = false;
        onOpen?.();
      });
      const isSnapshot = performance.now() - began < POLL_MS * 2;
      short = isSnapshot ? short + 1 : 0;
      if (needsLife && short >= 2) throw new NoStream();
      if (isSnapshot && !isOver()) await sleep(needsLife ? POLL_MS : 500, signal);
      tries = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Paused) continue;
      if (error.status === 401 && !isRenewed) {
        isRenewed = true; // the link had expired before it was used: there is another one
        continue;
      }
      if (error instanceof NoStream || (error.status >= 400 && error.status < 500 && error.status !== 429)) throw error;
      if (!error.status) setLost(true, tries);
      else if (needsLife && tries + 1 >= MOST_TRIES) throw error;
      await sleep(Math.min(1000 * 2 ** tries, LONGEST_PAUSE_MS), signal);
    }
  }
};

/** Nobody looks: the stream was closed, and is opened again when somebody does. */
class Paused extends Error {}

const read = async (url, last, signal, take, onOpen) => {
  const silence = new AbortController();
  let timer = null;
  let hidden = null;
  const isPaused = () => document.hidden && silence.signal.aborted;
  const look = () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(() => silence.abort(), HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", look);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  alive();
  try {
    const headers = { accept: "text/event-stream", ...rights(url), ...(last === null ? {} : { "last-event-id": last }) };
    const response = await fetch(url, {
      headers, cache: "no-store", credentials: "omit", signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok) throw await refusal(response);
    setLost(false);
    onOpen();
    const events = new EventReader();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      events.read(value).forEach(take);
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    if (isPaused()) throw new Paused();
    throw new ApiError(0, "connection_lost", "The stream of events was lost.");
  } finally {
    clearTimeout(timer);
    clearTimeout(hidden);
    document.removeEventListener("visibilitychange", look);
  }
};

const isSeen = (signal) => new Promise((done) => {
  if (!document.hidden || signal.aborted) return void done();
  const check = () => {
    if (document.hidden && !signal.aborted) return;
    document.removeEventListener("visibilitychange", check);
    signal.removeEventListener("abort", check);
    done();
  };
  document.addEventListener("visibilitychange", check);
  signal.addEventListener("abort", check);
});

const sleep = (ms, signal) => new Promise((done) => {
  const end = () => {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    done();
  };
  const timer = setTimeout(end, ms);
  signal.addEventListener("abort", end);
});

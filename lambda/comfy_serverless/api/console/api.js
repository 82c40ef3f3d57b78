// Requests to the API that has served this page. The key is in this tab's session storage, and in no address.

import { parse, stringify } from "./exact.js";

const ROOT = new URL("../", import.meta.url);
const KEY = "comfy-serverless-key";
const LONGEST_WAIT_S = 15;

/** A refusal, as the API says it. `status` 0: the request did not reach it. */
export class ApiError extends Error {
  constructor(status, code, message, details = null) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, details });
  }
}

/** Tells `key` (another key, or none), `refused` (it does not work) and `connection` ({isLost, tries}). */
export const signals = new EventTarget();
const tell = (kind, detail) => signals.dispatchEvent(new CustomEvent(kind, { detail }));

let scope = new AbortController();
let known = null;
let isLost = false;

/** The key of this tab; "" for none. */
export const key = () => sessionStorage.getItem(KEY) ?? "";

/** Use this key from now on. */
export const setKey = (text) => {
  // What a page keeps is the key's owner's.
  if (text !== key()) sessionStorage.clear();
  sessionStorage.setItem(KEY, text);
  known = null;
  tell("key", { has: true });
};

/** Use no key any more, and forget all that was kept under it. */
export const forget = () => {
  sessionStorage.clear();
  known = null;
  tell("key", { has: false });
};

/** End what the page before this one still waits for: its `get`s, never what changes something. */
export const leave = () => {
  scope.abort();
  scope = new AbortController();
};

/** Ends with the page that is shown now. */
export const pageSignal = () => scope.signal;

/** The address of a path: "jobs" is /api/v2/jobs; one with a slash in front, or a whole one, is meant as it is. */
export const address = (path, query = {}) => {
  const url = /^https?:/.test(path)
    ? new URL(path)
    : new URL(path.startsWith("/") ? path.slice(1) : `api/v2/${path}`, ROOT);
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  return url;
};

/** The API itself, as SDKs are told it. */
export const baseUrl = () => ROOT.href.replace(/\/$/, "");

/** Headers that show whose request it is, for the API's own origin only: a signed link has its right in itself. */
export const rights = (url) => (new URL(url).origin === ROOT.origin && key() ? { authorization: `Bearer ${key()}` } : {});

/** What the API answers. `get` is tried again and ends with its page; the others are sent once and go on without it. All raise ApiError. */
export const get = (path, query, options = {}) =>
  again(() => send("GET", path, { query, ...options, signal: options.signal === undefined ? scope.signal : options.signal }));
export const post = (path, body, options = {}) => send("POST", path, { body, ...options });
export const put = (path, body, options = {}) => send("PUT", path, { body, ...options });
export const del = (path, options = {}) => send("DELETE", path, options);

const asked = new Map();
/** A page of a job's outputs; all who ask for it at once, as the pictures of a page do, have one request. */
const pageOf = (jobId, cursor) => {
  const path = `jobs/${encodeURIComponent(jobId)}/outputs`;
  const at = `${path} ${cursor}`;
  if (!asked.has(at)) asked.set(at, get(path, { limit: 100, cursor }).finally(() => asked.delete(at)));
  return asked.get(at);
};
/** Whether the links of an output have ended. */
export const hasEnded = (one) => new Date(one.url_expires_at ?? Infinity) < new Date();
/** An output whose links work: after `url_expires_at` it gets others; once, if they have ended by the clock here, too. */
export const linked = async (output) => {
  for (let cursor = null; hasEnded(output);) {
    const page = await pageOf(output.job_id, cursor);
    const now = page.outputs.find((one) => one.id === output.id);
    if (now) return Object.assign(output, { url: now.url, thumb_url: now.thumb_url, url_expires_at: hasEnded(now) ? null : now.url_expires_at });
    cursor = page.next_cursor;
    if (!cursor) break;
  }
  return output;
};

/** Whose key it is (`/api/v2/me`), asked once; null from an API that does not tell. */
export const me = () => {
  known ??= get("me", {}, { signal: null }).catch((error) => {
    if (error.status === 404) return null;
    known = null;
    throw error;
  });
  return known;
};

/** An id for a request that must not be done twice, however often it is sent. */
export const newId = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");

/** Up to here a file goes through the API, in one request; larger ones go straight to S3. */
const SMALL_BYTES = 3_000_000;

/**
 * Upload a file.
 * @param {File} file
 * @param {(share: number) => void} onProgress from 0 to 1
 * @param expiresIn seconds after which it is deleted again; without it, it stays
 * @returns the asset
 */
export const upload = async (file, onProgress = () => {}, { signal, expiresIn } = {}) => {
  if (file.size && file.size <= SMALL_BYTES) {
    const form = new FormData();
    form.append("file", file, file.name);
    form.append("content_type", file.type || "application/octet-stream");
    form.append("file_path", file.name);
    if (expiresIn) form.append("expires_in", expiresIn);
    const asset = await post("assets", form, { signal });
    onProgress(1);
    return asset;
  }
  const begun = await post("uploads", {
    file_path: file.name, content_type: file.type || "application/octet-stream", size_bytes: file.size,
    ...(expiresIn ? { expires_in: expiresIn } : {}),
  }, { signal });
  await sendFile(begun, file, onProgress, signal);
  return post(begun.complete_url, undefined, { signal });
};

/** A body to a link; `fetch` would not tell how far it is. */
const sendFile = ({ url, method, headers }, file, onProgress, signal) => new Promise((done, fail) => {
  const request = new XMLHttpRequest();
  const lost = () => fail(new ApiError(0, "connection_lost", `${file.name} could not be uploaded: the connection was lost.`));
  request.open(method, url);
  for (const [name, value] of Object.entries(headers)) {
    // A browser sends those itself.
    if (!/^(content-length|host)$/i.test(name)) request.setRequestHeader(name, value);
  }
  request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
  request.addEventListener("load", () => {
    if (request.status < 300) done();
    else fail(new ApiError(request.status, "upload_failed", `${file.name} could not be uploaded: S3 answers ${request.status}.`));
  });
  request.addEventListener("error", lost);
  request.addEventListener("abort", () => fail(new DOMException("stopped", "AbortError")));
  signal?.addEventListener("abort", () => request.abort(), { once: true });
  request.send(file);
});

const send = async (method, path, { query, body, idempotencyKey, headers = {}, signal = undefined } = {}) => {
  const url = address(path, query);
  const options = { method, headers: { ...rights(url), ...headers }, signal, cache: "no-store", credentials: "omit" };
  if (idempotencyKey) options.headers["idempotency-key"] = idempotencyKey;
  if (body instanceof FormData || body instanceof Blob) options.body = body;
  else if (body !== undefined) {
    options.body = stringify(body);
    options.headers["content-type"] ??= "application/json";
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "connection_lost", "The API cannot be reached.");
  }
  setLost(false);
  if (response.ok) return content(response);
  throw await refusal(response);
};

const content = async (response) => {
  if (response.status === 204) return null;
  const text = await response.text();
  if (!/json/.test(response.headers.get("content-type") ?? "")) return text;
  return text ? parse(text) : null;
};

/** What an answer that is no success says; a key that does not work is told to whoever asks for keys. A link has its own right: its end says nothing of the key. */
export const refusal = async (response) => {
  const told = await response.json().catch(() => ({}));
  const error = told.error ?? {};
  // API Gateway itself refuses a key that the authorizer does not know, without our words.
  const isLink = /^https?:/.test(response.url) && new URL(response.url).origin !== ROOT.origin;
  const isKey = !isLink && (response.status === 401 || (response.status === 403 && !told.error));
  if (isKey) tell("refused", { had: Boolean(key()) });
  const message = error.message ?? (isKey ? "The key does not work." : told.message) ?? `The API answers ${response.status}.`;
  return new ApiError(response.status, error.code ?? (isKey ? "unauthorized" : "error"), message, error.details ?? null);
};

/** Repeat what only reads until the API can be reached; 503 and 429 a few times. */
const again = async (ask) => {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask();
    } catch (error) {
      const isGone = error.status === 0;
      const isBusy = [429, 502, 503, 504].includes(error.status) && tries < 3;
      if (!isGone && !isBusy) throw error;
      if (isGone) setLost(true, tries);
      await pause(Math.min(2 ** (tries - 1), LONGEST_WAIT_S));
    }
  }
};

/** Wait; less, when the machine is back in its network or the tab is looked at again. Raises when the page is left. */
const pause = (seconds) => new Promise((done, fail) => {
  const { signal } = scope;
  const end = (then) => () => {
    clearTimeout(timer);
    window.removeEventListener("online", early);
    signal.removeEventListener("abort", stop);
    then();
  };
  const early = end(done);
  const stop = end(() => fail(new DOMException("left", "AbortError")));
  const timer = setTimeout(early, seconds * 1000);
  window.addEventListener("online", early);
  signal.addEventListener("abort", stop);
});

/** Say that the API can be reached, or not. */
export const setLost = (now, tries = 0) => {
  if (now === isLost && !now) return;
  isLost = now;
  tell("connection", { isLost: now, tries });
};

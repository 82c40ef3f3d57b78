// The frame around the pages: addresses, navigation, the key, the connection.

import * as api from "./api.js";
import { h, replace } from "./dom.js";
import { dialog, failure, icon, keepTimes } from "./parts.js";

/** The pages, by the first part of the address; each is loaded when it is shown. */
const PAGES = {
  jobs: () => import("./jobs.js"),
  job: () => import("./job.js"),
  gallery: () => import("./gallery.js"),
  run: () => import("./run.js"),
  batches: () => import("./batches.js"),
  workflows: () => import("./workflows.js"),
  usage: () => import("./admin.js"),
};
const NAV = [
  ["jobs", "Jobs", "pulse"], ["gallery", "Gallery", "image"], ["run", "Run", "play"],
  ["batches", "Batches", "copy"], ["workflows", "Workflows", "cube"], ["usage", "Usage", "chart"],
];

const root = document.getElementById("page");
const banner = document.getElementById("banner");
let cleanup = null;
let turn = 0;

/** An address behind `#`: the page, its further parts, and what is asked for. */
export const parse = (hash) => {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [first, ...params] = path.split("/").filter(Boolean).map(decoded);
  const name = first === undefined ? "jobs" : first === "jobs" && params.length ? "job" : first;
  return { name, params, query: new URLSearchParams(query) };
};

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

const show = async ({ isFirst = false } = {}) => {
  const mine = ++turn;
  const { name, params, query } = parse(location.hash);
  leave();
  paintNav(name === "job" ? "jobs" : name);
  if (!api.key()) {
    replace(root);
    askForKey();
    return;
  }
  const load = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  if (!load) {
    replace(root, h("div", { class: "empty" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/jobs" }, "To the jobs"))));
    return;
  }
  root.setAttribute("aria-busy", "true");
  try {
    const page = (await load().catch(missing)).default;
    if (mine !== turn) return;
    document.title = `${page.title} – comfy-serverless`;
    root.className = `page-${page.name}`;
    replace(root);
    const end = await page.show(root, params, query);
    if (mine !== turn) end?.();
    else cleanup = end;
  } catch (error) {
    if (mine === turn && error.name !== "AbortError" && error.status !== 401) replace(root, failure(error, () => show()));
  } finally {
    if (mine === turn) {
      root.removeAttribute("aria-busy");
      if (!isFirst) (root.querySelector("h1") ?? root).focus({ preventScroll: true });
    }
  }
};

/**
 * A module could not be had: the connection is lost, or another release is served by now. A browser does not try it
 * again in the same document, so the page is loaded anew, once, as soon as the API can be reached.
 */
const missing = async (error) => {
  await api.get("health");
  if (history.state?.again) throw error;
  history.replaceState({ again: true }, "");
  location.reload();
  return new Promise(() => {});
};

const leave = () => {
  api.leave();
  try {
    cleanup?.();
  } finally {
    cleanup = null;
  }
};

const paintNav = (current) =>
  replace(document.getElementById("nav"), NAV.map(([name, title, mark]) =>
    h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, icon(mark), h("span", {}, title))));

const paintWho = async () => {
  const box = document.getElementById("who");
  if (!api.key()) return void replace(box);
  const open = h("button", { type: "button", class: "button quiet small", onclick: showWho }, icon("key"), h("span", {}, "Key"));
  replace(box, open);
  const me = await api.me().catch(() => null);
  if (me) replace(open, icon("key"), h("span", {}, me.owner));
};

const showWho = async () => {
  const me = await api.me().catch(() => null);
  dialog("This key", (close) => [
    me ? h("p", {}, `Owner ${me.owner}, key ${me.key_name}${me.is_admin ? ", for admins" : ""}. comfy-serverless ${me.version ?? ""}.`) : null,
    h("p", { class: "dim" }, "It is kept in this tab, and gone when the tab is closed."),
    h("div", { class: "actions" },
      h("a", { class: "button quiet", href: "docs", target: "_blank", rel: "noopener" }, "API"),
      h("button", { type: "button", class: "button", onclick: () => { close(); api.forget(); } }, "Forget the key")),
  ], { kind: "small" });
};

let asking = null;
const askForKey = async (note = "") => {
  if (asking?.element.isConnected) {
    if (note) asking.note(note);
    return;
  }
  const message = h("p", { class: "bad", role: "alert" }, note);
  const input = h("input", {
    type: "password", id: "key", autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true, autofocus: true,
  });
  const local = h("div", {});
  const use = async (text) => {
    const { status } = await fetch(api.address("me"), {
      headers: { authorization: `Bearer ${text}` }, cache: "no-store", credentials: "omit",
    }).then(async (answer) => (await answer.text(), answer), () => ({ status: 0 }));
    if (status === 401 || status === 403) return void replace(message, "This key does not work: it is unknown, revoked or expired.");
    if (!status) return void replace(message, "The API cannot be reached.");
    asking.wasUsed = true;
    asking.close();
    api.setKey(text);
  };
  const form = h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (/^[\x21-\x7e]+$/.test(text)) use(text);
      else replace(message, "A key has letters, digits and signs of ASCII, and no blanks.");
    },
  },
  h("p", {}, "The console shows what the owner of a key may see. ", h("code", {}, "comfy-serverless keys create"), " makes one."),
  h("div", { class: "field" }, h("label", { for: "key" }, "API key"), input),
  message,
  h("p", { class: "hint" }, "It stays in this tab and is sent to this API only, in a header."),
  h("div", { class: "actions" }, local, h("button", { class: "button primary" }, "Open")));
  const opened = dialog("Your key", form, {
    kind: "small",
    closed: () => {
      if (!asking?.wasUsed && !api.key()) {
        replace(root, h("div", { class: "empty" }, h("h1", {}, "A key opens the console"),
          h("p", {}, h("button", { type: "button", class: "button primary", onclick: () => askForKey() }, "Enter a key"))));
      }
    },
  });
  asking = { ...opened, note: (text) => replace(message, text), wasUsed: false };
  // `make dev` on this machine tells its well-known key; an API on AWS has no such file, and is not asked.
  if (/^(127\.0\.0\.1|localhost|\[::1\])$/.test(location.hostname)) {
    const told = await fetch(new URL("../console/development-key", import.meta.url)).then((answer) => (answer.ok ? answer.json() : null)).catch(() => null);
    if (told?.key) replace(local, h("button", { type: "button", class: "button", onclick: () => use(told.key) }, "Use this machine’s development key"));
  }
};

api.signals.addEventListener("key", ({ detail }) => {
  paintWho();
  if (!detail.has) leave();
  show();
});
api.signals.addEventListener("refused", ({ detail }) => {
  if (!detail.had) return;
  sessionStorage.clear();
  leave();
  paintWho();
  askForKey("The key does not work any more: it was revoked, or has expired.");
});
api.signals.addEventListener("connection", ({ detail }) =>
  replace(banner, detail.isLost ? h("p", {}, icon("warn"), "The connection is lost. What you see may be old; it is tried again.") : null));
window.addEventListener("hashchange", () => show());
setInterval(() => document.hidden || keepTimes(), 15_000);

paintWho();
show({ isFirst: true });

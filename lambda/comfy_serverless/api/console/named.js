// What several pages know of named workflows.

import { get, put } from "./api.js";
import { h, replace } from "./dom.js";
import { dialog } from "./parts.js";

const MOST_PAGES = 20;

/** Every page of a list, up to a bound: what is beyond it is not shown. */
export const pagesOf = async (path, name, query = {}) => {
  const found = [];
  let cursor;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const told = await get(path, { limit: 100, ...query, cursor });
    found.push(...told[name]);
    cursor = told.next_cursor;
    if (!cursor) break;
  }
  return found;
};

/** The workflows that this key's owner may run. */
export const all = () => pagesOf("workflows", "workflows");

export const sourceWord = (source) => ({ own: "yours", operator: "shared by the operator", image: "in the image" })[source] ?? source;

/** Ask for a name, keep a workflow under it, and go there. */
export const keepAs = (workflow, name, { isFixed = false, done = null } = {}) => {
  const called = h("input", { type: "text", value: name, id: "keep-name", maxlength: 64, readonly: isFixed, autofocus: !isFixed, required: true });
  const note = h("input", { type: "text", id: "keep-note", maxlength: 1000, autofocus: isFixed });
  const force = h("input", { type: "checkbox", role: "switch" });
  const problem = h("div", { role: "alert" });
  const forced = h("label", { class: "switch", hidden: true }, force, "Keep it all the same");
  const opened = dialog(isFixed ? `A new version of ${name}` : "Keep it under a name", h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        const kept = await put(`workflows/${encodeURIComponent(called.value.trim())}`, { workflow, note: note.value, force: force.checked });
        opened.close();
        if (done) done(kept);
        else location.hash = `#/workflows/${encodeURIComponent(kept.name)}`;
      } catch (error) {
        replace(problem, h("div", { class: "notice bad" }, h("p", {}, error.message)));
        forced.hidden = !error.details?.findings;
      }
    },
  },
  h("div", { class: "field" }, h("label", { for: "keep-name" }, "Name"), called, h("small", { class: "hint" }, "Letters, digits, - and _")),
  h("div", { class: "field" }, h("label", { for: "keep-note" }, "What is new"), note),
  problem, forced,
  h("div", { class: "actions" }, h("button", { class: "button primary" }, "Keep"))), { kind: "small" });
};

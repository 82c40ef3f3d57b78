// One output as large as the window, and the way to the next one.

import { h, replace } from "./dom.js";
import { bytes, dialog, facts, icon, labels, time } from "./parts.js";
import { dimensions, download, full, name } from "./media.js";

/**
 * Open it.
 * @param outputs the list, which may grow meanwhile
 * @param index the first that is shown
 * @param onNearEnd called when the last ones come near
 */
export const lightbox = (outputs, index, { onNearEnd = () => {}, isInJob = false } = {}) => {
  const stage = h("div", { class: "stage" });
  const side = h("div", { class: "side" });
  const where = h("p", { class: "sr", role: "status" });
  let at = index;
  const step = (by) => {
    const to = at + by;
    if (to < 0 || to >= outputs.length) return;
    at = to;
    paint();
    if (at >= outputs.length - 4) onNearEnd();
  };
  const back = h("button", { type: "button", class: "button quiet icon-only step", "aria-label": "Previous", onclick: () => step(-1) }, icon("left", 20));
  const next = h("button", { type: "button", class: "button quiet icon-only step", "aria-label": "Next", onclick: () => step(1) }, icon("right", 20));
  const opened = dialog("Output", h("div", { class: "lightbox-body" }, back, stage, next, side, where), { kind: "lightbox" });
  const title = opened.element.querySelector("h2");
  const paint = () => {
    const output = outputs[at];
    replace(stage, full(output));
    replace(title, name(output));
    replace(where, `${at + 1} of ${outputs.length}: ${name(output)}`);
    back.disabled = at === 0;
    next.disabled = at === outputs.length - 1;
    replace(side, detail(output, isInJob, opened.close));
  };
  opened.element.addEventListener("keydown", (event) => {
    if (/^(INPUT|TEXTAREA|VIDEO|AUDIO|PRE)$/.test(event.target.tagName)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, j: 1, k: -1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  paint();
  (next.disabled ? back : next).focus();
  return opened;
};

const detail = (output, isInJob, close) => [
  facts([
    ["Size", dimensions(output)], ["File", bytes(output.size_bytes)], ["Type", output.content_type],
    ["Node", output.node_id ? `${output.node_id} ${output.class_type ?? ""}` : null],
    ...Object.entries(output.seeds ?? {}).slice(0, 4).map(([place, seed]) => [Object.keys(output.seeds).length > 1 ? `Seed ${place}` : "Seed", h("code", {}, String(seed))]),
    ["Made", output.created_at ? time(output.created_at) : null],
    ["Batch", output.batch ? h("a", { href: `#/batches/${encodeURIComponent(output.batch)}`, onclick: close }, output.batch) : null],
  ]),
  Object.keys(output.metadata ?? {}).length ? h("div", { onclick: (event) => event.target.closest("a") && close() }, labels(output.metadata, 8)) : null,
  h("div", { class: "stack tight" },
    download(output, "Download", ""),
    h("a", { class: "button", href: changesOf(output), onclick: close }, icon("edit"), "Run again with changes"),
    isInJob ? null : h("a", { class: "button quiet", href: `#/jobs/${encodeURIComponent(output.job_id)}`, onclick: close }, "Open the job")),
];

/** The form of what made it, filled with what it ran with. */
export const changesOf = ({ job_id: id, metadata }) =>
  `#/run${metadata?.workflow ? `/${encodeURIComponent(metadata.workflow)}` : ""}?from=${encodeURIComponent(id)}`;

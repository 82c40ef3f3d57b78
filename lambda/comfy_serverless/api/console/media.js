// Outputs as people see and hear them, small and as large as the window. A file is shown only so that it can run nothing.

import { hasEnded, linked, newId, post } from "./api.js";
import { h, replace } from "./dom.js";
import { action, bytes, dialog, facts, icon, isPicture, labels, thumb, time, toast } from "./parts.js";

const MOST_TEXT_BYTES = 200_000;
/** A larger file is saved by the browser itself, from its link. */
const MOST_HELD_BYTES = 300_000_000;
/** Of texts that a node says itself, the type has a charset. */
const TEXTS = /^(text\/(plain|csv|markdown)|application\/(json|x-ndjson))(;|$)/;

/** What a browser plays or shows of it, by its media type. */
export const isVideo = (output) => /^video\/(mp4|webm|ogg|quicktime)$/.test(output.content_type);
export const isSound = (output) => /^audio\/[\w.+-]+$/.test(output.content_type);
export const isText = (output) => TEXTS.test(output.content_type);
/** What the lightbox can show; anything else (3D, SVG, HTML, archives, latents) is a file to download. */
export const isShown = (output) => isPicture(output) || isVideo(output) || isSound(output) || isText(output);

/** The whole output: a picture, a player, a text; or a mark and what it is. */
export const full = (output) => {
  if (!output.url) return file(output);
  if (isPicture(output)) return shown("img", output, { alt: name(output), width: output.width, height: output.height, decoding: "async" });
  const player = { controls: true, preload: "metadata", "aria-label": name(output) };
  if (isVideo(output)) return shown("video", output, { ...player, loop: true, playsinline: true, poster: output.thumb_url });
  if (isSound(output)) return shown("audio", output, player);
  return isText(output) ? text(output) : file(output);
};

/** An element that shows an output. Where its link has ended it takes another one; what cannot be decoded is a file. */
const shown = (tag, output, props) => {
  const element = h(tag, props);
  let address = output.url;
  element.addEventListener("error", async () => {
    await linked(output).catch(() => null);
    if (output.url === address) return void element.replaceWith(file(output, "It cannot be shown here: download it."));
    element.src = address = output.url;
  });
  element.src = address;
  return element;
};

/** For pictures without a link to show, and all that must not run here. */
const file = (output, why = null) =>
  h("div", { class: "as-file" }, thumb({ ...output, url: null }, { size: 96 }), h("p", {}, output.content_type || "a file"), why && h("p", {}, why));

const text = (output) => {
  const box = h("pre", { tabindex: "0", "aria-label": name(output) }, "…");
  linked(output).then(({ url }) => fetch(url, { headers: { range: `bytes=0-${MOST_TEXT_BYTES - 1}` }, credentials: "omit" }))
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(String(answer.status)))))
    .then((told) => replace(box, told, output.size_bytes > MOST_TEXT_BYTES ? "\n… the rest is in the file" : null))
    .catch(() => replace(box, "The text cannot be shown here: download it."));
  return box;
};

/** What an output is called, for those who do not see it. */
export const name = (output) => `${output.title || output.class_type || "Output"}: ${output.name}`;

/** "1024 × 768"; null if it has none. */
export const dimensions = (output) => (output.width && output.height ? `${output.width} × ${output.height}` : null);

/** What is told below an output. */
export const caption = (output) =>
  [output.title || output.class_type, dimensions(output), bytes(output.size_bytes)].filter(Boolean).join(" · ");

/** Saves the file. Where S3 lets this page read it, under its name; else it opens beside this page. */
export const download = (output, label = "Download", kind = "small") =>
  action(label, async () => {
    if (!output.url) return void toast("There is no link to this file.", "bad");
    let address = (await linked(output)).url;
    // Where the bucket lets no page read it, the link does.
    const answer = output.size_bytes < MOST_HELD_BYTES ? await fetch(address, { credentials: "omit" }).catch(() => null) : null;
    if (answer && !answer.ok) return void toast(`${output.name} cannot be had: S3 answers ${answer.status}.`, "bad");
    if (answer) address = URL.createObjectURL(await answer.blob());
    const link = h("a", { href: address, download: output.name.split("/").at(-1), target: address === output.url ? "_blank" : null, rel: "noopener" });
    link.click();
    if (address !== output.url) setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }, { kind, name: "save", "aria-label": `Download ${output.name}` });

/** The way to a file, beside this page; a link that has ended is asked for anew first. */
export const fileLink = (output, ...content) => h("a", {
  href: output.url, target: "_blank", rel: "noopener", title: output.name,
  onclick: async (event) => {
    const link = event.currentTarget;
    if (!hasEnded(output)) return void (link.href = output.url);
    event.preventDefault();
    try {
      link.href = (await linked(output)).url;
    } catch (error) {
      return void (error.name !== "AbortError" && toast(error.message, "bad"));
    }
    // Not this link's own `click`: where no other link is to be had it would ask for ever.
    h("a", { href: link.href, target: "_blank", rel: "noopener" }).click();
  },
}, content);

/** A tile of a grid: the small picture, and what it is. `open` is called when it is chosen. */
export const tile = (output, open, size = 200) =>
  h("figure", { class: "piece" },
    h("button", { type: "button", class: "piece-open", "aria-label": `Open ${name(output)}`, onclick: open }, thumb(output, { size })),
    h("figcaption", {}, h("span", { class: "cut", title: output.name }, isPicture(output) || isVideo(output) ? caption(output) : `${output.name} · ${bytes(output.size_bytes)}`), isSound(output) && output.url ? full(output) : null));

/**
 * One output as large as the window, and the way to the next one.
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

/** Run a job's request again, as it was asked: a seed of -1 is drawn anew. Returns the new job. */
export const again = async (job) => {
  const made = await post(`jobs/${encodeURIComponent(job.id)}/again`, {}, { idempotencyKey: newId() });
  toast(["It runs again: ", h("a", { href: `#/jobs/${encodeURIComponent(made.id)}` }, made.id.slice(0, 13))]);
  return made;
};

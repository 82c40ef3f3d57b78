// Outputs as people see and hear them. A file is shown only in a way in which it cannot run anything.

import { h, replace } from "./dom.js";
import { action, bytes, isPicture, thumb, toast } from "./parts.js";

const MOST_TEXT_BYTES = 200_000;
const TEXTS = /^(text\/(plain|csv|markdown)|application\/(json|x-ndjson))$/;

export const isVideo = (output) => /^video\/(mp4|webm|ogg|quicktime)$/.test(output.content_type);
export const isSound = (output) => /^audio\/[\w.+-]+$/.test(output.content_type);
export const isText = (output) => TEXTS.test(output.content_type);
/** What the lightbox can show; anything else (3D, SVG, HTML, archives, latents) is a file to download. */
export const isShown = (output) => isPicture(output) || isVideo(output) || isSound(output) || isText(output);

/** The whole output: a picture, a player, a text; or a mark and what it is. */
export const full = (output) => {
  if (!output.url) return file(output);
  if (isPicture(output)) return h("img", { src: output.url, alt: name(output), width: output.width, height: output.height, decoding: "async" });
  if (isVideo(output)) return h("video", { src: output.url, controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": name(output), poster: output.thumb_url });
  if (isSound(output)) return h("audio", { src: output.url, controls: true, preload: "metadata", "aria-label": name(output) });
  return isText(output) ? text(output) : file(output);
};

/** For pictures without a link to show, and all that must not run here. */
const file = (output) => h("div", { class: "as-file" }, thumb({ ...output, url: null, thumb_url: output.thumb_url }, { size: 96 }), h("p", {}, output.content_type || "a file"));

const text = (output) => {
  const box = h("pre", { tabindex: "0", "aria-label": name(output) }, "…");
  fetch(output.url, { headers: { range: `bytes=0-${MOST_TEXT_BYTES - 1}` }, credentials: "omit" })
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(String(answer.status)))))
    .then((told) => replace(box, told, output.size_bytes > MOST_TEXT_BYTES ? "\n… the rest is in the file" : null))
    .catch(() => replace(box, "The text cannot be shown here: download it."));
  return box;
};

export const name = (output) => `${output.title || output.class_type || "Output"}: ${output.name}`;

export const dimensions = (output) => (output.width && output.height ? `${output.width} × ${output.height}` : null);

/** What is told below an output. */
export const caption = (output) =>
  [output.title || output.class_type, dimensions(output), bytes(output.size_bytes)].filter(Boolean).join(" · ");

/** Saves the file. Where S3 lets this page read it, under its name; else it opens beside this page. */
export const download = (output, label = "Download", kind = "small") =>
  action(label, async () => {
    if (!output.url) return void toast("There is no link to this file.", "bad");
    let address = output.url;
    try {
      if (output.size_bytes < 300_000_000) address = URL.createObjectURL(await (await fetch(output.url, { credentials: "omit" })).blob());
    } catch {
      // the bucket allows no page to read it: the link does
    }
    const link = h("a", { href: address, download: output.name.split("/").at(-1), target: address === output.url ? "_blank" : null, rel: "noopener" });
    link.click();
    if (address !== output.url) setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }, { kind, name: "save", "aria-label": `Download ${output.name}` });

/** A tile of a grid: the small picture, and what it is. `open` is called when it is chosen. */
export const tile = (output, open, size = 200) =>
  h("figure", { class: "piece" },
    h("button", { type: "button", class: "piece-open", "aria-label": `Open ${name(output)}`, onclick: open }, thumb(output, { size })),
    h("figcaption", {}, h("span", { class: "cut" }, caption(output)), isSound(output) && output.url ? full(output) : null));


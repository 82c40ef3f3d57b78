// Saves many files as one archive, without holding them: into a file that is chosen, or one that the browser keeps.

import { ApiError } from "./api.js";
import { h } from "./dom.js";
import { zipTo } from "./zip.js";

const AT_ONCE = 4;

/**
 * Write the files of outputs into a ZIP.
 * @param outputs what gives them one after the other, with links that work now
 * @returns {files, lost: names}; null if nobody chose a place
 */
export const saveAll = async (name, outputs, { signal, onFile }) => {
  const sink = await sinkFor(name);
  if (!sink) return null;
  const zip = zipTo((bytes) => sink.write(bytes));
  const told = { files: 0, lost: [] };
  let size = 0;
  try {
    for await (const { output, response } of ahead(outputs, signal)) {
      if (!response) {
        told.lost.push(output.name);
        continue;
      }
      await zip.add(pathOf(output), counted(response.body, (count) => { size += count; }));
      onFile((told.files += 1), size);
    }
    await zip.end();
    await sink.close();
    return told;
  } catch (error) {
    await sink.abort();
    throw error;
  }
};

/** Save the links alone, one a line. Returns how many. */
export const saveLinks = async (name, outputs) => {
  const lines = [];
  for await (const output of outputs) lines.push(output.url);
  hand(new Blob([`${lines.join("\n")}\n`], { type: "text/plain" }), name);
  return lines.length;
};

/** `0012_fox_00001_.png`: by their lines in a folder, those of one line together. */
const pathOf = (output) => `${String(output.line ?? 0).padStart(6, "0")}_${output.name}`;

/** Some answers begin while the file before them is written. Bodies wait in the browser's own buffers, which are small. */
async function* ahead(outputs, signal) {
  const waiting = [];
  const begin = (output) => ({ output, asked: fetch(output.url, { signal, credentials: "omit" }).then((response) => (response.ok ? response : null), (error) => { if (signal.aborted) throw error; return null; }) });
  for await (const output of outputs) {
    waiting.push(begin(output));
    waiting.at(-1).asked.catch(() => {});
    if (waiting.length >= AT_ONCE) yield settled(waiting.shift());
  }
  while (waiting.length) yield settled(waiting.shift());
}

const settled = async ({ output, asked }) => ({ output, response: await asked });

async function* counted(body, count) {
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    count(value.length);
    yield value;
  }
}

/** Where bytes go: {write, close, abort}. */
const sinkFor = async (name) => {
  if (window.showSaveFilePicker) {
    try {
      const handle = await window.showSaveFilePicker({ suggestedName: name });
      return await handle.createWritable();
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    }
  }
  // A file that only this page sees, on disk, and then handed over.
  const folder = await navigator.storage?.getDirectory?.().catch(() => null);
  const handle = await folder?.getFileHandle(`${Date.now()}.zip`, { create: true });
  if (!handle?.createWritable) {
    throw new ApiError(0, "not_supported", "This browser writes no files while it fetches them: take the links, or `comfy-serverless batch download`.");
  }
  const stream = await handle.createWritable();
  return {
    write: (bytes) => stream.write(bytes),
    close: async () => {
      await stream.close();
      hand(await handle.getFile(), name);
    },
    abort: async () => {
      await stream.abort();
      await folder.removeEntry(handle.name).catch(() => {});
    },
  };
};

const hand = (file, name) => {
  const url = URL.createObjectURL(file);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

// Saves many files as one archive, without holding them: into a file that is chosen, or one that the browser keeps.

import { ApiError } from "./api.js";
import { hand } from "./intake.js";

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

const UTF8_AND_SIZES_BEHIND = 0x0808;
const ZIP64 = 0xffffffff;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

/** The CRC-32 of bytes, begun by that of those before them. */
export const crc32 = (bytes, before = 0) => {
  let crc = ~before;
  for (let at = 0; at < bytes.length; at += 1) crc = TABLE[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
};

/**
 * A ZIP.
 * @param write takes bytes, and may return a promise
 */
export const zipTo = (write) => {
  const entries = [];
  const taken = new Set();
  let offset = 0;
  const put = async (bytes) => {
    offset += bytes.length;
    await write(bytes);
  };
  return {
    /** Add a file. `chunks` gives its bytes, piece by piece. */
    add: async (name, chunks) => {
      const entry = { name: new TextEncoder().encode(unused(safeName(name), taken)), offset, crc: 0, size: 0 };
      await put(record(0x04034b50, [[2, 45], [2, UTF8_AND_SIZES_BEHIND], [2, 0], [4, 0x00210000], [4, 0], [4, ZIP64], [4, ZIP64], [2, entry.name.length], [2, 20]], entry.name, extra([0, 0])));
      for await (const chunk of chunks) {
        entry.crc = crc32(chunk, entry.crc);
        entry.size += chunk.length;
        await put(chunk);
      }
      await put(record(0x08074b50, [[4, entry.crc], [8, entry.size], [8, entry.size]]));
      entries.push(entry);
    },
    /** Write the list of what is in it. */
    end: async () => {
      const start = offset;
      for (const { name, crc, size, offset: at } of entries) {
        await put(record(0x02014b50, [[2, 45], [2, 45], [2, UTF8_AND_SIZES_BEHIND], [2, 0], [4, 0x00210000], [4, crc], [4, ZIP64], [4, ZIP64], [2, name.length], [2, 28], [2, 0], [2, 0], [2, 0], [4, 0], [4, ZIP64]], name, extra([size, size, at])));
      }
      const size = offset - start;
      const end64 = offset;
      await put(record(0x06064b50, [[8, 44], [2, 45], [2, 45], [4, 0], [4, 0], [8, entries.length], [8, entries.length], [8, size], [8, start]]));
      await put(record(0x07064b50, [[4, 0], [8, end64], [4, 1]]));
      await put(record(0x06054b50, [[2, 0], [2, 0], [2, 0xffff], [2, 0xffff], [4, ZIP64], [4, ZIP64], [2, 0]]));
    },
  };
};

const record = (signature, fields, ...further) => {
  const head = numbers([[4, signature], ...fields]);
  const whole = new Uint8Array(head.length + further.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of [head, ...further]) { whole.set(part, at); at += part.length; }
  return whole;
};

const extra = (sizes) => numbers([[2, 1], [2, 8 * sizes.length], ...sizes.map((size) => [8, size])]);

const numbers = (fields) => {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else if (width === 4) view.setUint32(at, value >>> 0, true);
    else view.setBigUint64(at, BigInt(value), true);
    at += width;
  }
  return new Uint8Array(view.buffer);
};

/** A name that leads out of no folder, on any system. */
export const safeName = (name) =>
  String(name).replace(/[\\:*?"<>|\u0000-\u001f\u007f]/g, "_").split("/").filter((part) => part && !/^\.+$/.test(part)).join("/").slice(-200) || "file";

const unused = (name, taken) => {
  const [, stem, ending] = /^(.*?)(\.[^./]*)?$/s.exec(name);
  let free = name;
  for (let number = 2; taken.has(free.toLowerCase()); number += 1) free = `${stem}-${number}${ending ?? ""}`;
  taken.add(free.toLowerCase());
  return free;
};

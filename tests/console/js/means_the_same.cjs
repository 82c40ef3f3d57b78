// Pairs of modules as JSON on the standard input, {name: [source, served]}: prints the names of those that differ in
// more than blanks and comments. Run with --expose-internals: Node brings a parser along.

const { parse } = require("internal/deps/acorn/acorn/dist/acorn");
const PLACES = new Set(["start", "end", "loc", "range"]);
const meant = (text) =>
  JSON.stringify(parse(text, { sourceType: "module", ecmaVersion: "latest" }), (key, value) =>
    PLACES.has(key) ? undefined : typeof value === "bigint" ? `${value}n` : value instanceof RegExp ? String(value) : value);

const pairs = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const differ = Object.entries(pairs).filter(([, [source, served]]) => meant(source) !== meant(served));
process.stdout.write(JSON.stringify(differ.map(([name]) => name)));

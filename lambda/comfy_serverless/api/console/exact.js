// JSON without loss: whole numbers that a Number cannot hold are BigInts, both ways. Seeds go to 2^64 - 1.

// No document of a server holds it: it is drawn anew for each page.
const MARK = `int:${crypto.getRandomValues(new Uint32Array(3)).join("-")}:`;
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");

/** The value of a JSON text. Throws SyntaxError. */
export function parse(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const marked = text.replace(TOKENS, (token) => (isLarge(token) ? `"${MARK}${token}"` : token));
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value,
  );
}

/** The JSON text of a value; BigInts with all their digits. */
export function stringify(value, indent) {
  const text = JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${MARK}${part}` : part), indent);
  return text?.replace(MARKED, "$1");
}

/** A whole number as a Number if that holds it, else as a BigInt. */
export function whole(digits) {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}

function isLarge(token) {
  return token.length > 15 && /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token));
}

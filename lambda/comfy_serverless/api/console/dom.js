// Elements, made from values. A text is always a text: nothing here, or anywhere in the console, reads text as markup.

const SVG = "http://www.w3.org/2000/svg";
/** Addresses that a link or a picture may have: of a workflow's making, none can run a script. */
const SAFE = /^(https?:|blob:|data:image\/(png|jpe?g|gif|webp)[;,]|[#/?.]|[^:]*$)/i;

/**
 * An element. Properties: `class`, `on…` listeners, `style` as an object, `aria-*`, `data-*` and any other attribute
 * (true: without a value; false, null, undefined: none). `value`, `checked`, `selected`, `disabled` … are set as
 * properties where the element has them. Children: texts, numbers, elements, lists of them; null and false are nothing.
 */
export const h = (tag, props, ...children) => build(document.createElement(tag), props, children);

/** The same for SVG. */
export const svg = (tag, props, ...children) => build(document.createElementNS(SVG, tag), props, children);

/** Give an element other children. */
export const replace = (parent, ...children) => {
  parent.replaceChildren(...nodes(children));
  return parent;
};

/** What `h` takes as children, as the DOM takes it. */
export const nodes = (children) =>
  children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false && one !== true)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));

const AS_PROPERTY = new Set(["value", "checked", "selected", "disabled", "open", "muted", "indeterminate", "files"]);

const build = (element, props, children) => {
  for (const [name, value] of Object.entries(props ?? {})) set(element, name, value);
  element.append(...nodes(children));
  return element;
};

/** Set one property of an element, as `h` does. */
export const set = (element, name, value) => {
  if (name.startsWith("on")) {
    if (value) element.addEventListener(name.slice(2).toLowerCase(), value);
  } else if (name === "style") {
    for (const [key, one] of Object.entries(value ?? {})) {
      if (one !== null && one !== undefined) element.style.setProperty(key, String(one));
    }
  } else if (AS_PROPERTY.has(name) && name in element) {
    element[name] = value ?? "";
  } else if (value === false || value === null || value === undefined) {
    element.removeAttribute(name);
  } else if (/^(href|src|poster|action|xlink:href)$/i.test(name) && !isSafe(value)) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
};

/** Whether an address may stand in the page; `javascript:` and the like may not. */
export const isSafe = (address) => {
  const text = String(address);
  return !/[\u0000-\u001f]/.test(text) && SAFE.test(text.trim());
};

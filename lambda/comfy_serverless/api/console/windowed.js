// A long list of which only what is seen, and a little more, is in the page: a thousand rows scroll like ten.

import { h } from "./dom.js";

/**
 * @param render (item) => <li>; asked again only for another item of the same key
 * @param keyOf (item) => text
 * @param rowHeight () => pixels of every row, now
 * @param onNearEnd called when the last rows come near
 * @returns {element, update(items), row(key), focus(index), remeasure(), close()}
 */
export const windowed = ({ render, keyOf, rowHeight, label, onNearEnd = () => {} }) => {
  const element = h("ul", { class: "windowed", "aria-label": label });
  // Key -> {item, node, index}.
  const rows = new Map();
  let items = [];
  let height = rowHeight();
  let asked = 0;

  const range = () => {
    const top = element.getBoundingClientRect().top;
    const seen = window.innerHeight;
    const first = Math.max(0, Math.floor(-top / height) - 6);
    return [first, Math.min(items.length, Math.ceil((seen - top) / height) + 6)];
  };

  const paint = () => {
    asked = 0;
    const [first, end] = range();
    const kept = new Set();
    const focused = element.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.key : null;
    const wanted = [];
    for (let index = first; index < end; index += 1) wanted.push(index);
    if (focused) {
      const index = rows.get(focused)?.index;
      if (index !== undefined && items[index] && keyOf(items[index]) === focused && (index < first || index >= end)) wanted.push(index);
    }
    let before = null;
    for (const index of wanted.sort((one, other) => one - other)) {
      const item = items[index];
      const key = keyOf(item);
      kept.add(key);
      let row = rows.get(key);
      if (!row || row.item !== item) row = redraw(key, item, row);
      if (row.index !== index) {
        row.index = index;
        row.node.style.setProperty("transform", `translateY(${index * height}px)`);
        row.node.setAttribute("aria-posinset", index + 1);
      }
      if (row.node.getAttribute("aria-setsize") !== String(items.length)) row.node.setAttribute("aria-setsize", items.length);
      const place = before ? before.nextSibling : element.firstChild;
      // The order of the page is that of the list.
      if (row.node !== place) element.insertBefore(row.node, place);
      before = row.node;
    }
    for (const [key, row] of rows) {
      if (!kept.has(key)) {
        row.node.remove();
        rows.delete(key);
      }
    }
    if (items.length && end >= items.length - 12) onNearEnd();
  };

  const redraw = (key, item, old) => {
    const node = render(item);
    node.dataset.key = key;
    if (old) {
      const inside = old.node.contains(document.activeElement);
      const focused = inside ? [...old.node.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
      old.node.replaceWith(node);
      if (focused >= 0) (node.querySelectorAll("a, button")[focused] ?? node.querySelector("a"))?.focus({ preventScroll: true });
    }
    const row = { item, node, index: -1 };
    rows.set(key, row);
    return row;
  };

  const soon = () => {
    asked ||= requestAnimationFrame(paint);
  };
  const remeasure = () => {
    height = rowHeight();
    element.style.setProperty("height", `${items.length * height}px`);
    element.style.setProperty("--row", `${height}px`);
    for (const row of rows.values()) row.index = -1;
    paint();
  };
  window.addEventListener("scroll", soon, { passive: true });
  window.addEventListener("resize", remeasure);

  return {
    element,
    update(more) {
      items = more;
      element.style.setProperty("height", `${items.length * height}px`);
      element.style.setProperty("--row", `${height}px`);
      paint();
    },
    indexOf: (node) => rows.get(node?.closest?.("li")?.dataset.key)?.index ?? -1,
    focus(index) {
      if (index < 0 || index >= items.length) return;
      const top = element.getBoundingClientRect().top + index * height;
      const room = 120;
      if (top < room) window.scrollBy(0, top - room);
      else if (top + height > window.innerHeight - room) window.scrollBy(0, top + height - window.innerHeight + room);
      paint();
      rows.get(keyOf(items[index]))?.node.querySelector("a")?.focus({ preventScroll: true });
    },
    remeasure,
    close() {
      cancelAnimationFrame(asked);
      window.removeEventListener("scroll", soon);
      window.removeEventListener("resize", remeasure);
    },
  };
};

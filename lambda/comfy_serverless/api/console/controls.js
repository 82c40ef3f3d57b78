// The controls of a form: one for each field, with its label, its hint and what is wrong with it.

import { h, replace } from "./dom.js";
import { fileControl } from "./files.js";
import { drawn, empty, hasSlider, initial, isSeed } from "./form.js";
import { icon } from "./parts.js";

const SEARCHED_FROM = 16;
const MOST_SHOWN = 200;
let made = 0;

/**
 * A form for fields. `onChange` is told each time when somebody has changed something.
 * @returns {{element, held(), fill(held), problems(byField), fileField()}}
 */
export const formOf = (fields, held, onChange = () => {}) => {
  const rows = new Map(fields.map((field) => [field.name, rowOf(field, held[field.name] ?? initial(field), onChange)]));
  const others = h("div", { class: "notice bad", role: "alert", hidden: true });
  const element = h("div", { class: "fields" }, others, fields.length ? [...rows.values()].map((row) => row.element)
    : h("p", { class: "dim wide" }, "This workflow has no inputs: it runs as it stands."));
  return {
    element,
    held: () => Object.fromEntries([...rows].map(([name, row]) => [name, row.get()])),
    fill: (more) => Object.entries(more).forEach(([name, value]) => rows.get(name)?.set(value)),
    /** Say what is wrong, each at its field; the first gets the focus. */
    problems: (byField, rest = []) => {
      for (const [name, row] of rows) row.problem(byField[name] ?? "");
      others.hidden = rest.length === 0;
      replace(others, rest.map((text) => h("p", {}, text)));
      const first = [...rows.keys()].find((name) => byField[name]);
      if (first) rows.get(first).focus();
    },
    /** The control that takes a file of this type, if there is one; one that is empty comes first. */
    fileField: (type) => [...rows.values()].filter((row) => row.takes?.(type)).sort((a, b) => a.get().length - b.get().length)[0] ?? null,
  };
};

const rowOf = (field, value, onChange) => {
  const id = `field-${(made += 1)}`;
  const names = { id, "aria-describedby": `${id}-hint ${id}-problem`, "aria-required": field.isRequired ? "true" : null };
  const control = kindOf(field)(field, value, names, onChange);
  const problem = h("small", { class: "problem", id: `${id}-problem` });
  const isWide = ["text", "file", "json"].includes(field.kind) || isSeed(field);
  const label = control.isGroup ? h("span", { class: "label-text", id: `${id}-label` }, titled(field)) : h("label", { for: id }, titled(field));
  const element = h("div", { class: `field kind-${field.kind}${isWide ? " wide" : ""}`, "data-field": field.name, role: control.isGroup ? "group" : null, "aria-labelledby": control.isGroup ? `${id}-label` : null },
    field.kind === "boolean" ? [control.element] : [label, control.element],
    h("small", { class: "hint", id: `${id}-hint` }, field.hint || null), problem);
  return {
    ...control,
    element,
    problem: (text) => {
      replace(problem, text ? [icon("warn", 12), text] : null);
      element.classList.toggle("wrong", Boolean(text));
      control.input.setAttribute("aria-invalid", text ? "true" : "false");
    },
    focus: () => control.input.focus(),
  };
};

const titled = (field) => [field.title, field.isRequired ? h("span", { class: "dim" }, " (needed)") : null];

const kindOf = (field) => {
  if (isSeed(field)) return seedControl;
  if (field.kind === "choice") return field.choices.length < SEARCHED_FROM && !field.isOpen ? menuControl : searchControl;
  return { boolean: switchControl, integer: numberControl, number: numberControl, file: fileControl }[field.kind] ?? textControl;
};

const plain = (input, onChange, further = {}) => {
  input.addEventListener("input", onChange);
  return { element: input, input, get: () => input.value, set: (value) => { input.value = value; }, ...further };
};

const textControl = (field, value, names, onChange) => {
  const isLong = field.isLong || field.kind === "json" || value.length > 60 || value.includes("\n");
  const input = h(isLong ? "textarea" : "input", { ...names, rows: isLong ? 3 : null, type: isLong ? null : "text", spellcheck: field.role === "prompt" ? "true" : "false", value });
  return plain(input, onChange);
};

const numberInput = (field, value, names) => {
  const input = h("input", { ...names, type: "text", inputmode: field.minimum < 0 ? null : field.kind === "integer" ? "numeric" : "decimal", autocomplete: "off", value });
  // As in a spinner, with all digits of large numbers.
  input.addEventListener("keydown", (event) => {
    const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!direction || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    input.value = stepped(field, input.value, direction * (event.shiftKey ? 10 : 1));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  return input;
};

/** A number some steps up or down, within its bounds. */
export const stepped = (field, text, steps) => {
  if (field.kind === "integer") {
    const now = /^-?\d+$/.test(text.trim()) ? BigInt(text.trim()) : BigInt(field.minimum ?? 0);
    return String(within(now + BigInt(steps) * BigInt(Math.max(1, Math.round(Number(field.step) || 1))), field, BigInt));
  }
  const step = Number(field.step) || 0.1;
  const digits = Math.min(10, (String(step).split(".")[1] ?? "").length);
  return String(Number(within((Number(text) || 0) + steps * step, field, Number).toFixed(digits)));
};

const within = (value, field, kind) => {
  if (field.maximum !== undefined && value > field.maximum) return kind(field.maximum);
  return field.minimum !== undefined && value < field.minimum ? kind(field.minimum) : value;
};

const range = (field) => {
  if (field.minimum === undefined && field.maximum === undefined) return null;
  return h("span", { class: "range dim" }, `${field.minimum ?? "…"} – ${field.maximum ?? "…"}`);
};

const numberControl = (field, value, names, onChange) => {
  const input = numberInput(field, value, names);
  if (!hasSlider(field)) return { ...plain(input, onChange), element: h("div", { class: "inline" }, input, range(field)) };
  const slider = h("input", { type: "range", min: field.minimum, max: field.maximum, step: field.step ?? 1, "aria-label": `${field.title}, slider`, tabindex: -1, value: value || field.minimum });
  const follow = () => { slider.value = input.value || field.minimum; };
  slider.addEventListener("input", () => { input.value = slider.value; onChange(); });
  input.addEventListener("input", follow);
  const set = (next) => { input.value = next; follow(); };
  return { ...plain(input, onChange), element: h("div", { class: "inline" }, input, slider), set };
};

const switchControl = (field, value, names, onChange) => {
  const input = h("input", { ...names, type: "checkbox", role: "switch", checked: value });
  input.addEventListener("change", onChange);
  return { element: h("label", { class: "switch" }, input, field.title), input, get: () => input.checked, set: (next) => { input.checked = next; } };
};

const menuControl = (field, value, names, onChange) => {
  const texts = field.choices.map(String);
  const options = [field.isRequired || texts.includes(value) ? null : h("option", { value: "" }, value ? `${value} (no longer there)` : "–"), ...texts.map((text) => h("option", { value: text }, text))];
  const input = h("select", names, options);
  input.value = texts.includes(value) ? value : "";
  input.addEventListener("change", onChange);
  return { element: input, input, get: () => input.value, set: (next) => { input.value = next; } };
};

/** A menu that is searched: what is typed narrows it, arrows walk through it, Enter chooses, Escape closes. */
const searchControl = (field, value, names, onChange) => {
  const texts = field.choices.map(String);
  const list = h("ul", { class: "options", id: `${names.id}-list`, role: "listbox", "aria-label": field.title, hidden: true });
  const input = h("input", { ...names, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id, value });
  let at = -1;
  const point = (next) => {
    at = next;
    [...list.children].forEach((one, place) => one.setAttribute("aria-selected", place === at ? "true" : "false"));
    if (list.children[at]) {
      input.setAttribute("aria-activedescendant", list.children[at].id);
      list.children[at].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const open = (words) => {
    const found = texts.filter((text) => words.every((word) => text.toLowerCase().includes(word))).slice(0, MOST_SHOWN);
    replace(list, found.map((text, place) => h("li", { id: `${list.id}-${place}`, role: "option", "data-value": text, onmousedown: (event) => { event.preventDefault(); choose(text); } }, text || "(nothing)")));
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    point(found.indexOf(input.value));
  };
  const close = () => { list.hidden = true; input.setAttribute("aria-expanded", "false"); point(-1); };
  const choose = (text) => { input.value = text; close(); onChange(); };
  input.addEventListener("input", () => { open(input.value.toLowerCase().split(/\s+/)); onChange(); });
  input.addEventListener("click", () => list.hidden && (input.select(), open([])));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) open([]);
      else point(Math.max(0, Math.min(list.children.length - 1, at + step)));
    } else if (event.key === "Enter" && !list.hidden && list.children[at]) {
      event.preventDefault();
      choose(list.children[at].dataset.value);
    } else if (event.key === "Escape" && !list.hidden) {
      event.stopPropagation();
      close();
    }
  });
  return { element: h("div", { class: "search" }, input, list), input, get: () => input.value, set: (next) => { input.value = next; } };
};

const seedControl = (field, value, names, onChange) => {
  const input = numberInput(field, value.digits, names);
  const isRandom = h("input", { type: "checkbox", role: "switch", checked: value.isRandom });
  const show = () => { input.placeholder = isRandom.checked ? "new each time" : "the workflow’s own"; };
  const set = (next) => { input.value = next.digits; isRandom.checked = next.isRandom; show(); };
  const dice = h("button", { type: "button", class: "button icon-only", "aria-label": `Draw ${field.title}`, title: "Draw a seed, and keep it", onclick: () => { set({ digits: drawn(field), isRandom: false }); onChange(); } }, icon("dice"));
  input.addEventListener("input", () => { isRandom.checked = false; show(); onChange(); });
  isRandom.addEventListener("change", () => {
    if (isRandom.checked) input.value = "";
    show();
    onChange();
  });
  show();
  const element = h("div", { class: "inline seed" }, input, dice, h("label", { class: "switch" }, isRandom, "New each time"));
  return { element, input, get: () => ({ digits: input.value.trim(), isRandom: isRandom.checked }), set: (next) => set(next ?? empty(field)) };
};

// A workflow as a picture: nodes in layers from left to right, or where the editor had them. No library.

import { h, replace, svg } from "./dom.js";
import { duration, icon } from "./parts.js";

const [WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE] = [176, 48, 56, 16, 24];
/** Below this nobody reads a node: what is larger is scrolled. */
const READABLE = 0.7;

/**
 * Nodes and edges of a workflow.
 * @param workflow a graph in API format, or what the editor saved
 * @returns {nodes: [{id, title, type, x, y, w, h}], edges: [{from, to}]}; without x and y where they are not known
 */
export const graphOf = (workflow) => (Array.isArray(workflow?.nodes) ? ofEditor(workflow) : ofApi(workflow ?? {}));

const ofApi = (workflow) => {
  const entries = Object.entries(workflow).filter(([, node]) => node && typeof node === "object" && typeof node.class_type === "string");
  const known = new Set(entries.map(([id]) => id));
  const nodes = entries.map(([id, node]) => ({ id, type: node.class_type, title: String(node._meta?.title || node.class_type), inputs: node.inputs ?? {}, w: WIDTH, h: HEIGHT }));
  const edges = [];
  for (const { id, inputs } of nodes) {
    for (const value of Object.values(inputs)) {
      if (Array.isArray(value) && value.length === 2 && known.has(String(value[0])) && String(value[0]) !== id) edges.push({ from: String(value[0]), to: id });
    }
  }
  return { nodes, edges };
};

const ofEditor = (workflow) => {
  const names = Object.fromEntries((workflow.definitions?.subgraphs ?? []).map((one) => [one.id, one.name]));
  const nodes = workflow.nodes.filter((node) => node && node.id !== undefined && !/^(Note|MarkdownNote)$/.test(node.type)).map((node) => {
    const [x, y] = pair(node.pos);
    const [w, height] = pair(node.size);
    const type = names[node.type] ?? String(node.type);
    return { id: String(node.id), type, title: String(node.title || type), inputs: widgetsOf(node), x, y, w: Math.max(WIDTH, w || 0), h: Math.max(HEIGHT, height || 0) };
  });
  const known = new Set(nodes.map((node) => node.id));
  const edges = (workflow.links ?? []).filter(Boolean)
    .map((link) => (Array.isArray(link) ? { from: String(link[1]), to: String(link[3]) } : { from: String(link.origin_id), to: String(link.target_id) }))
    .filter(({ from, to }) => known.has(from) && known.has(to));
  return { nodes, edges };
};

const pair = (value) => {
  const two = Array.isArray(value) ? value : [value?.[0], value?.[1]];
  return [Number(two[0]), Number(two[1])];
};

const widgetsOf = (node) => {
  const values = node.widgets_values;
  return Array.isArray(values) ? Object.fromEntries(values.map((value, index) => [`value ${index + 1}`, value])) : (values ?? {});
};

/**
 * Give all nodes a place, in layers: a node is to the right of all that it takes from. Circles are cut where they begin.
 * @returns {width, height}
 */
export const layout = ({ nodes, edges }) => {
  if (!nodes.length) return { width: 0, height: 0 };
  const layers = layered(nodes, edges);
  ordered(layers, edges);
  placed(layers, edges);
  return size(nodes);
};

/** Layers of nodes, by the longest way from one that takes nothing; then as near to those that take from them. */
const layered = (nodes, edges) => {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const next = new Map(nodes.map((node) => [node.id, []]));
  const waits = new Map(nodes.map((node) => [node.id, 0]));
  for (const { from, to } of edges) {
    next.get(from).push(to);
    waits.set(to, waits.get(to) + 1);
  }
  const level = new Map(nodes.map((node) => [node.id, 0]));
  const left = new Set(nodes.map((node) => node.id));
  const ready = nodes.filter((node) => !waits.get(node.id)).map((node) => node.id);
  while (left.size) {
    // A circle: it begins somewhere.
    const id = ready.pop() ?? left.values().next().value;
    if (!left.delete(id)) continue;
    for (const to of next.get(id)) {
      if (left.has(to)) level.set(to, Math.max(level.get(to), level.get(id) + 1));
      waits.set(to, waits.get(to) - 1);
      if (waits.get(to) === 0 && left.has(to)) ready.push(to);
    }
  }
  const takes = new Set(edges.map(({ to }) => to));
  for (const { id } of nodes) {
    const after = next.get(id).map((to) => level.get(to));
    if (!takes.has(id) && after.length) level.set(id, Math.max(0, Math.min(...after) - 1));
  }
  const layers = Array.from({ length: Math.max(...level.values()) + 1 }, () => []);
  for (const [id, at] of level) layers[at].push(byId.get(id));
  return layers.filter((layer) => layer.length);
};

/** Order each layer by where its neighbors are: fewer lines cross. */
const ordered = (layers, edges) => {
  const sides = neighbors(edges);
  const place = new Map();
  const note = () => layers.forEach((layer) => layer.forEach((node, index) => place.set(node.id, index / Math.max(1, layer.length - 1))));
  note();
  for (let round = 0; round < 6; round += 1) {
    const side = round % 2 ? "next" : "before";
    for (const layer of round % 2 ? [...layers].reverse() : layers) {
      const wish = new Map(layer.map((node) => {
        const near = sides[side].get(node.id) ?? [];
        return [node.id, near.length ? near.reduce((sum, id) => sum + place.get(id), 0) / near.length : place.get(node.id)];
      }));
      layer.sort((one, other) => wish.get(one.id) - wish.get(other.id));
      layer.forEach((node, index) => place.set(node.id, index / Math.max(1, layer.length - 1)));
    }
  }
};

const neighbors = (edges) => {
  const before = new Map();
  const next = new Map();
  const put = (map, id, other) => (map.get(id) ?? map.set(id, []).get(id)).push(other);
  for (const { from, to } of edges) {
    put(before, to, from);
    put(next, from, to);
  }
  return { before, next };
};

/** Coordinates: columns side by side, each node near the middle of its neighbors, none over another. */
const placed = (layers, edges) => {
  const sides = neighbors(edges);
  const byId = new Map(layers.flat().map((node) => [node.id, node]));
  layers.forEach((layer, column) => layer.forEach((node, row) => {
    node.x = column * (WIDTH + GAP_X);
    node.y = (row - (layer.length - 1) / 2) * (HEIGHT + GAP_Y);
  }));
  for (let round = 0; round < 8; round += 1) {
    for (const layer of round % 2 ? [...layers].reverse() : layers) {
      const wish = layer.map((node) => {
        const near = [...(sides.before.get(node.id) ?? []), ...(sides.next.get(node.id) ?? [])];
        return near.length ? near.reduce((sum, id) => sum + byId.get(id).y, 0) / near.length : node.y;
      });
      spread(layer, wish);
    }
  }
  const top = Math.min(...layers.flat().map((node) => node.y));
  for (const node of layers.flat()) node.y = Math.round(node.y - top);
};

/** Put the nodes of a layer where they wish to be, in their order and apart: blocks that would overlap move as one. */
const spread = (layer, wish) => {
  const step = HEIGHT + GAP_Y;
  const blocks = [];
  layer.forEach((_, index) => {
    blocks.push({ first: index, count: 1, sum: wish[index] });
    while (blocks.length > 1) {
      const [one, other] = blocks.slice(-2);
      if (start(one, step) + one.count * step <= start(other, step)) break;
      blocks.splice(-2, 2, { first: one.first, count: one.count + other.count, sum: one.sum + other.sum - other.count * one.count * step });
    }
  });
  for (const block of blocks) {
    for (let index = 0; index < block.count; index += 1) layer[block.first + index].y = start(block, step) + index * step;
  }
};

/** Where a block begins so that its nodes are, on the whole, nearest to their wishes: `sum` is that of its beginnings. */
const start = (block) => block.sum / block.count;

const size = (nodes) => ({
  width: Math.max(...nodes.map((node) => node.x + node.w)), height: Math.max(...nodes.map((node) => node.y + node.h)),
});

/** Use the editor's places, if all nodes have one; else make some. Returns {width, height}. */
export const arrange = (graph) => {
  const { nodes } = graph;
  if (!nodes.length || !nodes.every((node) => Number.isFinite(node.x) && Number.isFinite(node.y))) {
    for (const node of nodes) Object.assign(node, { w: WIDTH, h: HEIGHT });
    return layout(graph);
  }
  const [left, top] = [Math.min(...nodes.map((node) => node.x)), Math.min(...nodes.map((node) => node.y))];
  for (const node of nodes) {
    node.x -= left;
    node.y -= top;
  }
  return size(nodes);
};

/** The node of the picture that a node of a run belongs to: "5:12" lies in the subgraph 5. */
export const nodeOf = (id, known) => {
  const text = String(id ?? "");
  for (let end = text.length; end > 0; end = text.lastIndexOf(":", end - 1)) {
    if (known.has(text.slice(0, end))) return text.slice(0, end);
  }
  return null;
};

/** Milliseconds by node of the picture. */
export const timesOf = (nodesMs, known) => {
  const times = new Map();
  for (const [id, ms] of Object.entries(nodesMs ?? {})) {
    const at = nodeOf(id, known);
    if (at !== null) times.set(at, (times.get(at) ?? 0) + ms);
  }
  return times;
};

/**
 * The picture.
 * @param onPick (node) => void: a node was chosen
 * @returns {element, tools, update({failed, running, nodesMs})}; `tools` are buttons for its size
 */
export const graphView = (workflow, { onPick = () => {} } = {}) => {
  const graph = graphOf(workflow);
  const { width, height } = arrange(graph);
  const shapes = new Map();
  const byId = new Map(graph.nodes.map((node) => [node.id, node]));
  const edges = svg("g", { class: "edges" }, graph.edges.map(({ from, to }) => svg("path", { d: curve(byId.get(from), byId.get(to)) })));
  const nodes = svg("g", {}, graph.nodes.map((node) => {
    const time = svg("text", { class: "ms", x: node.w - 10, y: node.h - 10, "text-anchor": "end" });
    const shape = svg("g", { class: "node", transform: `translate(${node.x} ${node.y})`, "data-node": node.id },
      svg("rect", { width: node.w, height: node.h, rx: 8 }),
      line(node, "title", 19, node.title, node.w),
      line(node, "type", 37, `${node.id} ${node.title === node.type ? "" : node.type}`, node.w - 50), time,
      svg("title", {}, `${node.id}: ${node.title} (${node.type})`));
    shapes.set(node.id, { shape, time });
    return shape;
  }));
  const picture = svg("svg", {
    class: "graph", viewBox: `${-EDGE} ${-EDGE} ${width + 2 * EDGE} ${height + 2 * EDGE}`, role: "img",
    "aria-label": `Graph of ${graph.nodes.length} nodes`,
  }, edges, nodes);
  const frame = h("div", { class: "graph-frame", tabindex: "0", role: "group", "aria-label": "The workflow's graph; arrow keys move it" }, picture);
  let scale = 1;
  const zoom = (to) => {
    scale = Math.min(2, Math.max(0.08, to));
    picture.style.setProperty("width", `${(width + 2 * EDGE) * scale}px`);
    picture.style.setProperty("height", `${(height + 2 * EDGE) * scale}px`);
  };
  const fitting = () => Math.min(1, ((frame.clientWidth || 900) - 4) / (width + 2 * EDGE), 560 / (height + 2 * EDGE));
  const fit = () => zoom(fitting());
  let marked = null;
  /** As large as fits; never so small that nobody can read it: then it begins at what failed, or runs. */
  const begin = () => {
    zoom(Math.max(READABLE, fitting()));
    const node = byId.get(marked);
    if (node) frame.scrollTo((node.x + node.w / 2) * scale - frame.clientWidth / 2, (node.y + node.h / 2) * scale - frame.clientHeight / 2);
  };
  nodes.addEventListener("click", (event) => {
    const node = byId.get(event.target.closest("[data-node]")?.dataset.node);
    if (node) onPick(node);
  });
  drag(frame);
  const button = (label, mark, act) => h("button", { type: "button", class: "button quiet icon-only", "aria-label": label, title: label, onclick: act }, mark);
  const tools = h("div", { class: "row tightly" }, button("Smaller", "−", () => zoom(scale / 1.3)), button("Larger", "+", () => zoom(scale * 1.3)), button("Whole graph", icon("fit"), fit));
  zoom(Math.min(1, 560 / (height + 2 * EDGE)));
  requestAnimationFrame(begin);

  const update = ({ failed = null, running = null, nodesMs = {} }) => {
    const times = timesOf(nodesMs, byId);
    const most = Math.max(1, ...times.values());
    const [bad, now] = [nodeOf(failed, byId), nodeOf(running, byId)];
    marked = bad ?? now;
    for (const [id, { shape, time }] of shapes) {
      const ms = times.get(id);
      shape.setAttribute("class", `node${id === bad ? " failed" : ""}${id === now ? " running" : ""}`);
      shape.style.setProperty("--heat", ms === undefined ? "0%" : `${Math.round(8 + 72 * Math.sqrt(ms / most))}%`);
      replace(time, ms === undefined ? null : duration(ms));
    }
    const told = [bad && `node ${bad} (${byId.get(bad).type}) failed`, now && `node ${now} runs`].filter(Boolean);
    picture.setAttribute("aria-label", [`Graph of ${graph.nodes.length} nodes`, ...told].join("; "));
    if (bad) shapes.get(bad).shape.parentNode.append(shapes.get(bad).shape);
  };
  return { element: frame, tools, update, nodes: graph.nodes };
};

const curve = (from, to) => {
  const [x1, y1, x2, y2] = [from.x + from.w, from.y + Math.min(24, from.h / 2), to.x, to.y + Math.min(24, to.h / 2)];
  const bend = Math.max(28, Math.abs(x2 - x1) / 2);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
};

/** A line of a node. What is wider than it was thought ends with the node all the same. */
const line = (node, kind, y, text, width) =>
  svg("svg", { width: width - 4, height: node.h }, svg("text", { class: kind, x: 10, y }, cut(text, width)));

/** A text that fits into so many pixels, or its beginning. Letters of Chinese and the like are twice as wide. */
export const cut = (text, width) => {
  const most = Math.max(4, Math.floor((width - 20) / 6.6));
  const letters = [...text];
  let used = 0;
  const end = letters.findIndex((letter) => (used += letter > "\u10ff" ? 2 : 1) > most);
  return end < 0 ? text : `${letters.slice(0, end - 1).join("")}…`;
};

/** Move what is larger than its frame with the mouse; a finger and the keys do it anyway. */
const drag = (frame) => {
  let from = null;
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) from = [event.clientX + frame.scrollLeft, event.clientY + frame.scrollTop];
  });
  frame.addEventListener("pointermove", (event) => {
    if (!from || !event.buttons) return;
    frame.scrollLeft = from[0] - event.clientX;
    frame.scrollTop = from[1] - event.clientY;
  });
  for (const kind of ["pointerup", "pointerleave"]) frame.addEventListener(kind, () => { from = null; });
};

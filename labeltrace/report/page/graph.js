// The label flow as a graph, folded by module. Cytoscape.js draws it, dagre lays it out.

const open = new Set(report.modules.flatMap((module, index) => (module.open ? [index] : [])));
const container = document.getElementById("graph");

cytoscape.warnings(false); // of edges that it meets before they are laid out

const graph = cytoscape({
  container,
  minZoom: 0.02,
  maxZoom: 3,
  boxSelectionEnabled: false,
  autounselectify: true,
  autoungrabify: true,
  style: [
    {
      selector: "node",
      style: {
        label: "data(label)",
        shape: "round-rectangle",
        width: "data(width)",
        height: "data(height)",
        "background-color": "data(color)",
        color: "data(ink)",
        "font-size": 12,
        "font-family": 'system-ui, "DejaVu Sans", sans-serif',
        "text-wrap": "wrap",
        "text-valign": "center",
        "text-halign": "center",
        "border-width": 1,
        "border-color": "#666",
      },
    },
    { selector: "node.folded", style: { "border-style": "double", "border-width": 4 } },
    {
      selector: "node.unfolded",
      style: {
        "background-color": "#f7f7f4",
        "border-color": "#999",
        "text-valign": "top",
        "text-margin-y": 15,
        "font-weight": "bold",
        padding: "16px",
      },
    },
    { selector: "node.approximate", style: { "border-style": "dashed", "border-width": 3, "border-color": "#111" } },
    { selector: "node.hit", style: { "underlay-color": "#f0b400", "underlay-opacity": 0.55, "underlay-padding": 6 } },
    { selector: "node.chosen", style: { "border-width": 5, "border-style": "solid", "border-color": "#0b5cad" } },
    {
      selector: "edge",
      style: {
        width: 1.5,
        "line-color": "#8a8a8a",
        "target-arrow-color": "#8a8a8a",
        "target-arrow-shape": "triangle",
        "arrow-scale": 0.8,
        "curve-style": "bezier",
      },
    },
  ],
});

const ruler = document.createElement("canvas").getContext("2d");
ruler.font = '12px system-ui, "DejaVu Sans", sans-serif';

const moduleId = (index) => `m${index}`;
const nodeId = (index) => `n${index}`;

/** The element that shows a node on the screen: the node, or the outermost folded module around it. */
function visibleElement(index) {
  const folded = modulesAround(report.nodes[index].module).find((module) => !open.has(module));
  return folded === undefined ? nodeId(index) : moduleId(folded);
}

function box(lines, look) {
  const widths = lines.map((line) => ruler.measureText(line).width);
  return {
    label: lines.join("\n"),
    width: Math.ceil(Math.max(...widths)) + 22,
    height: 14 * lines.length + 12,
    color: look.color,
    ink: look.ink ?? "#111111",
  };
}

function nodeLines(node) {
  const own = node.module === null ? "" : report.modules[node.module].path;
  const inner = node.path.startsWith(own) ? node.path.slice(own.length).replace(/^\./, "") : node.path;
  const operator = node.operator.replace(/^aten\./, "");
  const mark = node.approximation ? "≈ " : "";
  const sign = OPERATIONS[node.operation].sign;
  return [`${sign} ${mark}${operator}`, inner || (node.path === own || node.module === null ? node.name : own)];
}

function moduleElement(index) {
  const module = report.modules[index];
  const inside = nodesInside[index];
  const operation = strongest(inside);
  const rough = inside.some((node) => report.nodes[node].approximation);
  const folded = !open.has(index);
  const mark = rough ? "≈ " : "";
  const lines = folded
    ? [`▸ ${OPERATIONS[operation].sign} ${mark}${module.path}`, `${module.kind}, ${inside.length} nodes`]
    : [`▾ ${mark}${module.path}`];
  return {
    data: { id: moduleId(index), parent: parentId(module.parent), first: inside[0], ...box(lines, OPERATIONS[operation]) },
    classes: `${folded ? "folded" : "unfolded"}${rough && folded ? " approximate" : ""}`,
  };
}

const parentId = (module) => (module === null ? undefined : moduleId(module));

function elements() {
  const found = [];
  report.modules.forEach((module, index) => {
    if (modulesAround(module.parent).every((outer) => open.has(outer))) found.push(moduleElement(index));
  });
  const edges = new Map();
  report.nodes.forEach((node, index) => {
    const shown = visibleElement(index);
    if (shown === nodeId(index)) {
      found.push({
        data: { id: shown, parent: parentId(node.module), first: index, ...box(nodeLines(node), OPERATIONS[node.operation]) },
        classes: node.approximation ? "approximate" : "",
      });
    }
    for (const input of node.inputs) {
      const source = visibleElement(input);
      if (source !== shown) edges.set(`${source}>${shown}`, { data: { id: `${source}>${shown}`, source, target: shown } });
    }
  });
  return [...found, ...edges.values()];
}

/** Draw what is unfolded now; `anchor` stays where it is on the screen. */
function draw(anchor) {
  const before = anchor && graph.getElementById(anchor).renderedPosition();
  graph.batch(() => {
    graph.elements().remove();
    graph.add(elements());
  });
  graph.layout({
    name: "dagre",
    rankDir: "TB",
    nodeSep: 26,
    edgeSep: 12,
    rankSep: 34,
    fit: false,
    useDagreEdgeControlPoints: true,
    automaticDagreEdgeStyle: true,
  }).run();
  placeTitles();
  const after = anchor && graph.getElementById(anchor).renderedPosition();
  if (before && after) graph.panBy({ x: before.x - after.x, y: before.y - after.y });
  markHits();
}

/** Titles of unfolded modules are placed on the left, where there are no edges. */
function placeTitles() {
  graph.nodes(".unfolded").forEach((element) => {
    const room = element.outerWidth() - element.data("width");
    element.style("text-margin-x", -Math.max(room, 0) / 2);
  });
}

/** The largest number of nodes whose layout takes only a second or two. */
const MOST_NODES = 600;

/** Fold or unfold a module. */
function toggle(index) {
  if (open.has(index)) open.delete(index);
  else unfold([index]);
  draw(moduleId(index));
}

/** Unfold modules; all others are folded first where the graph would grow too large to lay out. */
function unfold(modules) {
  modules.forEach((module) => open.add(module));
  if (elements().filter(({ data }) => data.first !== undefined).length <= MOST_NODES) return;
  const outer = modules.flatMap((module) => modulesAround(module));
  resetFolds();
  outer.forEach((module) => open.add(module));
}

function resetFolds() {
  open.clear();
  report.modules.forEach((module, index) => module.open && open.add(index));
}

function foldAll() {
  resetFolds();
  draw();
}

function unfoldAll() {
  report.modules.forEach((_, index) => open.add(index));
  draw();
}

/** Unfold the modules that hide a node. */
function reveal(index) {
  const hiding = modulesAround(report.nodes[index].module).filter((module) => !open.has(module));
  if (!hiding.length) return;
  unfold(hiding);
  draw();
}

const idOf = (chosen) => (chosen.kind === "module" ? moduleId(chosen.index) : nodeId(chosen.index));

function chosenById(id) {
  return { kind: id[0] === "m" ? "module" : "node", index: Number(id.slice(1)) };
}

/** Mark the chosen node or module, and scroll to it. */
function showChosen(chosen) {
  graph.nodes(".chosen").removeClass("chosen");
  const element = graph.getElementById(idOf(chosen)).addClass("chosen");
  if (!element.length) return;
  const top = element.isParent() ? element.children()[0] : element;
  const { x1, y1, x2, y2 } = top.renderedBoundingBox();
  const margin = 30;
  const inside = x1 > 0 && y1 > margin && x2 < graph.width() && y2 < graph.height() - margin;
  if (!inside) graph.center(top);
}

/** The initial view: readable, with the chosen node in the center. */
function firstSight(chosen) {
  const { w } = graph.elements().boundingBox();
  graph.zoom(Math.min(1, Math.max(0.55, graph.width() / (w + 40))));
  graph.center(graph.getElementById(idOf(chosen)));
  const { y1 } = graph.elements().renderedBoundingBox();
  if (y1 > 12) graph.panBy({ x: 0, y: 12 - y1 });
}

/** Everything on the screen from the first to the last, a module before what is in it. */
function inOrder() {
  return graph.nodes().toArray().sort((one, other) => {
    const by = one.data("first") - other.data("first");
    return by || one.ancestors().length - other.ancestors().length;
  });
}

function zoomBy(factor) {
  graph.zoom({ level: graph.zoom() * factor, renderedPosition: { x: graph.width() / 2, y: graph.height() / 2 } });
}

// Mouse and keys.

graph.on("tap", (event) => {
  if (event.target === graph || !event.target.isNode()) return;
  const chosen = chosenById(event.target.id());
  if (chosen.kind === "module") toggle(chosen.index);
  choose(chosen);
});

container.addEventListener("keydown", (event) => {
  const list = inOrder();
  const at = list.findIndex((element) => element.hasClass("chosen"));
  const chosen = at < 0 ? null : chosenById(list[at].id());
  const go = (index) => choose(chosenById(list[Math.min(Math.max(index, 0), list.length - 1)].id()));
  const keys = {
    ArrowDown: () => go(at + 1),
    ArrowUp: () => go(at - 1),
    Home: () => go(0),
    End: () => go(list.length - 1),
    ArrowRight: () => chosen?.kind === "module" && !open.has(chosen.index) && (toggle(chosen.index), choose(chosen)),
    ArrowLeft: () => chosen && foldOrLeave(chosen),
    Enter: () => chosen?.kind === "module" && (toggle(chosen.index), choose(chosen)),
    "+": () => zoomBy(1.25),
    "-": () => zoomBy(0.8),
    0: () => graph.fit(undefined, 20),
  };
  keys["="] = keys["+"];
  keys[" "] = keys.Enter;
  if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});

function foldOrLeave(chosen) {
  const outer = chosen.kind === "module" ? report.modules[chosen.index].parent : report.nodes[chosen.index].module;
  if (chosen.kind === "module" && open.has(chosen.index)) {
    toggle(chosen.index);
    choose(chosen);
  } else if (outer !== null) {
    choose({ kind: "module", index: outer });
  }
}

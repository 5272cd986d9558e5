// The page as a whole: what is chosen, the slider, keys that work everywhere.

const current = { chosen: null, step: null };

/** Choose a node or a module, here and in all parts of the page. */
function choose(chosen) {
  current.chosen = chosen;
  current.step = defaultStep(chosen);
  showChosen(chosen);
  showLayer(chosen);
  announce(chosen);
  return showDetails(current.chosen, current.step);
}

function refresh() {
  return showDetails(current.chosen, current.step);
}

function announce(chosen) {
  const module = chosen.kind === "module" ? report.modules[chosen.index] : null;
  const node = report.nodes[chosen.index];
  part("announcement").textContent = module
    ? `${module.path}, ${module.kind}, ${open.has(chosen.index) ? "unfolded" : "folded"}, ${nodesInside[chosen.index].length} nodes`
    : `${node.name}, ${node.operator}, ${node.operation}${node.approximation ? ", approximate" : ""}`;
}

// The slider.

const slider = part("layer");
slider.max = report.layers.length - 1;

/** Set the slider to the layer that a node or module belongs to. */
function showLayer(chosen) {
  const last = chosen.kind === "module" ? endOf(chosen.index) : chosen.index;
  const found = report.layers.findIndex((layer) => layer.node >= last);
  const index = found < 0 ? report.layers.length - 1 : found;
  slider.value = index;
  const text = `${index} of ${report.layers.length - 1}: ${report.layers[index].title}`;
  slider.setAttribute("aria-valuetext", text);
  part("layer-title").textContent = text;
  part("previous-layer").disabled = index === 0;
  part("next-layer").disabled = index === report.layers.length - 1;
}

function goToLayer(index) {
  const layer = report.layers[index];
  if (!layer) return;
  if (layer.module !== null && modulesAround(report.modules[layer.module].parent).every((outer) => open.has(outer))) {
    choose({ kind: "module", index: layer.module });
  } else {
    reveal(layer.node);
    choose({ kind: "node", index: layer.node });
  }
}

slider.addEventListener("input", () => goToLayer(Number(slider.value)));
part("previous-layer").addEventListener("click", () => goToLayer(Number(slider.value) - 1));
part("next-layer").addEventListener("click", () => goToLayer(Number(slider.value) + 1));

// Buttons and keys.

function redrawn(change) {
  change();
  choose(visible(current.chosen));
}

/** The element that is marked while the chosen one is inside a folded module. */
function visible(chosen) {
  if (graph.getElementById(idOf(chosen)).length) return chosen;
  const inside = chosen.kind === "module" ? nodesInside[chosen.index][0] : chosen.index;
  return chosenById(visibleElement(inside));
}

part("unfold").disabled = report.nodes.length > MOST_NODES;
if (part("unfold").disabled) part("unfold").title = `${report.nodes.length} nodes are too many to draw at once; click a module to unfold it`;
part("fold").addEventListener("click", () => redrawn(foldAll));
part("unfold").addEventListener("click", () => redrawn(unfoldAll));
part("zoom-in").addEventListener("click", () => zoomBy(1.25));
part("zoom-out").addEventListener("click", () => zoomBy(0.8));
part("fit").addEventListener("click", () => graph.fit(undefined, 20));
part("stretch").addEventListener("change", refresh);
part("clear").addEventListener("click", clearChoice);
part("step").addEventListener("change", (event) => {
  current.step = Number(event.target.value);
  refresh();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== part("search")) {
    event.preventDefault();
    part("search").focus();
    part("search").select();
  } else if (event.key === "Escape") {
    if (event.target === part("search")) {
      part("search").value = "";
      search("");
      container.focus();
    } else {
      clearChoice();
    }
  }
});

window.addEventListener("resize", () => drawPictures());

// The initial view.

function showHeader() {
  const [first, second] = report.photographs.map((one) => one.name);
  part("model").textContent = report.model;
  part("lead").replaceChildren(
    "One image goes in, mixed from two: ",
    made("span", first, { class: "first" }), " with a box of ", made("span", second, { class: "second" }),
    ` (${percent(report.ratio, 0)} of it). This page follows both through the network: which tokens hold what, layer by layer, ` +
    `and which step moved it there. Move the slider, or click a node. ${report.weights}`,
  );
  part("version").textContent = report.version;
  part("limits").textContent =
    `Provenance is kept for the end of each layer and up to ${report.sources.reduce((most, one) => Math.max(most, one.kept_rows.length * one.kept_columns.length), 0)} ` +
    `tokens of it, evenly spread (a click takes the nearest one), over ${across(...report.cells)} cells of the image, to 1/255 of each token's ` +
    "largest share. The darkest color is that share, or four times an even one if this is more. Label maps have at most 56 cells a side.";
  const used = Object.keys(OPERATIONS).filter((name) => name in report.operations);
  part("legend").replaceChildren(
    ...used.map((operation) => {
      const item = made("li", "", { title: report.operations[operation] });
      item.append(swatch(operation), operation);
      return item;
    }),
    legendOfApproximate(),
  );
}

function legendOfApproximate() {
  const item = made("li", "", { title: "The step's rule is an approximation; the node says why." });
  item.append(made("span", "≈", { class: "swatch dashed", "aria-hidden": "true" }), "approximate (dashed)");
  return item;
}

/** A layer to begin with: the first module that mixes tokens, else the first after the image. */
function firstLayer() {
  const mixes = (layer) => layer.module !== null && strongest(nodesInside[layer.module]) === "spatial mixing";
  const found = report.layers.findIndex(mixes);
  return found < 0 ? Math.min(1, report.layers.length - 1) : found;
}

async function start() {
  showHeader();
  photograph.src = report.mixed.address;
  await photograph.decode();
  boxShares = await unpacked(report.maps[report.nodes[0].map].shares);
  draw();
  const layer = report.layers[firstLayer()];
  const chosen = layer.module === null ? { kind: "node", index: layer.node } : { kind: "module", index: layer.module };
  firstSight(chosen);
  tellHits();
  await choose(chosen);
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  part("lead").textContent = `This page could not be shown: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});

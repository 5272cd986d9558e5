"use strict";
// The report's data. Its arrays are decoded when they are needed.

const report = JSON.parse(document.getElementById("data").textContent);

const unpackedArrays = new WeakMap();

/** The bytes of an encoded array; each array is decoded once. */
function unpacked(array) {
  if (!unpackedArrays.has(array)) unpackedArrays.set(array, inflated(array.data));
  return unpackedArrays.get(array);
}

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Modules and nodes.

/** The indices of the modules around a node or module, the outermost first. */
function modulesAround(innermost) {
  const found = [];
  for (let at = innermost; at !== null; at = report.modules[at].parent) found.unshift(at);
  return found;
}

const nodesInside = report.modules.map(() => []);
report.nodes.forEach((node, index) => {
  for (const module of modulesAround(node.module)) nodesInside[module].push(index);
});

const layerOfModule = new Map();
const layerOfMap = new Map(); // equal labels: what a layer's tokens are made of holds there as well
report.layers.forEach((layer, index) => {
  if (layer.module !== null) layerOfModule.set(layer.module, index);
  layerOfMap.set(report.nodes[layer.node].map, index);
});

/** The node whose tensor a module returns: its last one with labels. */
function endOf(module) {
  const layer = layerOfModule.get(module);
  if (layer !== undefined) return report.layers[layer].node;
  const inside = nodesInside[module];
  return inside.findLast((index) => report.nodes[index].map !== null) ?? inside.at(-1);
}

/** The steps inside a module, or of a node, that move labels and have a receptive field. */
function stepsOf(chosen) {
  const nodes = chosen.kind === "module" ? nodesInside[chosen.index] : [chosen.index];
  return nodes.filter((index) => report.nodes[index].reach !== null);
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const across = (rows, columns) => `${rows} × ${columns}`;

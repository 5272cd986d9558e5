// The right side: what the chosen node or module does, its pictures, its facts.

const part = (id) => document.getElementById(id);

function made(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text ?? "";
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The step whose receptive field is shown: the selected one, or the first that mixes. */
function defaultStep(chosen) {
  const steps = stepsOf(chosen);
  return steps.find((index) => report.nodes[index].operation === "spatial mixing") ?? steps[0] ?? null;
}

const endNode = (chosen) => report.nodes[chosen.kind === "module" ? endOf(chosen.index) : chosen.index];

async function showDetails(chosen, step) {
  const node = endNode(chosen);
  const map = node.map === null ? null : report.maps[node.map];
  const layer = node.map === null ? undefined : layerOfMap.get(node.map);
  const sources = layer === undefined ? null : report.layers[layer].sources;
  const reach = step === null ? null : report.nodes[step].reach;
  const loaded = await loadView(
    map,
    sources === null ? null : report.sources[sources],
    reach === null ? null : report.reaches[reach],
  );
  if (current.chosen !== chosen || current.step !== step) return; // something else was chosen meanwhile
  view = { ...loaded, why: node.why };
  showWords(chosen, node, layer);
  showControls(chosen, step);
  showInside(chosen);
  showFacts(chosen, node);
  drawPictures();
}

function showWords(chosen, node, layer) {
  const module = chosen.kind === "module" ? report.modules[chosen.index] : null;
  const around = module ? module.parent : node.module;
  part("trail").textContent = modulesAround(around)
    .map((index) => `${report.modules[index].path} (${report.modules[index].kind})`)
    .join("  ›  ") || report.model;
  part("chosen").textContent = module
    ? `${module.path} · ${module.kind}`
    : `${node.name} · ${node.operator}${node.path ? ` in ${node.path}` : ""}`;
  const operation = module ? strongest(nodesInside[chosen.index]) : node.operation;
  part("operation").replaceChildren(swatch(operation), made("strong", module ? `main step: ${operation}` : operation));
  const words = [report.operations[operation] ?? "", module ? "" : node.about];
  const about = words.filter(Boolean).map((text) => made("p", text));
  const rough = module ? nodesInside[chosen.index].map((index) => report.nodes[index]) : [node];
  for (const reason of new Set(rough.map((one) => one.approximation).filter(Boolean))) {
    about.push(made("p", `≈ Approximate: ${reason}.`, { class: "warning" }));
  }
  if (layer === undefined && node.map !== null && report.maps[node.map].rows) about.push(nextLayer(node));
  part("about").replaceChildren(...about);
}

/** A link to the layer that has the data which this node lacks. */
function nextLayer(node) {
  const index = report.nodes.indexOf(node);
  const layer = report.layers.findIndex((one) => one.node >= index);
  const line = made("p", "Where tokens came from in the image is kept at the end of each layer: ");
  if (layer >= 0) line.append(jump(report.layers[layer].title, { kind: "node", index: report.layers[layer].node }));
  return line;
}

function jump(text, chosen) {
  const button = made("button", text, { type: "button" });
  button.addEventListener("click", () => {
    if (chosen.kind === "node") reveal(chosen.index);
    choose(chosen);
  });
  return button;
}

function showControls(chosen, step) {
  const steps = stepsOf(chosen);
  part("step-label").hidden = steps.length < 2;
  part("step").replaceChildren(
    ...steps.map((index) => {
      const node = report.nodes[index];
      const option = made("option", `${node.name} · ${node.operation}`, { value: index });
      option.selected = index === step;
      return option;
    }),
  );
  const others = view.sources?.rows ? view.sources.others : [];
  part("others").replaceChildren(
    ...(others.length ? [made("span", "Without a place in the image:")] : []),
    ...others.map((token) => {
      const button = made("button", `token ${token}`, { type: "button", "aria-pressed": pointer.other === token });
      button.addEventListener("click", () => {
        pointer.other = pointer.other === token ? null : token;
        pointer.cells.clear();
        refresh();
        part("others").querySelector("button")?.focus();
      });
      return button;
    }),
  );
  showScale();
}

function showScale() {
  const [low, high] = range();
  const heat = pointer.cells.size > 0;
  part("stretch-label").hidden = heat || !view.map?.rows;
  const ends = heat ? ["none", "most"] : [
    `${report.photographs[0].name} ${percent(1 - low, 0)}`,
    `${percent(high, 0)} ${report.photographs[1].name}`,
  ];
  part("scale").replaceChildren(
    "Tokens: ", ends[0], gradient(heat ? heatColor : labelColor), ends[1],
    " · other pictures: none", gradient(heatColor), "most",
  );
  part("scale").hidden = !view.map?.rows;
}

const TELLING = new Set(["spatial mixing", "spatial aggregation", "residual"]);

/** The steps inside a module that change tokens, with the number of steps between them. */
function showInside(chosen) {
  part("inside").hidden = chosen.kind !== "module";
  if (chosen.kind !== "module") return;
  const items = [];
  let quiet = [];
  const settle = () => {
    if (quiet.length) items.push(made("li", quietInWords(quiet), { class: "quiet" }));
    quiet = [];
  };
  for (const index of nodesInside[chosen.index]) {
    const node = report.nodes[index];
    if (!TELLING.has(node.operation) && !node.about) {
      quiet.push(node);
      continue;
    }
    settle();
    const item = made("li");
    item.append(swatch(node.operation), " ", jump(node.name, { kind: "node", index }), " ", sentenceOf(node));
    items.push(item);
  }
  settle();
  part("inside").querySelector("ol").replaceChildren(...items);
}

function sentenceOf(node) {
  const reach = node.reach === null ? "" : ` ${reachInWords(report.reaches[node.reach])}`;
  return `${node.approximation ? "≈ " : ""}${capital(node.operation)}. ${node.about}${reach}`;
}

function quietInWords(nodes) {
  const counts = new Map();
  for (const { operation } of nodes) counts.set(operation, (counts.get(operation) ?? 0) + 1);
  const listed = [...counts].map(([operation, count]) => `${count} × ${operation}`).join(", ");
  return `${listed}: labels stay with their tokens`;
}

function showFacts(chosen, node) {
  const facts = [];
  if (chosen.kind === "module") {
    facts.push(["Nodes", nodesInside[chosen.index].length], ["Its result", `${node.name} · ${node.operator}`]);
  } else {
    facts.push(["Operator", node.operator], ["Operation", node.operation], ["Call", node.call]);
    facts.push(["Rule", node.rule], ["Module", node.path && `${node.path} (${node.kind})`]);
  }
  facts.push(["Layout", node.layout], ["Source line", node.source]);
  if (chosen.kind === "node") facts.push(["Exactness", node.approximation ? `approximate: ${node.approximation}` : "exact"]);
  if (view.map?.others.length && view.map.rows) {
    const shares = view.map.others.map((share) => percent(share)).join(", ");
    facts.push(["Tokens without a place", `${shares} ${report.photographs[1].name} (class token or the like)`]);
  }
  const rows = facts.filter(([, value]) => value !== "" && value !== undefined).flatMap(([name, value]) => {
    const cell = made("dd");
    cell.append(made(["Operator", "Call", "Rule", "Source line", "Layout"].includes(name) ? "code" : "span", value));
    return [made("dt", name), cell];
  });
  part("facts").querySelector("dl").replaceChildren(...rows);
}

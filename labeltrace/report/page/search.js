// Search by node, module, operator or operation. Hits are marked; keys move between them.

let hits = [];
let hitAt = -1;

const haystack = report.nodes.map((node) =>
  [node.name, node.operator, node.operation, node.path, node.kind,
    ...modulesAround(node.module).map((index) => report.modules[index].kind)].join("\n").toLowerCase(),
);

function search(text) {
  const wanted = text.trim().toLowerCase();
  hits = wanted ? report.nodes.flatMap((_, index) => (haystack[index].includes(wanted) ? [index] : [])) : [];
  hitAt = -1;
  markHits();
  tellHits();
}

function markHits() {
  graph.nodes(".hit").removeClass("hit");
  const shown = new Set(hits.map(visibleElement));
  graph.nodes().filter((element) => shown.has(element.id())).addClass("hit");
}

function tellHits() {
  const wanted = part("search").value.trim();
  part("hits").textContent = !wanted ? "" : !hits.length ? "no hits" : hitAt < 0 ? `${hits.length} hits` : `${hitAt + 1} of ${hits.length}`;
  part("previous-hit").disabled = part("next-hit").disabled = !hits.length;
}

function goToHit(step) {
  if (!hits.length) return;
  hitAt = hitAt < 0 ? (step > 0 ? 0 : hits.length - 1) : (hitAt + step + hits.length) % hits.length;
  reveal(hits[hitAt]);
  choose({ kind: "node", index: hits[hitAt] });
  tellHits();
}

part("search").addEventListener("input", (event) => search(event.target.value));
part("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    goToHit(event.shiftKey ? -1 : 1);
  }
});
part("previous-hit").addEventListener("click", () => goToHit(-1));
part("next-hit").addEventListener("click", () => goToHit(1));

// Colors and signs of operations (after Okabe and Ito, also for color-blind readers), of labels
// and of shares.

const OPERATIONS = {
  "spatial mixing": { color: "#cc79a7", sign: "⇄" },
  "spatial aggregation": { color: "#f0e442", sign: "▼" },
  residual: { color: "#5cc4a0", sign: "⊕" },
  "channel mixing": { color: "#8ccbf2", sign: "≡" },
  relayout: { color: "#ffffff", sign: "↺" },
  pointwise: { color: "#e3e3e3", sign: "·" },
  weights: { color: "#a6a6a6", sign: "w" },
  "partial sum": { color: "#c9ead9", sign: "+" },
  input: { color: "#444444", sign: "▣", ink: "#ffffff" },
};

/** A folded module looks like the operation inside it that changes labels most. */
const STRONGEST_FIRST = Object.keys(OPERATIONS);

function strongest(indices) {
  const inside = new Set(indices.map((index) => report.nodes[index].operation));
  return STRONGEST_FIRST.find((operation) => inside.has(operation));
}

const FIRST = [0, 114, 178];
const MIDDLE = [245, 245, 245];
const SECOND = [213, 94, 0];

/** The color of a label: the first photograph's, through light gray, to the second one's. */
function labelColor(share) {
  const [from, to, part] = share < 0.5 ? [FIRST, MIDDLE, 2 * share] : [MIDDLE, SECOND, 2 * share - 1];
  return from.map((value, index) => Math.round(value + (to[index] - value) * part));
}

const HEAT = [[255, 255, 255], [250, 190, 220], [190, 40, 130], [70, 0, 70]];

/** The color of a share, from white for none to dark purple for the largest. */
function heatColor(share) {
  const place = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((value, index) => Math.round(value + (HEAT[low + 1][index] - value) * (place - low)));
}

const css = (color) => `rgb(${color.join(",")})`;

function gradient(colorOf) {
  const stops = [0, 0.25, 0.5, 0.75, 1].map((share) => css(colorOf(share)));
  const bar = document.createElement("span");
  bar.className = "gradient";
  bar.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  return bar;
}

function swatch(operation) {
  const look = OPERATIONS[operation];
  const made = document.createElement("span");
  made.className = "swatch";
  made.style.background = look.color;
  made.style.color = look.ink ?? "#111";
  made.textContent = look.sign;
  made.setAttribute("aria-hidden", "true");
  return made;
}

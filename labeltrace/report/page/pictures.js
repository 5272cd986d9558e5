// Three pictures of the chosen node: the image, what its step reads, and its tokens. A token or some
// cells of the image are chosen in them.

const figures = Object.fromEntries(
  ["image", "reach", "tokens"].map((name) => {
    const figure = document.getElementById(`figure-${name}`);
    return [name, { figure, canvas: figure.querySelector("canvas"), note: figure.querySelector(".note"), caption: figure.querySelector("figcaption span") }];
  }),
);

const photograph = new Image();

/** What is chosen in the pictures: a place in the image as fractions, a token without a place by its
 * index, or cells of the image; the last one that was chosen counts. */
const pointer = { row: 0.53, column: 0.53, other: null, cells: new Set(), cell: null };

/** What the pictures show: the label map, what the layer's tokens are made of, what a step reads. */
let view = { map: null, sources: null, reach: null };

async function loadView(map, sources, reach) {
  const arrays = [map?.shares, sources?.cells, reach?.sources.cells, reach?.groups];
  const [shares, cells, read, groups] = await Promise.all(arrays.map((array) => (array ? unpacked(array) : null)));
  return { map, shares, sources, cells, reach, read, groups };
}

// Tokens of a sample.

const nearest = (kept, wanted) =>
  kept.reduce((best, value, index) => (Math.abs(value - wanted) < Math.abs(kept[best] - wanted) ? index : best), 0);

/** The sampled token at the pointer: its index in the sample, and its position in the grid. */
function pointed(sources) {
  if (!sources) return null;
  const placed = sources.kept_rows.length * sources.kept_columns.length;
  const other = pointer.other === null ? -1 : sources.others.indexOf(pointer.other);
  if (other >= 0 || !placed) {
    return sources.others.length ? { index: placed + Math.max(other, 0), other: sources.others[Math.max(other, 0)] } : null;
  }
  const row = nearest(sources.kept_rows, Math.floor(pointer.row * sources.rows));
  const column = nearest(sources.kept_columns, Math.floor(pointer.column * sources.columns));
  return {
    index: row * sources.kept_columns.length + column,
    row: sources.kept_rows[row],
    column: sources.kept_columns[column],
    at: [row, column],
  };
}

const tokenName = (token) =>
  token.other === undefined ? `the token in row ${token.row + 1}, column ${token.column + 1}` : `token ${token.other}`;

/** The levels of the cells in a token, and how dark the largest of them is drawn. */
function cellsOf(sources, bytes, token) {
  const [, rows, columns] = sources.cells.shape;
  const values = bytes.subarray(token.index * rows * columns, (token.index + 1) * rows * columns);
  // The darkest color is the largest share, or four times an even one: what is even is not dark.
  const strength = Math.sqrt(Math.min((sources.peaks[token.index] * rows * columns) / 4, 1));
  return { rows, columns, values, strength };
}

/** A share, by the token's largest one, from a level: levels are of its root. */
const shareIn = (level) => (level / 255) ** 2;

/** The share of the chosen cells in each sampled token of the grid, in [0, 1]. */
function heldBy(sources, bytes, chosen) {
  const [, rows, columns] = sources.cells.shape;
  const count = sources.kept_rows.length * sources.kept_columns.length;
  return Array.from({ length: count + sources.others.length }, (_, token) => {
    let sum = 0;
    for (const cell of chosen) sum += shareIn(bytes[token * rows * columns + cell]);
    return sum * sources.peaks[token];
  });
}

// Drawing.

function prepared(name) {
  const { canvas } = figures[name];
  const width = Math.max(canvas.clientWidth, 180);
  const height = (width * report.height) / report.width;
  canvas.style.height = `${height}px`;
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  pen.imageSmoothingEnabled = false;
  return { pen, width, height };
}

function drawPhotograph({ pen, width, height }, strength) {
  pen.imageSmoothingEnabled = true;
  pen.globalAlpha = strength;
  pen.drawImage(photograph, 0, 0, width, height);
  pen.globalAlpha = 1;
  pen.imageSmoothingEnabled = false;
}

/** A grid of colors over the picture; `alphaOf` gives the opacity of each cell. */
function drawCells({ pen, width, height }, rows, columns, colorOf, alphaOf) {
  const picture = new ImageData(columns, rows);
  for (let cell = 0; cell < rows * columns; cell++) {
    picture.data.set([...colorOf(cell), Math.round(255 * alphaOf(cell))], 4 * cell);
  }
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  small.getContext("2d").putImageData(picture, 0, 0);
  pen.drawImage(small, 0, 0, width, height);
}

/** Lines where neighboring cells differ. */
function drawBorders({ pen, width, height }, rows, columns, valueOf, color, thickness) {
  const [y, x] = [height / rows, width / columns];
  pen.beginPath();
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const own = valueOf(row * columns + column);
      if (column + 1 < columns && own !== valueOf(row * columns + column + 1)) {
        pen.moveTo((column + 1) * x, row * y);
        pen.lineTo((column + 1) * x, (row + 1) * y);
      }
      if (row + 1 < rows && own !== valueOf((row + 1) * columns + column)) {
        pen.moveTo(column * x, (row + 1) * y);
        pen.lineTo((column + 1) * x, (row + 1) * y);
      }
    }
  }
  pen.strokeStyle = color;
  pen.lineWidth = thickness;
  pen.stroke();
}

/** The border of the box from the second photograph. */
function drawBox(place) {
  const map = report.maps[report.nodes[0].map];
  if (!boxShares) return;
  const [rows, columns] = map.shares.shape;
  drawBorders(place, rows, columns, (cell) => boxShares[cell] > 127, "rgba(255,255,255,.9)", 3.5);
  drawBorders(place, rows, columns, (cell) => boxShares[cell] > 127, css(SECOND), 1.8);
}
let boxShares = null;

/** A frame around one cell of a grid, at least a few pixels wide. */
function drawMark({ pen, width, height }, rows, columns, row, column) {
  const [y, x] = [height / rows, width / columns];
  const grow = Math.max(0, (7 - Math.min(x, y)) / 2);
  for (const [color, thickness] of [["#ffffff", 4], ["#000000", 2]]) {
    pen.strokeStyle = color;
    pen.lineWidth = thickness;
    pen.strokeRect(column * x - grow, row * y - grow, x + 2 * grow, y + 2 * grow);
  }
}

function drawHeat(place, { rows, columns, values, strength }) {
  drawPhotograph(place, 1);
  drawCells(place, rows, columns, (cell) => heatColor((values[cell] / 255) * strength), () => 0.82);
}

// The three of them.

const canStretch = () => document.getElementById("stretch").checked;

function drawPictures() {
  const token = pointer.cells.size ? null : pointed(view.sources);
  const marked = token ?? (pointer.cells.size ? null : pointed(view.reach?.sources));
  drawImagePicture(token);
  drawReachPicture();
  drawTokensPicture(marked);
  document.getElementById("clear").hidden = !pointer.cells.size;
}

function drawImagePicture(token) {
  const place = prepared("image");
  const { note, caption, canvas } = figures.image;
  const [rows, columns] = report.cells;
  if (token) {
    const found = cellsOf(view.sources, view.cells, token);
    drawHeat(place, found);
    caption.textContent = "where the chosen token’s content came from";
    const inside = shareInBox(found, view.sources.peaks[token.index]);
    if (token.row !== undefined) drawMark(place, view.sources.rows, view.sources.columns, token.row, token.column);
    const even = view.sources.peaks[token.index] * rows * columns < 1.5;
    note.textContent = even
      ? `${capital(tokenName(token))} holds about as much of every cell, ${percent(inside, 0)} from the box of ${report.photographs[1].name}.`
      : `Dark cells are where ${tokenName(token)} came from: ${percent(view.sources.peaks[token.index])} from the ` +
      `darkest one (an even spread would be ${percent(1 / (rows * columns))} each), ${percent(inside, 0)} from the box of ${report.photographs[1].name}.`;
  } else {
    drawPhotograph(place, 1);
    caption.textContent = pointer.cells.size
      ? "the cells that you chose"
      : view.sources ? "click cells to see where they went" : "kept for the end of each layer only";
    note.textContent = pointer.cells.size
      ? `${pointer.cells.size} of ${rows * columns} cells chosen; click to add or remove.`
      : "";
    for (const cell of pointer.cells) drawMark(place, rows, columns, Math.floor(cell / columns), cell % columns);
  }
  drawBox(place);
  if (document.activeElement === canvas && pointer.cell !== null) {
    drawMark(place, rows, columns, Math.floor(pointer.cell / columns), pointer.cell % columns);
  }
  canvas.setAttribute("aria-label", "The mixed image. Arrow keys move over its cells, Enter chooses one: the tokens that hold it are shown.");
}

function shareInBox({ rows, columns, values }, peak) {
  if (!boxShares) return 0;
  const [boxRows, boxColumns] = report.maps[report.nodes[0].map].shares.shape;
  let sum = 0;
  values.forEach((value, cell) => {
    const row = Math.floor(((Math.floor(cell / columns) + 0.5) * boxRows) / rows);
    const column = Math.floor((((cell % columns) + 0.5) * boxColumns) / columns);
    sum += shareIn(value) * peak * (boxShares[row * boxColumns + column] / 255);
  });
  return Math.min(sum, 1);
}

function drawReachPicture() {
  const { figure, note, caption, canvas } = figures.reach;
  figure.hidden = !view.reach;
  if (!view.reach) return;
  const place = prepared("reach");
  const token = pointed(view.reach.sources);
  const [, rows, columns] = view.reach.sources.cells.shape;
  if (token) drawHeat(place, cellsOf(view.reach.sources, view.read, token));
  if (view.groups) drawGroups(place);
  if (token?.row !== undefined) {
    const { sources } = view.reach;
    drawMark(place, sources.rows, sources.columns, token.row, token.column);
  }
  caption.textContent = `which of the ${view.reach.entering} tokens right before it`;
  note.textContent = reachInWords(view.reach);
  if (token) {
    const elsewhere = view.reach.sources.elsewhere[token.index];
    if (elsewhere > 0.001) note.textContent += ` ${percent(elsewhere)} comes from tokens without a place in the image.`;
  }
  canvas.setAttribute("aria-label", `${caption.textContent}, ${across(rows, columns)}. ${note.textContent} Arrow keys move the chosen token.`);
}

function drawGroups(place) {
  const [rows, columns] = view.reach.groups.shape;
  const fine = view.reach.tiles > 400;
  if (!fine) drawBorders(place, rows, columns, (cell) => view.groups[cell], "rgba(255,255,255,.85)", 3);
  drawBorders(place, rows, columns, (cell) => view.groups[cell], "#111111", fine ? 0.5 : 1.4);
}

function reachInWords({ read, entering, windows, tiles, sources }) {
  if (tiles) return `${tiles} separate tiles of ${entering / tiles} tokens: each becomes one token.`;
  if (!read) return "Cells stand for several of the entering tokens here, so these are not counted.";
  const [least, most] = read;
  const number = least === most ? `${most}` : `${least} to ${most}`;
  const out = sources.rows * sources.columns;
  const left = out && out !== entering ? ` ${entering} go in, ${out} come out.` : "";
  if (windows) return `${windows} separate windows: each token reads the ${number} tokens of its own window, and no others.`;
  if (least === most && most >= entering - 1) return `Every token reads all ${entering} tokens.`;
  return `Each token reads ${number} of the ${entering} tokens.${left}`;
}

function drawTokensPicture(token) {
  const { note, caption, canvas, figure } = figures.tokens;
  const map = view.map;
  figure.querySelector(".nomap")?.remove();
  canvas.hidden = !map?.rows;
  if (!map?.rows) {
    const box = document.createElement("p");
    box.className = "nomap";
    box.textContent = view.why || map?.why || "";
    canvas.after(box);
    caption.textContent = "";
    note.textContent = map ? labelInWords(map.mean) : "";
    if (map && pointer.cells.size && view.sources) {
      const held = heldBy(view.sources, view.cells, pointer.cells);
      note.textContent += ` ${percent(Math.max(...held), 2)} of it comes from the cells that you chose.`;
    }
    return;
  }
  const place = prepared("tokens");
  drawPhotograph(place, 1);
  const held = pointer.cells.size && view.sources ? heldBy(view.sources, view.cells, pointer.cells) : null;
  if (held) drawHeld(place, held);
  else drawLabels(place);
  if (view.reach?.windows && view.groups.length === map.rows * map.columns) drawGroups(place);
  const fits = token?.row !== undefined && token.row < map.rows && token.column < map.columns;
  if (fits) drawMark(place, map.rows, map.columns, token.row, token.column);
  caption.textContent = held
    ? `${across(map.rows, map.columns)}; dark ones hold what you chose`
    : `${across(map.rows, map.columns)}; click one to see ${view.sources ? "where its content came from" : "what it reads"}`;
  if (!view.sources && !view.reach && !held) caption.textContent = across(map.rows, map.columns);
  note.textContent = held
    ? `The darkest token is to ${percent(Math.max(...held), 2)} made of the chosen cells.`
    : labelInWords(map.mean, fits ? token : null);
  canvas.setAttribute("aria-label", `Tokens in ${across(map.rows, map.columns)}. ${note.textContent} Arrow keys move the chosen token.`);
}

function drawLabels(place) {
  const [rows, columns] = view.map.shares.shape;
  const [low, high] = range();
  drawCells(place, rows, columns, (cell) => labelColor((view.shares[cell] / 255 - low) / (high - low)), () => 0.8);
}

/** The shares at the two ends of the label colors. */
function range() {
  if (!canStretch() || !view.shares) return [0, 1];
  const low = Math.min(...view.shares) / 255;
  const high = Math.max(...view.shares) / 255;
  return high - low < 1 / 255 ? [Math.max(low - 0.01, 0), Math.min(high + 0.01, 1)] : [low, high];
}

function drawHeld(place, held) {
  const { rows, columns, kept_rows: keptRows, kept_columns: keptColumns } = view.sources;
  const top = Math.max(...held.slice(0, keptRows.length * keptColumns.length), 1e-9);
  const byCell = (cell) => {
    const row = nearest(keptRows, Math.floor(cell / columns));
    return held[row * keptColumns.length + nearest(keptColumns, cell % columns)] / top;
  };
  drawCells(place, rows, columns, (cell) => heatColor(byCell(cell)), () => 0.82);
}

function labelInWords(mean, token) {
  const second = report.photographs[1].name;
  const all = `All tokens together are ${percent(mean)} ${second} (the image: ${percent(report.ratio)}).`;
  const share = token && shareOf(token);
  return share === null || share === undefined ? all : `${capital(tokenName(token))} is ${percent(share)} ${second}. ${all}`;
}

/** A token's own label, as the map has it. */
function shareOf(token) {
  if (token.other !== undefined) return null;
  const [rows, columns] = view.map.shares.shape;
  const row = Math.floor((token.row * rows) / view.map.rows);
  const column = Math.floor((token.column * columns) / view.map.columns);
  return view.shares[row * columns + column] / 255;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// Choosing in the pictures.

function pointAt(row, column) {
  Object.assign(pointer, { row, column, other: null });
  pointer.cells.clear();
  refresh();
}

function fractions(event) {
  const { left, top, width, height } = event.currentTarget.getBoundingClientRect();
  const part = (value, size) => Math.min(Math.max(value / size, 0), 0.9999);
  return [part(event.clientY - top, height), part(event.clientX - left, width)];
}

for (const name of ["reach", "tokens"]) {
  figures[name].canvas.addEventListener("click", (event) => pointAt(...fractions(event)));
  figures[name].canvas.addEventListener("keydown", (event) => movePointer(event, name));
}

/** Arrow keys go to the next token of the sample. */
function movePointer(event, name) {
  const way = ARROWS[event.key];
  const sources = name === "reach" ? view.reach?.sources : view.sources ?? view.reach?.sources;
  if (!way || !sources?.rows) return;
  event.preventDefault();
  const token = pointer.other === null ? pointed(sources) : pointed({ ...sources, others: [] });
  const row = sources.kept_rows[Math.min(Math.max(token.at[0] + way[0], 0), sources.kept_rows.length - 1)];
  const column = sources.kept_columns[Math.min(Math.max(token.at[1] + way[1], 0), sources.kept_columns.length - 1)];
  pointAt((row + 0.5) / sources.rows, (column + 0.5) / sources.columns);
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

figures.image.canvas.addEventListener("click", (event) => {
  const [row, column] = fractions(event);
  chooseCell(Math.floor(row * report.cells[0]) * report.cells[1] + Math.floor(column * report.cells[1]));
});

figures.image.canvas.addEventListener("keydown", (event) => {
  const [rows, columns] = report.cells;
  const at = pointer.cell ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const way = ARROWS[event.key];
  if (way) {
    const row = Math.min(Math.max(Math.floor(at / columns) + way[0], 0), rows - 1);
    const column = Math.min(Math.max((at % columns) + way[1], 0), columns - 1);
    pointer.cell = row * columns + column;
    drawPictures();
  } else if (event.key === "Enter" || event.key === " ") {
    chooseCell(at);
  } else {
    return;
  }
  event.preventDefault();
});

figures.image.canvas.addEventListener("blur", () => drawPictures());

function chooseCell(cell) {
  if (!view.sources) return;
  pointer.cell = cell;
  if (!pointer.cells.delete(cell)) pointer.cells.add(cell);
  refresh();
}

function clearChoice() {
  pointer.cells.clear();
  pointer.cell = null;
  pointer.other = null;
  refresh();
}

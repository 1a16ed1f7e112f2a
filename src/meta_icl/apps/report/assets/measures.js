// What needs no page: heights of figures before they are drawn, the order of rows, CSV. Tested in node.

const STACKED = 560; // narrower places stack what else stands abreast
const GLYPHS = { circle: "●○", square: "■□", diamond: "◆◇", "triangle-up": "▲△", cross: "✚✢", star: "★☆" };
const STROKES = { solid: "━", dash: "╍", dot: "┈", "": "" };

// The sign that stands for a curve beside its name.
function sign(name) {
  const glyph = (GLYPHS[name.symbol] || "")[name.open ? 1 : 0] || "";
  return (name.dash === "solid" && glyph ? "" : STROKES[name.dash]) + glyph;
}

const plain = (html) => html.replace(/<[^>]*>/g, "").replace(/&[a-z]+;/g, "x");

// Whether the names of the curves stand at their ends: where a chart is wide enough for both.
function namesBeside(node, width) {
  if (!node.names) return 0;
  const room = 30 + 6.6 * Math.max(...node.names.map((name) => plain(name.text).length));
  return width >= 380 && room <= 0.42 * width ? room : 0;
}

function legendRows(node, width) {
  if (!node.layout.showlegend || namesBeside(node, width)) return 0;
  const names = node.data.filter((trace) => trace.showlegend !== false).map((trace) => plain(trace.name));
  return Math.ceil(names.reduce((sum, name) => sum + 52 + 7 * name.length, 0) / Math.max(width - 60, 120));
}

// The width of the cells of a heat map: without the names of rows and the scale of colours.
function mapWidth(trace, width) {
  return width - (trace.showscale === false ? 60 : 110);
}

function plotHeight(node, width) {
  const map = node.data[0] && node.data[0].type === "heatmap" ? node.data[0] : null;
  if (map) {
    const cells = map.z.length / map.z[0].length;
    return Math.round(Math.min(480, Math.max(150, mapWidth(map, width) * Math.min(1, Math.max(cells, 0.3))))) + 50;
  }
  return (width < 420 ? 250 : width < STACKED ? 290 : 340) + 21 * legendRows(node, width);
}

// The height that a tree will take in a place of this width; null for widgets, which are made at once.
function heightOf(node, width) {
  if (node.kind === "plot") return plotHeight(node, width);
  if (node.kind === "slider") {
    const heights = node.frames.map((frame) => heightOf(frame, width));
    return Math.max(...heights) + (width <= STACKED ? 72 : 46);
  }
  if (node.kind !== "grid") return null;
  const columns = width <= STACKED ? 1 : node.columns;
  const each = (width - 18 * (columns - 1)) / columns;
  const cells = node.cells.map((cell) => heightOf(cell.node, each) + (cell.title ? 26 : 0));
  let sum = (node.names ? 34 : 0) + (node.scale ? 30 : 0);
  for (let i = 0; i < cells.length; i += columns) sum += Math.max(...cells.slice(i, i + columns)) + (i ? 18 : 0);
  return sum;
}

// Numbers before texts, numbers by size, texts as people sort them.
function compare(a, b) {
  const [p, q] = [a, b].map((text) => (text.trim() === "" ? NaN : Number(text.replace("−", "-").replace(/,/g, ""))));
  if (!Number.isNaN(p) && !Number.isNaN(q)) return p - q;
  if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;
  return a.localeCompare(b, undefined, { numeric: true });
}

// Rows of texts as CSV (RFC 4180); a cell that a spreadsheet would run as a formula is kept as text.
function csv(rows) {
  const cell = (text) => {
    const safe = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

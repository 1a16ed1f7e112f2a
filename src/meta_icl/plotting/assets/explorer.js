// The body of a function (root, data): attention maps "step prompt layer head q k", one at a time.

// The keys that a query looks at most: [index, weight], heaviest first, as far as they are at least a tenth of the first.
function heaviest(row, n = 5) {
  const sorted = row.map((weight, key) => [key, weight]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  return sorted.slice(0, n).filter(([, weight]) => Math.abs(weight) > 0 && Math.abs(weight) >= Math.abs(sorted[0][1]) / 10);
}

// The share of the colour of a weight, of the largest weight of the map.
function shade(weight, largest) {
  return largest > 0 ? Math.min(1, Math.abs(weight) / largest) : 0;
}

if (!root) return { heaviest, shade };

const svg = root.querySelector("svg");
const ns = "http://www.w3.org/2000/svg";
const state = { layer: 0, head: 0, prompt: 0, step: data.steps.length - 1, row: data.patterns[0][0][0][0].length - 1 };
const sizes = { layer: data.patterns[0][0].length, head: data.patterns[0][0][0].length, prompt: data.patterns[0].length };
const left = 70, top = 10, side = 340;

const make = (tag, attributes, text) => {
  const element = document.createElementNS(ns, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  svg.appendChild(element);
  return element;
};

function draw() {
  const map = data.patterns[state.step][state.prompt][state.layer][state.head];
  const tokens = data.tokens[state.prompt];
  const [rows, columns] = [map.length, map[0].length];
  state.row = Math.max(0, Math.min(rows - 1, state.row));
  const [h, w] = [side / rows, side / columns];
  const largest = Math.max(...map.flat().map(Math.abs));
  const queries = tokens.slice(-rows);
  svg.replaceChildren();
  map.forEach((row, q) => row.forEach((weight, k) => {
    const cell = make("rect", {
      x: left + k * w, y: top + q * h, width: w, height: h, class: weight < 0 ? "below" : "above", "fill-opacity": shade(weight, largest),
    });
    cell.addEventListener("click", () => { state.row = q; draw(); });
  }));
  make("rect", { x: left, y: top, width: side, height: side, class: "frame" });
  make("rect", { x: left, y: top + state.row * h, width: side, height: h, class: "chosen" });
  const every = (n) => Math.ceil(n / 24);
  queries.forEach((token, q) => q % every(rows) === 0 && make("text", { x: left - 6, y: top + (q + 0.5) * h + 4, "text-anchor": "end" }, token.slice(0, 9)));
  tokens.forEach((token, k) => {
    if (k % every(columns)) return;
    const [x, y] = [left + (k + 0.5) * w + 4, top + side + 8];
    make("text", { x, y, "text-anchor": "end", transform: `rotate(-90 ${x} ${y})` }, token.slice(0, 9));
  });
  root.querySelector("output").textContent = `step ${data.steps[state.step]}`;
  const list = root.querySelector(".mi-looks");
  list.replaceChildren(...heaviest(map[state.row]).map(([key, weight]) => {
    const item = document.createElement("li");
    item.textContent = `${queries[state.row]} (row ${state.row + 1}) looks at ${tokens[key]} (column ${key + 1}): ${weight.toFixed(2).replace("-", "−")}`;
    return item;
  }));
}

root.querySelectorAll("select").forEach((select) => {
  const name = select.dataset.set;
  for (let i = 0; i < sizes[name]; i += 1) select.add(new Option(String(i + 1), String(i)));
  select.disabled = sizes[name] === 1;
  select.addEventListener("change", () => { state[name] = Number(select.value); draw(); });
});
const slider = root.querySelector("input");
Object.assign(slider, { max: data.steps.length - 1, value: state.step, disabled: data.steps.length === 1 });
slider.addEventListener("input", () => {
  state.step = Number(slider.value);
  slider.setAttribute("aria-valuetext", `step ${data.steps[state.step]}`);
  draw();
});
svg.setAttribute("tabindex", "0");
svg.addEventListener("keydown", (event) => {
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  state.row += by;
  draw();
});
draw();

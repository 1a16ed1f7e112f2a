// The body of a function (root, data): one layer of linear attention with frozen weights answers a prompt that moves.
// Row convention: context rows c = (x, y), query row q = (x_q, 0); answer = -[sum_c (q A c) (c B)]_y.

function attend(points, A, B, xq) {
  let sum = 0;
  for (const { x, y } of points) {
    const score = xq * (A[0][0] * x + A[0][1] * y);
    sum += score * (x * B[0][1] + y * B[1][1]);
  }
  return -sum;
}

// One gradient step on (1/2n) sum (w x - y)^2 from w = 0.
function descend(points, rate, xq) {
  const moment = points.reduce((sum, { x, y }) => sum + x * y, 0);
  return points.length ? (rate / points.length) * moment * xq : 0;
}

function contextOf(state) {
  return state.x.map((x, i) => ({ x, y: state.slope * x + state.noise * state.unit[i] + state.moved[i] }));
}

// Where the frame shows a height: at its edge, and marked, if it lies beyond. A point dragged to the edge is not beyond.
function framed(y, yMax) {
  return { y: Math.max(-yMax, Math.min(yMax, y)), beyond: Math.abs(y) > yMax * (1 + 1e-9) };
}

if (!root) return { attend, descend, contextOf, framed };

const W = 640, H = 380, pad = { left: 40, right: 12, top: 12, bottom: 34 };
const xMax = data.half_range * 1.1, yMax = data.max_slope * data.half_range * 1.2;
const px = (x) => pad.left + ((x + xMax) / (2 * xMax)) * (W - pad.left - pad.right);
const py = (y) => pad.top + ((yMax - y) / (2 * yMax)) * (H - pad.top - pad.bottom);
const start = () => ({
  slope: data.slope, noise: 0, query: 0.7 * data.half_range,
  x: data.x.slice(), unit: data.unit_noise.slice(), moved: data.x.map(() => 0),
});
let state = start();

const svg = root.querySelector("svg");
const make = (tag, attributes, parent = svg) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.appendChild(element);
  return element;
};
const line = (attributes) => make("line", { "stroke-linecap": "round", ...attributes });

for (let y = -Math.floor(yMax); y <= yMax; y += 1) {
  line({ x1: px(-xMax), x2: px(xMax), y1: py(y), y2: py(y), class: y === 0 ? "axis" : "grid" });
  make("text", { x: pad.left - 8, y: py(y) + 4, "text-anchor": "end" }).textContent = String(y).replace("-", "−");
}
for (const share of [-1, -0.5, 0, 0.5, 1]) {
  const x = share * data.half_range;
  line({ x1: px(x), x2: px(x), y1: py(-yMax), y2: py(yMax), class: share === 0 ? "axis" : "grid" });
  make("text", { x: px(x), y: H - 14, "text-anchor": "middle" }).textContent = String(x).replace("-", "−");
}
const lines = {
  truth: line({ class: "truth" }), gd: line({ class: "gd" }), model: line({ class: "model" }),
};
const asked = line({ class: "asked" });
const answers = { gd: make("circle", { r: 7, class: "gd-dot" }), model: make("circle", { r: 5, class: "model-dot" }) };
let dots = [];

function rebuild() {
  dots.forEach((dot) => dot.remove());
  dots = state.x.map((_, i) => {
    const dot = make("circle", { r: 6, class: "context", tabindex: 0, role: "slider", "aria-label": `context point ${i + 1}` });
    dot.addEventListener("pointerdown", (event) => {
      dot.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    dot.addEventListener("pointermove", (event) => {
      if (!dot.hasPointerCapture(event.pointerId)) return;
      const box = svg.getBoundingClientRect();
      const y = yMax - ((((event.clientY - box.top) / box.height) * H - pad.top) / (H - pad.top - pad.bottom)) * 2 * yMax;
      move(i, framed(y, yMax).y - contextOf(state)[i].y);
    });
    dot.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      move(i, step);
    });
    return dot;
  });
}

function move(i, by) {
  state.moved[i] += by;
  draw();
}

function place(element, slope) {
  // Each line is clipped to the frame.
  const reach = slope === 0 ? xMax : Math.min(xMax, yMax / Math.abs(slope));
  for (const [name, value] of Object.entries({ x1: px(-reach), y1: py(-reach * slope), x2: px(reach), y2: py(reach * slope) }))
    element.setAttribute(name, value);
}

function put(dot, x, y) {
  const shown = framed(y, yMax);
  dot.setAttribute("cx", px(x));
  dot.setAttribute("cy", py(shown.y));
  dot.classList.toggle("beyond", shown.beyond);
}

function draw() {
  const points = contextOf(state);
  const model = attend(points, data.A, data.B, 1), gd = descend(points, data.rate, 1);
  place(lines.truth, state.slope);
  place(lines.gd, gd);
  place(lines.model, model);
  points.forEach(({ x, y }, i) => {
    put(dots[i], x, y);
    dots[i].setAttribute("aria-valuenow", y.toFixed(2));
  });
  for (const name of ["x1", "x2"]) asked.setAttribute(name, px(state.query));
  asked.setAttribute("y1", py(-yMax));
  asked.setAttribute("y2", py(yMax));
  for (const [name, slope] of Object.entries({ model, gd })) put(answers[name], state.query, slope * state.query);
  const show = (name, value) => { root.querySelector(`[data-show="${name}"]`).textContent = value.toFixed(3).replace("-", "−"); };
  show("slope-truth", state.slope);
  show("slope-model", model);
  show("slope-gd", gd);
  show("answer-truth", state.slope * state.query);
  show("answer-model", model * state.query);
  show("answer-gd", gd * state.query);
  root.querySelectorAll("input[data-set]").forEach((input) => {
    input.value = state[input.dataset.set];
    input.nextElementSibling.textContent = Number(input.value).toFixed(2).replace("-", "−");
  });
}

root.querySelectorAll("input[data-set]").forEach((input) =>
  input.addEventListener("input", () => {
    state[input.dataset.set] = Number(input.value);
    draw();
  }));
root.querySelector("[data-do=again]").addEventListener("click", () => {
  state = start();
  rebuild();
  draw();
});
root.querySelector("[data-do=new]").addEventListener("click", () => {
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  state.x = state.x.map(() => (2 * Math.random() - 1) * data.half_range);
  state.unit = state.x.map(normal);
  state.moved = state.x.map(() => 0);
  draw();
});
rebuild();
draw();

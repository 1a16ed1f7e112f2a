// The body of a function (root, data): arrows that move over training steps, beside arrows that do not.

// The cosine between two vectors of the plane; 0 if one of them vanishes.
function cosine(a, b) {
  const norms = Math.hypot(...a) * Math.hypot(...b);
  return norms === 0 ? 0 : (a[0] * b[0] + a[1] * b[1]) / norms;
}

function meanCosine(vectors, fixed) {
  return vectors.reduce((sum, v, i) => sum + cosine(v, fixed[i]), 0) / vectors.length;
}

if (!root) return { cosine, meanCosine };

const R = 70;
const last = data.steps.length - 1;
const ns = "http://www.w3.org/2000/svg";
const make = (parent, tag, attributes) => {
  const element = document.createElementNS(ns, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.appendChild(element);
  return element;
};

// A straight arrow from the origin, as the outline of a path.
function arrow([x, y]) {
  const length = Math.hypot(x, y);
  if (length < 1e-9) return "";
  const [ux, uy] = [x / length, y / length];
  const head = Math.min(9, length);
  const [bx, by] = [x - head * ux, y - head * uy];
  return `M0 0L${bx} ${by}M${x} ${y}L${bx - 0.5 * head * uy} ${by + 0.5 * head * ux}L${bx + 0.5 * head * uy} ${by - 0.5 * head * ux}Z`;
}

const panels = data.fixed.map((fixed, i) => {
  const reach = Math.max(...data.vectors.map((frame) => Math.hypot(...frame[i])), Math.hypot(...fixed), 1e-9);
  const onto = ([x, y]) => [(x / reach) * R * 0.92, (-y / reach) * R * 0.92];
  const figure = document.createElement("figure");
  root.querySelector(".mi-arrows").appendChild(figure);
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", `${-R - 6} ${-R - 6} ${2 * R + 12} ${2 * R + 12}`);
  svg.setAttribute("aria-hidden", "true");
  figure.appendChild(svg);
  make(svg, "circle", { r: R, class: "frame" });
  make(svg, "line", { x1: -R, x2: R, y1: 0, y2: 0, class: "grid" });
  make(svg, "line", { y1: -R, y2: R, x1: 0, x2: 0, class: "grid" });
  make(svg, "path", { d: arrow(onto(fixed)), class: "fixed" });
  const trail = make(svg, "polyline", { class: "trail" });
  const moving = make(svg, "path", { class: "moving" });
  const caption = document.createElement("figcaption");
  figure.appendChild(caption);
  return (frame) => {
    const tips = data.vectors.slice(0, frame + 1).map((vectors) => onto(vectors[i]));
    moving.setAttribute("d", arrow(tips[frame]));
    trail.setAttribute("points", tips.map((tip) => tip.join(",")).join(" "));
    caption.textContent = `prompt ${i + 1} · cos ${cosine(data.vectors[frame][i], fixed).toFixed(3).replace("-", "−")}`;
  };
});

const slider = root.querySelector("input[type=range]");
const button = root.querySelector("button");
slider.max = last;
let timer = null;

function show(frame) {
  slider.value = frame;
  slider.setAttribute("aria-valuetext", `step ${data.steps[frame]}`);
  panels.forEach((draw) => draw(frame));
  const mean = meanCosine(data.vectors[frame], data.fixed).toFixed(3).replace("-", "−");
  root.querySelector("output").textContent = `step ${data.steps[frame]}, mean cosine ${mean}`;
}

function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = "▶ play";
}

button.addEventListener("click", () => {
  if (timer !== null) return stop();
  let frame = Number(slider.value) >= last ? 0 : Number(slider.value);
  button.textContent = "❚❚ pause";
  show(frame);
  timer = setInterval(() => {
    frame += 1;
    if (frame > last) return stop();
    show(frame);
  }, Math.max(40, 6000 / (last + 1)));
});
slider.addEventListener("input", () => {
  stop();
  show(Number(slider.value));
});
show(last);

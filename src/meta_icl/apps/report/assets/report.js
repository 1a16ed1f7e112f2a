// Mounts the trees of figures that the page holds as JSON (see draw_plotly.py), and lands links where they point.

const roots = JSON.parse(document.getElementById("figures").textContent);
const plots = new Set(); // elements with a plot, to be redrawn when the colours change
// Without showSendToCloud: false every figure has a button that sends its data to the servers of plotly.
const settings = {
  displaylogo: false, displayModeBar: false, showSendToCloud: false, responsive: true,
};

// "@c0/0.2" -> the theme's colour c0 with opacity 0.2.
function colour(symbol) {
  const [name, opacity] = symbol.slice(1).split("/");
  const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  if (!hex) return symbol; // a text that happens to start with @
  if (opacity === undefined) return hex;
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

function coloured(value) {
  if (typeof value === "string") return /^@[a-z0-9]+(\/[0-9.]+)?$/.test(value) ? colour(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item)]));
  return value;
}

function layoutFor(node, width) {
  const map = node.data[0] && node.data[0].type === "heatmap" ? node.data[0] : null;
  const narrow = width < 420;
  const room = namesBeside(node, width);
  const height = plotHeight(node, width);
  const beside = room ? node.names.map((name) => ({
    text: `<span style="color:${colour(name.colour)}">${sign(name)}</span> ${name.text}`, showarrow: false, align: "left",
    xref: "paper", x: 1, xanchor: "left", xshift: 6, yref: "paper", y: name.y, yanchor: "middle", font: { color: "@ink", size: 12 },
  })) : [];
  const axis = {
    gridcolor: "@rule", zerolinecolor: "@rule", linecolor: "@rule", automargin: true, ticks: "", tickfont: { color: "@muted" },
    exponentformat: "power", title: { standoff: 8, font: { size: 13 } },
  };
  const merged = (own) => ({ ...axis, ...own, title: { ...axis.title, ...(own.title || {}) } });
  return coloured({
    ...node.layout,
    width: undefined, height, autosize: true,
    annotations: beside, showlegend: Boolean(node.layout.showlegend) && !room,
    xaxis: merged(node.layout.xaxis), yaxis: merged(node.layout.yaxis),
    margin: { l: 56, r: map ? (map.showscale === false ? 4 : 8) : 14 + room, t: 10, b: 44, pad: 2 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: "@ink" },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: narrow ? 11 : 12 } },
    hoverlabel: { bgcolor: "@raised", bordercolor: "@rule", font: { color: "@ink" }, namelength: -1 },
    uirevision: "keep",
  });
}

function coloursOfBar(data) {
  return data.map((trace) => (trace.colorbar ? { ...trace, colorbar: { ...trace.colorbar, tickfont: { color: colour("@muted") } } } : trace));
}

// Numbers stand in the cells of a heat map where they fit, colours tell the rest.
function fitted(data, width) {
  return data.map((trace) => {
    if (!trace.texttemplate || mapWidth(trace, width) / trace.z[0].length >= 36) return trace;
    const { texttemplate, ...without } = trace;
    return without;
  });
}

function plot(node, element) {
  element.classList.add("mi-plot");
  element.setAttribute("role", "img");
  const words = element.closest(".mount");
  const cell = element.closest(".mi-cell");
  element.setAttribute("aria-label", [cell ? cell.firstChild.textContent : "", words.dataset.words].filter(Boolean).join(": "));
  element.node = node;
  plots.add(element);
  const width = element.clientWidth;
  return Plotly.react(element, coloursOfBar(coloured(fitted(node.data, width))), layoutFor(node, width), settings);
}

const make = (tag, className, parent, html) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (html !== undefined) element.innerHTML = html;
  if (parent) parent.appendChild(element);
  return element;
};

// Each mount returns a function that shows another node of the same shape in its place, or null if it cannot.
const mounts = {
  plot(node, element) {
    plot(node, element);
    return (next) => plot(next, element);
  },
  grid(node, element) {
    const legend = node.names ? make("p", "mi-names", element) : null;
    const name = (names) => {
      const shown = (one) => `<span><i style="color:var(--${one.colour.slice(1)})">${sign(one)}</i> ${one.text}</span>`;
      if (legend) legend.innerHTML = (names || []).map(shown).join("");
    };
    name(node.names);
    if (node.scale) {
      const [low, high, colours] = node.scale;
      const shown = (value) => `${Number(value.toPrecision(3))}`.replace("-", "−");
      make("p", "mi-scale", element, `${shown(low)} <i style="background:linear-gradient(90deg,${colours.join(",")})"></i> ${shown(high)}`);
    }
    const grid = make("div", node.columns > 1 ? "mi-grid mi-abreast" : "mi-grid", element);
    grid.style.setProperty("--columns", node.columns);
    const cells = node.cells.map((cell) => {
      const box = make("div", "mi-cell", grid);
      const title = make("p", "mi-title", box, cell.title);
      return { title, update: mount(cell.node, make("div", "", box)) };
    });
    return (next) => {
      name(next.names);
      next.cells.forEach((cell, i) => {
        cells[i].title.innerHTML = cell.title;
        cells[i].update(cell.node);
      });
    };
  },
  slider(node, element) {
    const controls = make("div", "mi-controls", element);
    const label = make("label", "", controls, node.label);
    const less = make("button", "mi-step", controls, "‹");
    const input = make("input", "", controls);
    const more = make("button", "mi-step", controls, "›");
    const output = make("output", "", controls);
    const play = node.values.length > 4 ? make("button", "mi-step", controls, "▶ play") : null;
    Object.assign(input, { type: "range", min: 0, max: node.values.length - 1, step: 1, value: node.start });
    input.id = label.htmlFor = `slider-${(mounts.count = (mounts.count || 0) + 1)}`;
    less.type = more.type = "button";
    less.setAttribute("aria-label", "previous value");
    more.setAttribute("aria-label", "next value");
    const body = make("div", "", element);
    let shown = node.frames[node.start];
    let update = mount(shown, body);
    const show = (index) => {
      index = Math.max(0, Math.min(node.values.length - 1, index));
      input.value = index;
      output.textContent = node.values[index];
      input.setAttribute("aria-valuetext", node.values[index]);
      less.disabled = index === 0;
      more.disabled = index === node.values.length - 1;
      const next = node.frames[index];
      if (next === shown) return;
      if (alike(shown, next)) update(next);
      else {
        body.querySelectorAll(".mi-plot").forEach((old) => { plots.delete(old); Plotly.purge(old); });
        body.replaceChildren();
        update = mount(next, body);
      }
      shown = next;
    };
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      if (play) play.textContent = "▶ play";
    };
    const by = (step) => { stop(); show(Number(input.value) + step); };
    input.addEventListener("input", () => by(0));
    less.addEventListener("click", () => by(-1));
    more.addEventListener("click", () => by(1));
    if (play) {
      play.type = "button";
      play.addEventListener("click", () => {
        if (timer !== null) return stop();
        const last = node.values.length - 1;
        if (Number(input.value) === last) show(0);
        play.textContent = "❚❚ pause";
        timer = setInterval(() => (Number(input.value) === last ? stop() : show(Number(input.value) + 1)), Math.max(120, 8000 / last));
      });
    }
    show(node.start);
    return null;
  },
  widget(node, element) {
    element.innerHTML = node.html;
    new Function("root", "data", node.script)(element, node.data);
    return null;
  },
};

function alike(a, b) {
  if (a.kind !== b.kind || a.kind === "slider" || a.kind === "widget") return false;
  if (a.kind === "plot") return true;
  if (Boolean(a.names) !== Boolean(b.names) || Boolean(a.scale) !== Boolean(b.scale)) return false;
  return a.cells.length === b.cells.length && a.cells.every((cell, i) => alike(cell.node, b.cells[i].node));
}

function mount(node, element) {
  return mounts[node.kind](node, element);
}

function mountRoot(element) {
  if (element.dataset.mounted) return;
  element.dataset.mounted = "yes";
  try {
    mount(roots[Number(element.dataset.figure)], element);
  } catch (error) {
    make("p", "failed", element).textContent = `This figure could not be drawn: ${error.message}`;
  }
  element.style.minHeight = "0";
}

// Every figure has its height before it is drawn, so that links land where they point.
const places = [...document.querySelectorAll(".mount")];
function reserve() {
  places.forEach((place) => {
    if (place.dataset.mounted) return;
    const height = heightOf(roots[Number(place.dataset.figure)], place.clientWidth);
    if (height !== null) place.style.minHeight = `${height}px`;
  });
}

async function unpacked(element) {
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// A claim that a link points to unfolds; then its place, and once more when all around it is drawn.
function land(smooth) {
  let name = location.hash.slice(1);
  try { name = decodeURIComponent(name); } catch (error) { /* a name with a bare % is taken as it is */ }
  const target = document.getElementById(name);
  if (!target) return;
  if (target.tagName === "DETAILS") { target.hidden = false; target.open = true; }
  target.querySelectorAll(".mount").forEach(mountRoot);
  const jump = (behavior) => target.scrollIntoView({ behavior, block: "start" });
  const there = () => {
    const { top } = target.getBoundingClientRect();
    const low = document.documentElement.scrollHeight - window.innerHeight - window.scrollY < 2;
    return (top > -4 && top < 40) || (low && top < window.innerHeight && top > 0);
  };
  const mend = () => { if (!there()) jump("instant"); };
  window.addEventListener("scrollend", mend, { once: true });
  jump(smooth ? "auto" : "instant");
}
window.addEventListener("hashchange", () => land(true));
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.hash === location.hash) land(true);
});

reserve();
// Widgets need no plotly: made at once, they have their height.
places.filter((place) => roots[Number(place.dataset.figure)].kind === "widget").forEach(mountRoot);
unpacked(document.getElementById("plotly")).then((code) => {
  const script = document.createElement("script");
  script.textContent = code;
  document.head.appendChild(script);
  // Figures are drawn when they come near the screen, and all of them before printing.
  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    watcher.unobserve(entry.target);
    mountRoot(entry.target);
  }), { rootMargin: "600px" });
  places.forEach((place) => watcher.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(mountRoot));
  if (location.hash) requestAnimationFrame(() => requestAnimationFrame(() => land(false)));
  document.documentElement.dataset.ready = "yes";
}).catch((error) => places.forEach((place) => {
  if (!place.dataset.mounted) make("p", "failed", place).textContent = `Figures could not be drawn: ${error.message}`;
}));

function redraw() {
  plots.forEach((element) => plot(element.node, element));
}
let width = window.innerWidth;
let waiting;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(() => { reserve(); redraw(); }, 150);
});
const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let before;
window.addEventListener("beforeprint", () => {
  before = root.dataset.scheme;
  root.dataset.scheme = "light"; // paper is white
  redraw();
});
window.addEventListener("afterprint", () => {
  if (before) root.dataset.scheme = before;
  else delete root.dataset.scheme;
  redraw();
});
dark.addEventListener("change", redraw);
document.querySelector(".scheme").addEventListener("click", () => {
  const current = document.documentElement.dataset.scheme || (dark.matches ? "dark" : "light");
  const chosen = current === "dark" ? "light" : "dark";
  document.documentElement.dataset.scheme = chosen;
  try { localStorage.setItem("meta_icl-scheme", chosen); } catch (error) { /* for this view only */ }
  redraw();
});

"use strict";
// Mounts the trees of figures that the page holds as JSON (see draw_plotly.py), and lets claims be filtered.
(() => {
  const roots = JSON.parse(document.getElementById("figures").textContent);
  const plots = new Set(); // elements with a plot, to be redrawn when the colours change
  // Without showSendToCloud: false every figure has a button that sends its data to the servers of plotly.
  const settings = {
    displaylogo: false, showSendToCloud: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
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
    const names = node.layout.showlegend ? node.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name) : [];
    const narrow = width < 420;
    const legendRows = Math.ceil(names.reduce((sum, name) => sum + 52 + 7 * name.length, 0) / Math.max(width - 60, 120));
    const height = map
      ? Math.min(480, Math.max(180, ((width - 110) * map.z.length) / map.z[0].length)) + 50
      : (narrow ? 250 : width < 560 ? 290 : 340) + 21 * legendRows;
    const axis = {
      gridcolor: "@rule", zerolinecolor: "@rule", linecolor: "@rule", automargin: true, ticks: "", tickfont: { color: "@muted" },
      exponentformat: "power", title: { standoff: 8, font: { size: 13 } },
    };
    const merged = (own) => ({ ...axis, ...own, title: { ...axis.title, ...(own.title || {}) } });
    return coloured({
      ...node.layout,
      width: undefined, height, autosize: true,
      xaxis: merged(node.layout.xaxis), yaxis: merged(node.layout.yaxis),
      margin: { l: 56, r: map ? 8 : 14, t: 10, b: 44, pad: 2 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: "@ink" },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: narrow ? 11 : 12 } },
      hoverlabel: { bgcolor: "@raised", bordercolor: "@rule", font: { color: "@ink" }, namelength: -1 },
      modebar: { bgcolor: "@raised/0.85", color: "@muted", activecolor: "@ink" }, // it lies over the legend while one points
      uirevision: "keep",
    });
  }

  function coloursOfBar(data) {
    return data.map((trace) => (trace.colorbar ? { ...trace, colorbar: { ...trace.colorbar, tickfont: { color: colour("@muted") } } } : trace));
  }

  function plot(node, element) {
    element.classList.add("mi-plot");
    element.node = node;
    plots.add(element);
    return Plotly.react(element, coloursOfBar(coloured(node.data)), layoutFor(node, element.clientWidth), settings);
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
      const grid = make("div", "mi-grid", element);
      grid.style.setProperty("--columns", node.columns);
      const cells = node.cells.map((cell) => {
        const box = make("div", "mi-cell", grid);
        const title = make("h4", "", box, cell.title);
        return { title, update: mount(cell.node, make("div", "", box)) };
      });
      return (next) => next.cells.forEach((cell, i) => {
        cells[i].title.innerHTML = cell.title;
        cells[i].update(cell.node);
      });
    },
    slider(node, element) {
      const controls = make("div", "mi-controls", element);
      const label = make("label", "", controls, node.label);
      const less = make("button", "mi-step", controls, "‹");
      const input = make("input", "", controls);
      const more = make("button", "mi-step", controls, "›");
      const output = make("output", "", controls);
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
      input.addEventListener("input", () => show(Number(input.value)));
      less.addEventListener("click", () => show(Number(input.value) - 1));
      more.addEventListener("click", () => show(Number(input.value) + 1));
      show(node.start);
      return null;
    },
    widget(node, element) {
      element.innerHTML = node.html;
      new Function("root", "data", "Plotly", node.script)(element, node.data, Plotly);
      return null;
    },
  };

  function alike(a, b) {
    if (a.kind !== b.kind || a.kind === "slider" || a.kind === "widget") return false;
    if (a.kind === "plot") return true;
    return a.cells.length === b.cells.length && a.cells.every((cell, i) => alike(cell.node, b.cells[i].node));
  }

  function mount(node, element) {
    return mounts[node.kind](node, element);
  }

  function mountRoot(element) {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "yes";
    element.style.minHeight = "0";
    try {
      mount(roots[Number(element.dataset.figure)], element);
    } catch (error) {
      make("p", "failed", element).textContent = `This figure could not be drawn: ${error.message}`;
    }
  }

  // Figures are drawn when they come near the screen, and all of them before printing.
  const places = [...document.querySelectorAll(".mount")];
  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    watcher.unobserve(entry.target);
    mountRoot(entry.target);
  }), { rootMargin: "600px" });
  places.forEach((place) => watcher.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(mountRoot));

  function redraw() {
    plots.forEach((element) => plot(element.node, element));
  }
  let width = window.innerWidth;
  let waiting;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  document.querySelector(".scheme").addEventListener("click", () => {
    const current = document.documentElement.dataset.scheme || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.scheme = current === "dark" ? "light" : "dark";
    redraw();
  });

  const claims = [...document.querySelectorAll(".claim")];
  const filters = [...document.querySelectorAll(".filters [data-show]")];
  filters.forEach((button) => button.addEventListener("click", () => {
    filters.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    claims.forEach((claim) => { claim.hidden = button.dataset.show !== "all" && claim.dataset.verdict !== button.dataset.show; });
  }));
  const expand = document.querySelector(".expand");
  if (expand) expand.addEventListener("click", () => {
    const open = expand.getAttribute("aria-pressed") !== "true";
    expand.setAttribute("aria-pressed", String(open));
    expand.textContent = open ? "close all" : "open all";
    claims.forEach((claim) => { claim.open = open; });
  });
  window.addEventListener("beforeprint", () => claims.forEach((claim) => { claim.open = true; }));
})();

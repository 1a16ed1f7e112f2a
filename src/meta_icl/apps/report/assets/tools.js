// Filters claims, sorts and copies tables, saves figures. Stands behind report.js, in the same function.

const claims = [...document.querySelectorAll(".claim")];
const judged = [...claims, ...document.querySelectorAll(".overview .row")];
const filters = [...document.querySelectorAll(".filters [data-show]")];
filters.forEach((button) => button.addEventListener("click", () => {
  filters.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  judged.forEach((claim) => { claim.hidden = button.dataset.show !== "all" && claim.dataset.verdict !== button.dataset.show; });
}));
const expand = document.querySelector(".expand");
if (expand) expand.addEventListener("click", () => {
  const open = expand.getAttribute("aria-pressed") !== "true";
  expand.setAttribute("aria-pressed", String(open));
  expand.textContent = open ? "close all" : "open all";
  claims.forEach((claim) => { claim.open = open; });
});
window.addEventListener("beforeprint", () => claims.forEach((claim) => { claim.open = true; }));

const valueOf = (cell) => (cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim());
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button") && head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(valueOf(a.cells[column]), valueOf(b.cells[column])) * (down ? -1 : 1));
    table.tBodies[0].append(...rows);
  }));
  const copy = table.parentElement.nextElementSibling.querySelector("[data-csv]");
  copy.addEventListener("click", async () => {
    const rows = [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(valueOf));
    const text = csv(rows);
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch (error) {
      const area = make("textarea", "unseen", document.body);
      area.value = text;
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    copy.textContent = done ? "copied" : "could not be copied";
    setTimeout(() => { copy.textContent = "copy as CSV"; }, 1500);
  });
});

// Of a figure as it stands: its plots and drawings, with their titles and names, as one SVG.
const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-size", "font-family", "text-anchor"];
const svgText = (x, y, style, words) => {
  const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
  words.forEach(([part, fill]) => {
    const span = text.appendChild(document.createElementNS(text.namespaceURI, "tspan"));
    span.textContent = part;
    span.setAttribute("fill", fill);
  });
  Object.entries({ x, y, "font-size": style.fontSize, "font-weight": style.fontWeight, "font-family": "sans-serif" })
    .forEach(([name, value]) => text.setAttribute(name, value));
  return new XMLSerializer().serializeToString(text);
};

// The bar of colours of a scale, as the gradient that its style names.
function svgBar(bar, x, y, id) {
  const { width, height } = bar.getBoundingClientRect();
  const colours = getComputedStyle(bar).backgroundImage.match(/rgba?\([^)]*\)/g);
  const stops = colours.map((one, i) => `<stop offset="${i / (colours.length - 1)}" stop-color="${one}"/>`).join("");
  return `<linearGradient id="${id}">${stops}</linearGradient><rect x="${x}" y="${y}" width="${width}" height="${height}" fill="url(#${id})"/>`;
}

async function pictured(mountPlace) {
  const css = getComputedStyle(document.documentElement);
  const paper = css.getPropertyValue("--paper").trim();
  const box = mountPlace.getBoundingClientRect();
  const parts = [];
  const kinds = ".mi-plot, svg, .mi-title, .mi-scale, .mi-names span, .mi-controls output, .mi-arrows figcaption";
  for (const element of [mountPlace, ...mountPlace.querySelectorAll("*")].filter((one) => one.matches(kinds))) {
    if (element.tagName === "svg" && element.closest(".mi-plot")) continue;
    const at = element.getBoundingClientRect();
    const [x, y] = [at.left - box.left, at.top - box.top];
    if (element.classList.contains("mi-plot")) {
      const image = await Plotly.toImage(element, { format: "svg", width: at.width, height: at.height });
      const text = decodeURIComponent(image.slice(image.indexOf(",") + 1));
      parts.push(text.replace("<svg ", `<svg x="${x}" y="${y}" `));
    } else if (element.tagName === "svg") {
      const copy = element.cloneNode(true);
      const copies = [copy, ...copy.querySelectorAll("*")];
      [element, ...element.querySelectorAll("*")].forEach((one, i) => {
        const style = getComputedStyle(one);
        DRAWN.forEach((name) => copies[i].style.setProperty(name, style.getPropertyValue(name)));
      });
      Object.entries({ x, y, width: at.width, height: at.height }).forEach(([name, value]) => copy.setAttribute(name, value));
      parts.push(new XMLSerializer().serializeToString(copy));
    } else if (element.classList.contains("mi-scale")) {
      const style = getComputedStyle(element);
      const [bar, bottom] = [element.querySelector("i").getBoundingClientRect(), y + at.height * 0.75];
      parts.push(svgText(x, bottom, style, [[element.firstChild.textContent, style.color]]));
      parts.push(svgBar(element.querySelector("i"), bar.left - box.left, bar.top - box.top, `scale${parts.length}`));
      parts.push(svgText(bar.right - box.left + 4, bottom, style, [[element.lastChild.textContent.trim(), style.color]]));
    } else {
      const style = getComputedStyle(element);
      const key = element.querySelector("i"); // the sign of a curve has its colour
      const words = [...(key ? [[key.textContent, getComputedStyle(key).color]] : []), [key ? element.textContent.slice(key.textContent.length) : element.textContent, style.color]];
      parts.push(svgText(x, y + at.height * 0.75, style, words));
    }
  }
  const size = `width="${box.width}" height="${box.height}" viewBox="0 0 ${box.width} ${box.height}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}><rect width="100%" height="100%" fill="${paper}"/>${parts.join("")}</svg>`;
}

async function bitmap(svg, { width, height }) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

document.querySelectorAll("[data-save]").forEach((button) => button.addEventListener("click", async () => {
  const place = button.closest("figure").querySelector(".mount");
  mountRoot(place);
  const svg = await pictured(place);
  const blob = button.dataset.save === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await bitmap(svg, place.getBoundingClientRect());
  const link = make("a", "unseen", document.body);
  link.href = URL.createObjectURL(blob);
  link.download = `${place.dataset.name}.${button.dataset.save}`;
  link.click();
  setTimeout(() => { URL.revokeObjectURL(link.href); link.remove(); }, 1000);
}));

"use strict";
// Elements, and numbers as text. Text is never read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children, which are elements or text; null children are skipped. */
function html(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG. `colour` is a CSS colour or variable of the stroke, `fill` of the inside. */
function svg(name, { colour, fill, ...attributes } = {}, ...children) {
  const node = filled(document.createElementNS(SVG, name), attributes, children);
  if (colour) node.style.stroke = colour;
  if (fill) node.style.fill = fill;
  return node;
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null).map((child) => (child.nodeType ? child : String(child))));
  return node;
}

const percent = (share, digits = 1) => (share === null ? "none" : `${(100 * share).toFixed(digits)} %`);
const short = (share) => `${Number((100 * share).toFixed(2))}%`;
const times = (ratio) => `${ratio.toFixed(2)}x`;
const number = (value, digits = 2) => (value === null ? "none" : value.toFixed(digits));
const plain = (value) => String(Number(value.toFixed(3)));
const seconds = (value) => `${value >= 10 ? value.toFixed(1) : Number(value.toPrecision(3))} s`;

/** Several shares and their 95 % interval: `97.3 % (96.1 to 98.2)`. */
const interval = (share) => (share ? `${percent(share[0])} (${(100 * share[1]).toFixed(1)} to ${(100 * share[2]).toFixed(1)})` : "none");

/** A table; the first cell of each row names it. A cell is text, or [format, value, ...] for a value and how it is shown. */
function table(header, rows) {
  const shown = (cell) => (Array.isArray(cell) ? cell[0](...cell.slice(1)) : cell);
  const head = header.map((name) => html("th", { scope: "col" }, name));
  const body = rows.map(([first, ...cells]) =>
    html("tr", {}, html("th", { scope: "row" }, shown(first)), ...cells.map((cell) => html("td", {}, shown(cell)))),
  );
  return html("table", {}, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body));
}

/** The same table as CSV, with the values themselves. A text that a spreadsheet would compute gets a `'` before it. */
function csv(header, rows) {
  const field = (cell) => {
    const value = Array.isArray(cell) ? cell[1] : cell;
    if (value === null || typeof value === "number") return String(value ?? "");
    return `"${String(value).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  };
  return [header, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "paint-order"];
const WRITTEN = [...DRAWN, "font-family", "font-size", "font-weight", "text-anchor"];

/** Any colour as `rgb(...)`, which every program reads; other words, such as `none`, as they are. */
function asRgb(value) {
  if (!/^(oklab|color|lab|lch|oklch)\(/.test(value)) return value;
  const context = html("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = value;
  context.fillRect(0, 0, 1, 1);
  return `rgb(${[...context.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ")})`;
}

/** The pictures and names in a host as one SVG file, without style sheet: all colours and fonts are written out. */
function standalone(host, title, background) {
  const box = host.getBoundingClientRect(), around = 12;
  const place = (node) => {
    const at = node.getBoundingClientRect();
    return { x: at.x - box.x + around, y: at.y - box.y + around, width: at.width, height: at.height };
  };
  const [width, height] = [box.width + 2 * around, box.height + 2 * around];
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, svg("title", {}, title), svg("rect", { width, height, fill: background }));
  for (const picture of host.querySelectorAll("svg")) {
    const copy = picture.cloneNode(true), copies = [copy, ...copy.querySelectorAll("*")];
    [picture, ...picture.querySelectorAll("*")].forEach((node, index) => {
      const style = getComputedStyle(node), to = copies[index];
      for (const name of ["class", "style", "role", "aria-label", "aria-hidden"]) to.removeAttribute(name);
      if (["svg", "title", "g"].includes(node.tagName)) return;
      for (const name of node.tagName === "text" ? WRITTEN : DRAWN) to.setAttribute(name, asRgb(style.getPropertyValue(name)));
    });
    for (const [name, value] of Object.entries({ ...place(picture), overflow: "visible" })) copy.setAttribute(name, value);
    root.append(copy);
  }
  for (const name of host.querySelectorAll("li, h3")) { // of legends, after their picture, and of parts
    const style = getComputedStyle(name), at = place(name), picture = name.querySelector("svg");
    const x = picture ? place(picture).x + place(picture).width + 6 : at.x;
    const font = { "font-family": style.fontFamily, "font-size": style.fontSize, "font-weight": style.fontWeight };
    root.append(svg("text", { x, y: at.y + at.height * 0.72, ...font, fill: style.color }, name.textContent));
  }
  for (const node of root.querySelectorAll("[style]")) { // of what is made here
    node.setAttribute("fill", node.style.fill);
    node.removeAttribute("style");
  }
  return new XMLSerializer().serializeToString(root);
}

/** Hand a text to the browser as a file to keep; nothing leaves the page. */
function save(name, type, text) {
  const link = html("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Places side by side for drawings, all of them there before the first is drawn, so that each has its final width. */
function places(host, count, kind = "pair-of-plots") {
  const grid = html("div", { class: kind }, ...Array.from({ length: count }, () => html("div", {})));
  host.append(grid);
  return [...grid.children];
}

/** A row of names, each with a small picture of its mark. */
function legend(entries) {
  const items = entries.map(({ name, mark }) => {
    const picture = svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, ...mark(26, 14));
    return html("li", {}, picture, name);
  });
  return html("ul", { class: "legend" }, ...items);
}

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

/** A table; the first cell of each row names it. */
function table(header, rows) {
  const head = header.map((name) => html("th", { scope: "col" }, name));
  const body = rows.map(([first, ...cells]) =>
    html("tr", {}, html("th", { scope: "row" }, first), ...cells.map((cell) => html("td", {}, cell))),
  );
  return html("table", {}, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body));
}

/** A row of names, each with a small picture of its mark. */
function legend(entries) {
  const items = entries.map(({ name, mark }) => {
    const picture = svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, ...mark(26, 14));
    return html("li", {}, picture, name);
  });
  return html("ul", { class: "legend" }, ...items);
}

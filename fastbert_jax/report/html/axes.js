// Scales, axes and marks.

const MARGIN = { top: 14, right: 16, bottom: 42, left: 48 };

/** Round numbers from low to high, about `count` of them. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = size * ([1, 2, 2.5, 5, 10].find((factor) => size * factor >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at++) found.push(at * step);
  return found;
}

/** The lowest and highest of some numbers with a margin around them, also where all are equal. */
function range(values, room = 0.05) {
  const low = Math.min(...values), high = Math.max(...values);
  const extra = (high - low) * room || 0.01;
  return [low - extra, high + extra];
}

/** An SVG as wide as its host, with axes; x and y of the result are its scales. */
function frame(host, { height, x, y, xTicks, yTicks, xLabel, yLabel, xSay = plain, ySay = plain, yCount = 5, margin: asked = MARGIN }) {
  const margin = yLabel ? { ...asked, top: Math.max(asked.top, 26) } : asked; // no tick stands in the label
  const width = Math.max(host.clientWidth, 120);
  const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);
  const made = {
    x: scale(x, margin.left, width - margin.right),
    y: scale(y, height - margin.bottom, margin.top),
    left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom,
    root: svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" }),
  };
  for (const at of yTicks ?? ticks(...y, yCount)) {
    made.root.append(
      svg("line", { class: "grid", x1: made.left, x2: made.right, y1: made.y(at), y2: made.y(at) }),
      words(ySay(at), made.left - 8, made.y(at) + 4, "end"),
    );
  }
  for (const at of xTicks ?? ticks(...x, Math.min(8, width / 70))) {
    made.root.append(
      svg("line", { class: "axis", x1: made.x(at), x2: made.x(at), y1: made.bottom, y2: made.bottom + 4 }),
      words(xSay(at), made.x(at), made.bottom + 17, "middle"),
    );
  }
  made.root.append(svg("line", { class: "axis", x1: made.left, x2: made.right, y1: made.bottom, y2: made.bottom }));
  if (xLabel) made.root.append(words(xLabel, (made.left + made.right) / 2, height - 6, "middle"));
  if (yLabel) made.root.append(words(yLabel, 0, 11, "start"));
  return made;
}

/** Text at a position; `anchor` is start, middle or end. */
function words(text, x, y, anchor = "start", kind = "") {
  return svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
}

/** A line through [x, y] pairs, in the SVG's coordinates. */
function line(points, colour, attributes = {}) {
  const path = points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d: path, fill: "none", "stroke-width": 2, "stroke-linejoin": "round", ...attributes, colour });
}

/** Marks of different form, for readers who do not see their colours. */
const FORMS = {
  circle: (x, y, r) => svg("circle", { cx: x, cy: y, r }),
  square: (x, y, r) => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 }),
  triangle: (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.2}L${x + r * 1.15} ${y + r * 0.9}H${x - r * 1.15}Z` }),
  diamond: (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.3}L${x + r * 1.3} ${y}L${x} ${y + r * 1.3}L${x - r * 1.3} ${y}Z` }),
};

function mark(form, x, y, r, colour, said) {
  const node = FORMS[form](x, y, r);
  node.style.fill = colour;
  if (said) node.append(svg("title", {}, said));
  return node;
}

/** The colour of an exit, shallow to deep. */
function depthColour(layer, layers) {
  const share = layers > 1 ? (layer - 1) / (layers - 1) : 1;
  return `color-mix(in oklab, var(--mark-shallow), var(--mark-deep) ${Math.round(100 * share)}%)`;
}

/** One cell of a heat map; step 1 to 5 is its colour, 0 none. */
function heatCell({ x, y, width, height, step, text, said }) {
  const label = words(text, x + width / 2, y + height / 2 + 4, "middle");
  label.style.fill = step ? `var(--heat-text-${step})` : "var(--text-soft)";
  const cell = svg("rect", { x: x + 1, y: y + 1, width: width - 2, height: height - 2, rx: 3, fill: step ? `var(--heat-${step})` : "none" });
  return svg("g", {}, svg("title", {}, said), cell, label);
}

/** A bar for each row: { name, note, value, low, high, before, said }, with its interval and a tick at `before`. */
function scoreRows(host, rows, { most = 1, xLabel, xSay = short }) {
  const high = rows.length > 12 ? 30 : 42, thick = high > 36 ? 12 : 6;
  const plot = frame(host, { height: rows.length * high + 54, margin: { ...MARGIN, top: 4, left: 8 }, x: [0, most], y: [rows.length, 0], yTicks: [], xLabel, xSay });
  rows.forEach((row, index) => {
    const top = plot.top + index * high, y = top + 21;
    const room = Math.max(2, Math.floor((plot.right - plot.left) / 7) - row.note.length);
    plot.root.append(
      words(row.name.length > room ? `${row.name.slice(0, room - 1)}…` : row.name, plot.left + 2, top + 14, "start", "strong"),
      words(row.note, plot.right, top + 14, "end"),
      svg("rect", { x: plot.left, y, width: plot.x(row.value ?? 0) - plot.left, height: thick, rx: 3, fill: "var(--mark-bar)" }, svg("title", {}, row.said)),
    );
    if (row.low !== undefined) plot.root.append(svg("line", { x1: plot.x(row.low), x2: plot.x(row.high), y1: y + thick / 2, y2: y + thick / 2, "stroke-width": 2, colour: "var(--text-strong)" }));
    if (row.before !== undefined) plot.root.append(svg("line", { x1: plot.x(row.before), x2: plot.x(row.before), y1: y - 2, y2: y + thick + 2, "stroke-width": 2.5, colour: CHOSEN }));
  });
  host.append(plot.root);
}

// One object per plot: `draw(host, at)` fills the host, `said(at)` describes the plot in a sentence, `table(at)` is its
// numbers as [header, rows], see `table` in elements.js. `at` is the choice: { values, speed: one of values.speeds, place: its index, size: one of values.sizes }.

const MODES = {
  masked: { colour: "var(--mark-masked)", form: "square" },
  bucketed: { colour: "var(--mark-bucketed)", form: "triangle" },
  cascade: { colour: "var(--mark-cascade)", form: "circle" },
  "graph-cascade": { colour: "var(--mark-graph-cascade)", form: "diamond" },
  auto: { colour: "var(--mark-auto)", form: "circle" },
};
const CHOSEN = "var(--mark-chosen)";
const FULL = "var(--mark-full)";
const FEW = 0.01; // the share of the texts below which a bin's accuracy says little, and sets no scale

const layerNumbers = (values) => Array.from({ length: values.layers }, (_, index) => index + 1);

/** A cell with the accuracy of a bin and its texts. */
const counted = ({ accuracy, texts }) => [(value) => (texts ? `${percent(value)} (${texts})` : "-"), accuracy];

/** The fastest mode at this speed, of those that skip layers; null where none was timed. */
function fastest({ size, place }) {
  const skipping = size.modes.filter((one) => one.mode !== "masked");
  const all = skipping.length ? skipping : size.modes;
  return all.length ? all.reduce((best, one) => (one.speedups[place] > best.speedups[place] ? one : best)) : null;
}

/** The measured row of a mode with the nearest speed. */
function nearest(mode, speed) {
  return mode.measured.reduce((best, row) => (Math.abs(row.speed - speed) < Math.abs(best.speed - speed) ? row : best));
}

/** The indices of the speeds from full depth to the last that was timed. */
function timedRange(mode, speeds) {
  const last = Math.max(...mode.measured.map((row) => row.speed));
  return speeds.flatMap((one, index) => (one.speed <= last ? [index] : []));
}

const tradeoff = {
  draw(host, { values, size, place, speed }) {
    const { speeds, exits } = values;
    const lines = [
      ...size.modes.map((one) => timedRange(one, speeds).map((index) => [one.speedups[index], speeds[index].accuracy])),
      speeds.map((one) => [one.true_speedup, one.accuracy]),
      exits.map((one) => [one.true_speedup, one.accuracy]),
    ];
    const level = values.baseline === null ? [] : [values.baseline];
    const whiskers = size.modes.flatMap((one) => one.measured.map((row) => row.speedup.high));
    const plot = frame(host, {
      height: Math.min(420, Math.max(300, host.clientWidth * 0.42)),
      x: range([1, ...lines.flat().map(([x]) => x), ...whiskers], 0.03),
      y: range([...lines.flat().map(([, y]) => y), ...level], 0.06),
      xLabel: "speedup over full depth", yLabel: "accuracy", xSay: (x) => `${plain(x)}x`, ySay: short, yCount: 7,
    });
    const { root, x, y } = plot;
    const spot = ([at, accuracy]) => [x(at), y(accuracy)];
    const across = (accuracy, name, under) => root.append(
      svg("line", { x1: plot.left, x2: plot.right, y1: y(accuracy), y2: y(accuracy), "stroke-dasharray": "2 4", colour: FULL }),
      words(name, plot.right, y(accuracy) + (under && y(accuracy) < plot.bottom - 20 ? 15 : -6), "end"),
    );
    across(speeds[0].accuracy, "full depth", false);
    if (values.baseline !== null) across(values.baseline, "TF-IDF + linear SVM", values.baseline < speeds[0].accuracy);
    root.append(line(lines.at(-1).map(spot), FULL, { "stroke-width": 1, "stroke-dasharray": "1 3" }));
    for (const exit of exits.slice(0, -1)) {
      const said = `always exit ${exit.layer}: accuracy ${percent(exit.accuracy, 2)}, ${times(exit.true_speedup)} in FLOPs`;
      root.append(mark("square", x(exit.true_speedup), y(exit.accuracy), 4, FULL, said));
      root.append(words(exit.layer, x(exit.true_speedup) + 8, y(exit.accuracy) + 4, "start", "halo"));
    }
    root.append(line(lines.at(-2).map(spot), FULL, { "stroke-width": 1.5, "stroke-dasharray": "6 4" }));
    size.modes.forEach((one, index) => {
      const { colour, form } = MODES[one.mode];
      root.append(line(lines[index].map(spot), colour));
      for (const row of one.measured) {
        const [low, high] = [row.speedup.low, row.speedup.high].map(x);
        const said = `${one.mode} at speed ${plain(row.speed)}: accuracy ${percent(row.accuracy, 2)}, ` +
          `${times(row.speedup.median)} (${times(row.speedup.low)} to ${times(row.speedup.high)})`;
        root.append(svg("line", { x1: low, x2: high, y1: y(row.accuracy), y2: y(row.accuracy), colour }));
        root.append(mark(form, x(row.speedup.median), y(row.accuracy), 4.5, colour, said));
      }
    });
    const chosen = [...size.modes.map((one) => one.speedups[place]), ...(size.modes.length ? [] : [speed.true_speedup])];
    for (const at of chosen) {
      root.append(svg("circle", { cx: x(at), cy: y(speed.accuracy), r: 9, "stroke-width": 3, fill: "none", colour: CHOSEN }));
    }
    const right = x(Math.max(...chosen)) > plot.right - 90;
    const label = x(Math.max(...chosen)) + (right ? -14 : 14);
    const above = y(speed.accuracy) - 12 < plot.top + 10 ? 24 : -12;
    root.append(words(`speed ${plain(speed.speed)}`, label, y(speed.accuracy) + above, right ? "end" : "start", "chosen halo"));
    const dash = (dashes, width) => (w, h) => [line([[1, h / 2], [w - 1, h / 2]], FULL, { "stroke-dasharray": dashes, "stroke-width": width })];
    host.append(
      legend([
        ...size.modes.map(({ mode }) => ({
          name: mode,
          mark: (w, h) => [line([[1, h / 2], [w - 1, h / 2]], MODES[mode].colour), mark(MODES[mode].form, w / 2, h / 2, 4.5, MODES[mode].colour)],
        })),
        { name: "early exit, FLOPs only", mark: dash("6 4", 1.5) },
        ...(exits.length ? [{ name: "always the same exit, FLOPs only", mark: (w, h) => [...dash("1 3", 1)(w, h), mark("square", w / 2, h / 2, 4, FULL)] }] : []),
        { name: "chosen speed", mark: (w, h) => [svg("circle", { cx: w / 2, cy: h / 2, r: 5, "stroke-width": 3, fill: "none", colour: CHOSEN })] },
      ]),
      root,
    );
  },
  said({ values, size, place, speed }) {
    const modes = size.modes.map((one) => `${one.mode} ${times(one.speedups[place])}`).join(", ");
    return `At speed ${plain(speed.speed)}: accuracy ${percent(speed.accuracy, 2)} (full depth ` +
      `${percent(values.speeds[0].accuracy, 2)}), ${times(speed.true_speedup)} in FLOPs; ` +
      (modes ? `in wall-clock time ${modes}.` : "no speed was timed.") + ` One text is ${percent(1 / values.texts, 2)} of accuracy.`;
  },
  table({ values, size }) {
    const rows = values.speeds.map((one, index) => [
      `speed ${plain(one.speed)}`, [percent, one.accuracy, 2], [percent, one.low], [percent, one.high], [number, one.mean_depth], [times, one.true_speedup],
      ...size.modes.map((mode) => [mode.measured.some((row) => row.speed === one.speed) || index === 0 ? times : (ratio) => `about ${times(ratio)}`, mode.speedups[index]]),
    ]);
    const fixed = values.exits.map((one) => [
      `always exit ${one.layer}`, [percent, one.accuracy, 2], [percent, one.low], [percent, one.high], one.layer, [times, one.true_speedup], ...size.modes.map(() => null),
    ]);
    return [["", "accuracy", "accuracy from", "accuracy to", "layers run", "FLOPs", ...size.modes.map(({ mode }) => mode)], [...rows, ...fixed]];
  },
};

const depths = {
  draw(host, { values, speed }) {
    const layers = layerNumbers(values);
    const plot = frame(host, {
      height: 284, margin: { ...MARGIN, top: 50 }, x: [0.4, values.layers + 0.6], y: [0, 1], yTicks: [0, 0.25, 0.5, 0.75, 1],
      xTicks: layers.filter((layer) => values.layers <= 16 || layer % 4 === 0),
      xLabel: "layer after which texts exit", yLabel: "share of the texts", ySay: short,
    });
    // Above the labels of the bars, which would hide a line through them.
    const mean = plot.x(speed.mean_depth), right = mean > (plot.left + plot.right) / 2;
    plot.root.append(
      svg("path", { d: `M${mean} 28L${mean - 5} 19H${mean + 5}Z`, fill: CHOSEN }),
      words(`mean ${number(speed.mean_depth)}`, mean + (right ? -9 : 9), 28, right ? "end" : "start", "chosen"),
    );
    const wide = (plot.x(2) - plot.x(1)) * 0.72;
    layers.forEach((layer, index) => {
      const share = speed.texts_per_exit[index] / values.texts;
      const said = `layer ${layer}: ${speed.texts_per_exit[index]} texts, ${percent(share)}`;
      plot.root.append(svg("rect", {
        x: plot.x(layer) - wide / 2, width: wide, y: plot.y(share), height: plot.bottom - plot.y(share), rx: 3, fill: "var(--mark-bar)",
      }, svg("title", {}, said)));
      if (share && wide > 22) plot.root.append(words(percent(share, share < 0.1 ? 1 : 0).replace(" ", ""), plot.x(layer), plot.y(share) - 5, "middle", "strong halo"));
    });
    host.append(plot.root);
  },
  said({ values, speed }) {
    const first = speed.texts_per_exit.findIndex((texts) => texts > 0);
    return `${percent(speed.texts_per_exit[first] / values.texts)} of the texts exit after layer ${first + 1}, the first exit that is used; ` +
      `${percent(speed.texts_per_exit.at(-1) / values.texts)} run all ${values.layers} layers.`;
  },
  table({ values, speed }) {
    const rows = values.exits.map(({ layer }) => [layer, speed.texts_per_exit[layer - 1], [percent, speed.texts_per_exit[layer - 1] / values.texts]]);
    return [["layer", "texts", "share"], rows];
  },
};

const curves = {
  panels({ values, size }) {
    const speedups = [{ name: "FLOPs", colour: FULL, at: (one) => one.true_speedup, "stroke-dasharray": "6 4" }];
    speedups.push(...size.modes.map(({ mode, speedups: found }) => ({
      name: mode, colour: MODES[mode].colour, at: (_, index) => found[index], until: Math.max(...timedRange(size.modes.find((its) => its.mode === mode), values.speeds)),
    })));
    return [
      { label: "accuracy", say: short, band: values.speeds.map((one) => [one.speed, one.low, one.high]), lines: [{ name: "accuracy", colour: "var(--mark-bar)", at: (one) => one.accuracy }] },
      { label: "speedup over full depth", say: (y) => `${plain(y)}x`, lines: speedups },
    ];
  },
  draw(host, at) {
    const { values, speed } = at, panels = curves.panels(at), cells = places(host, panels.length);
    for (const [place, { label, say, lines, band = [] }] of panels.entries()) {
      const cell = cells[place];
      const drawn = lines.map(({ at: value, until = Infinity, ...look }) => ({
        look, spots: values.speeds.flatMap((one, index) => (index <= until ? [[one.speed, value(one, index)]] : [])),
      }));
      const plot = frame(cell, { height: 240, x: [0, 1], y: range([...drawn.flatMap(({ spots }) => spots.map(([, y]) => y)), ...band.flatMap(([, low, high]) => [low, high])]), xLabel: "speed", yLabel: label, ySay: say });
      const edge = [...band.map(([x, low]) => [plot.x(x), plot.y(low)]), ...band.map(([x, , high]) => [plot.x(x), plot.y(high)]).reverse()];
      plot.root.append(svg("polygon", { points: edge.map((spot) => spot.map((one) => one.toFixed(1)).join(",")).join(" "), "fill-opacity": 0.16, fill: "var(--mark-bar)" }));
      for (const { look: { name, ...look }, spots } of drawn) plot.root.append(line(spots.map(([x, y]) => [plot.x(x), plot.y(y)]), look.colour, look));
      plot.root.append(svg("line", { x1: plot.x(speed.speed), x2: plot.x(speed.speed), y1: plot.top, y2: plot.bottom, "stroke-width": 2, "stroke-dasharray": "4 3", colour: CHOSEN }));
      cell.append(plot.root);
      if (lines.length > 1) cell.append(legend(lines.map(({ name, colour }) => ({ name, mark: (w, h) => [line([[1, h / 2], [w - 1, h / 2]], colour)] }))));
    }
  },
  said({ values, speed }) {
    const last = values.speeds.at(-1);
    return `At speed ${plain(speed.speed)} accuracy is ${percent(speed.accuracy, 2)} and the speedup in FLOPs ${times(speed.true_speedup)}; ` +
      `at speed ${plain(last.speed)} ${percent(last.accuracy, 2)} and ${times(last.true_speedup)}.`;
  },
  table({ values }) {
    const rows = values.speeds.map((one) => [[plain, one.speed], [percent, one.accuracy, 2], [percent, one.low], [percent, one.high], [times, one.true_speedup], [times, one.paper_speedup]]);
    return [["speed", "accuracy", "accuracy from", "accuracy to", "speedup in FLOPs", "as the paper counts"], rows];
  },
};

const reached = {
  draw(host, { values, speed }) {
    const layers = layerNumbers(values);
    const plot = frame(host, {
      height: 272, x: [0.4, values.layers + 0.6], y: [0, 1], yTicks: [0, 0.25, 0.5, 0.75, 1],
      xTicks: layers.filter((layer) => values.layers <= 16 || layer % 4 === 0), xLabel: "layer", yLabel: "mean uncertainty",
    });
    for (const [one, colour, name] of [[values.speeds[0], FULL, "all texts"], [speed, CHOSEN, `texts that reach the exit at speed ${plain(speed.speed)}`]]) {
      const spots = one.uncertainty.flatMap((value, index) => (value === null ? [] : [[plot.x(index + 1), plot.y(value)]]));
      plot.root.append(line(spots, colour), ...spots.map(([x, y], index) => mark("circle", x, y, 4, colour, `${name}: ${number(one.uncertainty.filter((value) => value !== null)[index])}`)));
    }
    host.append(
      legend([["all texts", FULL], ["texts that reach the exit at this speed", CHOSEN]].map(([name, colour]) => ({ name, mark: (w, h) => [line([[1, h / 2], [w - 1, h / 2]], colour)] }))),
      plot.root,
    );
  },
  said({ speed }) {
    const parts = speed.uncertainty.flatMap((value, index) => (value === null ? [] : [`exit ${index + 1} ${number(value)}`]));
    return `Mean uncertainty of the texts that reach each exit at speed ${plain(speed.speed)}: ${parts.join(", ")}.`;
  },
  table({ values, speed }) {
    const rows = values.exits.map(({ layer }) => [layer, [number, values.speeds[0].uncertainty[layer - 1]], [number, speed.uncertainty[layer - 1]]]);
    return [["layer", "all texts", "texts that reach it"], rows];
  },
};

const clock = {
  rows({ size, speed }) {
    const full = { name: "full depth", colour: FULL, seconds: size.full, note: "" };
    return [full, ...size.modes.map((one) => {
      const row = nearest(one, speed.speed);
      const spread = `${number(row.speedup.low)} to ${number(row.speedup.high)}`;
      return { name: one.mode, colour: MODES[one.mode].colour, seconds: row.seconds, note: `${times(row.speedup.median)} (${spread})${row.noise && `, ${row.noise}`}`, speed: row.speed };
    })];
  },
  draw(host, at) {
    const rows = clock.rows(at), high = 44;
    const plot = frame(host, {
      height: rows.length * high + 60, margin: { ...MARGIN, top: 8, left: 8 },
      x: [0, Math.max(...rows.map((row) => row.seconds.high)) * 1.04], y: [rows.length, 0], yTicks: [],
      xLabel: `seconds for ${at.size.texts} texts in batches of ${at.size.batches}`,
    });
    rows.forEach((row, index) => {
      const top = plot.top + index * high, y = top + 28, { low, median, high: most } = row.seconds;
      const all = [seconds(median), row.note].filter(Boolean).join(", "), fits = 6.6 * (row.name.length + all.length) < plot.right - plot.left;
      plot.root.append(
        words(row.name, plot.left + 2, top + 14, "start", "strong"),
        words(fits ? all : row.note, plot.right, top + 14, "end"),
        svg("rect", { x: plot.left, y: y - 8, width: plot.x(median) - plot.left, height: 16, rx: 3, fill: row.colour },
          svg("title", {}, `${row.name}: ${seconds(median)}, ${seconds(low)} to ${seconds(most)}`)),
        ...[low, most].map((end) => svg("line", { x1: plot.x(end), x2: plot.x(end), y1: y - 6, y2: y + 6, "stroke-width": 2, colour: "var(--text-strong)" })),
        svg("line", { x1: plot.x(low), x2: plot.x(most), y1: y, y2: y, "stroke-width": 2, colour: "var(--text-strong)" }),
      );
    });
    host.append(plot.root);
  },
  said(at) {
    const [, ...modes] = clock.rows(at);
    if (!modes.length) return "Only full depth was timed.";
    const { speed } = modes[0], here = speed === at.speed.speed;
    return `Timed at speed ${plain(speed)}${here ? "" : `, the timed speed nearest to ${plain(at.speed.speed)}`}. ` +
      `Speedups over full depth: ${modes.map((row) => `${row.name} ${row.note}`).join(", ")}.`;
  },
  table(at) {
    const rows = clock.rows(at).map(({ name, seconds: s, note }) => [name, [seconds, s.median], [seconds, s.low], [seconds, s.high], note]);
    return [["", "median", "fastest", "slowest", "speedup (range)"], rows];
  },
};

const luha = {
  draw(host, { values, speed }) {
    const { exits } = values, high = exits.length > 12 ? 18 : 28;
    const plot = frame(host, {
      height: exits.length * high + 62, margin: { ...MARGIN, top: 20, left: 34, right: 10 }, x: [0, 1], y: [exits.length, 0], yTicks: [],
      xTicks: [0, 0.2, 0.4, 0.6, 0.8, 1], xLabel: "uncertainty",
    });
    const counted = exits.flatMap((one) => one.bins).filter((one) => one.texts >= Math.max(1, FEW * values.texts));
    const lowest = Math.min(...counted.map((one) => one.accuracy), 0.95);
    exits.forEach((exit, row) => {
      const top = plot.top + row * high;
      plot.root.append(words(exit.layer, plot.left - 8, top + high / 2 + 4, "end", "strong"));
      for (const one of exit.bins.filter((bin) => bin.texts)) {
        const step = Math.min(5, Math.max(1, Math.ceil((5 * (one.accuracy - lowest)) / (1 - lowest))));
        const [left, right] = [plot.x(one.low), plot.x(one.high)];
        const few = one.texts < FEW * values.texts;
        const said = `exit ${exit.layer}, uncertainty ${plain(one.low)} to ${plain(one.high)}: ${percent(one.accuracy)} of ${one.texts} texts`;
        plot.root.append(heatCell({ x: left, y: top, width: right - left, height: high, step: few ? 0 : step, text: Math.round(100 * one.accuracy), said }));
      }
    });
    const at = plot.x(speed.speed), end = speed.speed > 0.5;
    plot.root.append(
      svg("line", { x1: at, x2: at, y1: 4, y2: plot.bottom, "stroke-width": 2.5, colour: CHOSEN }),
      words(end ? `exit below ${plain(speed.speed)}` : `speed ${plain(speed.speed)}`, at + (end ? -6 : 6), 14, end ? "end" : "start", "chosen"),
      words("exit", 0, 14),
    );
    host.append(plot.root);
  },
  said({ values, speed }) {
    const parts = values.exits.slice(0, 3).map((exit) => {
      const sure = exit.bins.filter((one) => one.high <= speed.speed + 1e-9);
      const texts = sure.reduce((sum, one) => sum + one.texts, 0), right = sure.reduce((sum, one) => sum + one.right, 0);
      return texts ? `exit ${exit.layer} ${percent(right / texts)} of ${texts}` : `exit ${exit.layer} has no text`;
    });
    return `Correct among the texts left of the line: ${parts.join(", ")}. Cells without colour hold fewer than 1 % of the texts.`;
  },
  table({ values }) {
    const bins = values.exits[0].bins.map((one, index) => [
      `${plain(one.low)} to ${plain(one.high)}`,
      ...values.exits.map(({ bins: its }) => counted(its[index])),
    ]);
    return [["uncertainty", ...values.exits.map((one) => `exit ${one.layer}`)], bins];
  },
};

const reliability = {
  panels({ values, speed }) {
    const exits = values.exits.map((one) => ({ name: `exit ${one.layer}`, ...one.reliability, colour: depthColour(one.layer, values.layers) }));
    return [{ name: `at speed ${plain(speed.speed)}`, ...speed.reliability, colour: CHOSEN }, ...exits];
  },
  draw(host, at) {
    const panels = reliability.panels(at), { texts } = at.values;
    const seen = panels.flatMap((one) => one.bins).filter((one) => one.texts >= FEW * texts && one.mean !== null);
    const least = Math.min(...seen.map((one) => Math.min(one.mean, one.accuracy)), 0.9);
    const low = Math.floor(10 * least) / 10;
    const cells = places(host, panels.length, "panels");
    for (const [place, panel] of panels.entries()) {
      const cell = cells[place];
      const plot = frame(cell, {
        height: cell.clientWidth * 0.92 + 20, margin: { top: 44, right: 8, bottom: 22, left: 42 }, x: [low, 1], y: [low, 1],
        xTicks: [low, 1], yTicks: [low, (low + 1) / 2, 1], xSay: short, ySay: short,
      });
      const first = panel === panels[0] ? "chosen" : "strong";
      plot.root.append(
        words(panel.name, 0, 14, "start", first),
        words(`error ${percent(panel.error)}`, 0, 30),
        line([[plot.x(low), plot.y(low)], [plot.x(1), plot.y(1)]], FULL, { "stroke-width": 1, "stroke-dasharray": "4 3" }),
      );
      const bins = panel.bins.filter((one) => one.texts >= FEW * texts && one.mean !== null);
      const places = bins.map((one) => [plot.x(Math.max(low, one.mean)), plot.y(Math.max(low, one.accuracy))]);
      plot.root.append(line(places, panel.colour));
      bins.forEach((one, index) => {
        const said = `${panel.name}: probability ${percent(one.mean)}, correct ${percent(one.accuracy)} of ${one.texts} texts`;
        plot.root.append(mark("circle", ...places[index], 2 + 5 * Math.sqrt(one.texts / texts), panel.colour, said));
      });
      cell.append(plot.root);
    }
  },
  said(at) {
    const [here, ...exits] = reliability.panels(at);
    return `Expected calibration error: at this speed ${percent(here.error)}; ` +
      `${exits.map((one) => `${one.name} ${percent(one.error)}`).join(", ")}. Large dots are many texts; bins with fewer than 1 % of the texts are not shown.`;
  },
  table(at) {
    const panels = reliability.panels(at);
    const rows = panels[0].bins.map((_, index) => [
      `${plain(index / 10)} to ${plain((index + 1) / 10)}`,
      ...panels.map(({ bins }) => counted(bins[index])),
    ]);
    return [["probability", ...panels.map((one) => one.name)], rows];
  },
};

const classes = {
  draw(host, { values, speed }) {
    scoreRows(host, values.classes.map(({ label, texts }, index) => {
      const [precision, recall, f1] = speed.scores[index], before = values.speeds[0].scores[index][2];
      return {
        name: label, note: `${f1 ? percent(f1[0]) : "none"}, ${texts} texts`, value: f1?.[0], low: f1?.[1], high: f1?.[2], before: before?.[0],
        said: `${label}: precision ${interval(precision)}, recall ${interval(recall)}, F1 ${interval(f1)}`,
      };
    }), { xLabel: "F1" });
  },
  said({ values, speed }) {
    const rows = values.classes.map(({ label }, index) => ({ label, f1: speed.scores[index][2], depth: speed.class_depth[index] })).filter((one) => one.f1);
    const worst = rows.reduce((least, one) => (one.f1[0] < least.f1[0] ? one : least), rows[0]);
    const most = rows.filter((one) => one.depth !== null).reduce((deepest, one) => (one.depth > deepest.depth ? one : deepest), rows[0]);
    const left = values.num_classes - values.classes.length;
    return `Lowest F1: ${worst.label}, ${interval(worst.f1)}. Most layers run: ${most.label}, ${number(most.depth)} of ${values.layers}.` +
      (left ? ` The ${left} smallest classes are not shown.` : "");
  },
  table({ values, speed }) {
    const names = ["precision", "recall", "F1"].flatMap((name) => [name, `${name} from`, `${name} to`]);
    const rows = values.classes.map(({ label, texts }, index) => [
      label, texts, ...speed.scores[index].flatMap((one) => (one ?? [null, null, null]).map((value) => [percent, value])), [number, speed.class_depth[index]],
    ]);
    return [["class", "texts", ...names, "layers run"], rows];
  },
};

const confusion = {
  names: (values, { classes }) => classes.map((one) => values.labels[one]),
  draw(host, { values, speed }) {
    const { classes: shown, cells, largest } = speed.confusion, names = confusion.names(values, speed.confusion);
    const all = shown.length === values.num_classes, columns = all ? shown.length : shown.length + 1;
    const [matrix, list] = places(host, all || !largest.length ? 1 : 2);
    const width = Math.max(matrix.clientWidth, 120), left = Math.min(190, Math.max(84, width * 0.26));
    const wide = Math.min(84, (width - left - 2) / columns), high = Math.min(38, Math.max(24, wide));
    const root = svg("svg", { width, height: 40 + high * shown.length, viewBox: `0 0 ${width} ${40 + high * shown.length}`, role: "img" });
    const cut = (text, room) => (text.length > room ? `${text.slice(0, Math.max(1, room - 1))}…` : text);
    const worst = Math.max(...cells.flatMap((row, r) => row.filter((_, c) => c !== r)));
    root.append(words("given:", left - 8, 14, "end"));
    for (let c = 0; c < columns; c++) {
      const name = c < shown.length ? names[c] : "others";
      root.append(words(wide > 60 ? cut(name, Math.floor(wide / 8)) : c < shown.length ? c + 1 : "…", left + wide * (c + 0.5), 30, "middle", "strong"));
    }
    cells.forEach((row, r) => {
      const y = 36 + r * high, texts = row.reduce((sum, one) => sum + one, 0);
      const name = wide > 60 ? names[r] : `${r + 1} ${names[r]}`;
      root.append(words(cut(name, Math.floor(left / 7.2)), left - 8, y + high / 2 + 4, "end", "strong"));
      row.slice(0, columns).forEach((count, c) => {
        const step = c === r || !count ? 0 : Math.max(1, Math.ceil((5 * count) / worst));
        const said = `${names[r]} given ${names[c] ?? "other classes"}: ${count} of ${texts} texts`;
        root.append(heatCell({ x: left + wide * c, y, width: wide, height: high, step, text: count || "·", said }));
        if (c === r) root.append(svg("rect", { x: left + wide * c + 1, y: y + 1, width: wide - 2, height: high - 2, rx: 3, fill: "none", colour: "var(--line-axis)" }));
      });
    });
    matrix.append(root);
    if (list) scoreRows(list, largest.map(([expected, given, texts]) => ({
      name: `${values.labels[expected]} → ${values.labels[given]}`, note: `${texts} texts`, value: texts,
      said: `${values.labels[expected]} given ${values.labels[given]}: ${texts} texts`,
    })), { most: largest[0][2], xLabel: "texts: class → class given", xSay: plain });
  },
  said({ values, speed }) {
    const [first] = speed.confusion.largest;
    const part = speed.confusion.classes.length < values.num_classes ? " The matrix has the classes with the most wrong answers, the most first." : "";
    return (first ? `Most frequent: ${first[2]} texts of ${values.labels[first[0]]} are given ${values.labels[first[1]]}.` : "No text is given a wrong class.") + part;
  },
  table({ values, speed }) {
    const { classes: shown, cells, largest } = speed.confusion, names = confusion.names(values, speed.confusion);
    if (shown.length < values.num_classes) return [["class", "given", "texts"], largest.map(([one, other, texts]) => [values.labels[one], values.labels[other], texts])];
    return [["class", ...names.map((name) => `given ${name}`)], cells.map((row, r) => [names[r], ...row.slice(0, -1)])];
  },
};

const groups = {
  draw(host, { values, speed }) {
    for (const column of new Set(values.groups.map((one) => one.column))) {
      const cell = html("div", {});
      host.append(html("h3", {}, column), cell);
      const rows = values.groups.flatMap((one, index) => (one.column === column ? [{ ...one, share: speed.groups[index], before: values.speeds[0].groups[index] }] : []));
      scoreRows(cell, rows.map(({ value, texts, share, before }) => ({
        name: value, note: `${percent(share[0])}, ${texts} texts`, value: share[0], low: share[1], high: share[2], before: before[0], said: `${value}: ${interval(share)} of ${texts} texts`,
      })), { xLabel: "accuracy" });
    }
  },
  said({ values, speed }) {
    const all = values.groups.map((one, index) => ({ ...one, share: speed.groups[index] }));
    const apart = all.filter(({ share }) => share[2] < speed.accuracy || share[1] > speed.accuracy);
    const found = apart.map(({ column, value, share }) => `${column} ${value} ${interval(share)}`).join(", ");
    return apart.length ? `Beyond their noise from all texts (${percent(speed.accuracy)}): ${found}.` : `No value differs from all texts (${percent(speed.accuracy)}) by more than its noise.`;
  },
  table({ values, speed }) {
    const rows = values.groups.map(({ column, value, texts }, index) => [
      column, value, texts, ...[values.speeds[0], speed].flatMap((one) => one.groups[index].map((share) => [percent, share])),
    ]);
    const names = ["full depth", `speed ${plain(speed.speed)}`].flatMap((name) => [name, `${name} from`, `${name} to`]);
    return [["column", "value", "texts", ...names], rows];
  },
};

const training = {
  /** Lines of one exit each, and others, over the steps; the ends of phases are dashed. */
  panel(host, { values, points, value, others = [], label, ySay }) {
    const layers = values.exit_layers, spots = others.flatMap((one) => one.spots), known = (one) => one !== null;
    const steps = [...points, ...spots].map((one) => one.step), first = Math.min(...steps);
    const plot = frame(host, {
      height: 300, margin: { ...MARGIN, right: 62, top: 34 }, x: [first, Math.max(first + 1, ...steps)], yLabel: label, xLabel: "step", ySay,
      y: range([...points.flatMap((one) => layers.map((layer) => one[value][layer - 1])), ...spots.map((one) => one.loss)].filter(known)),
    });
    for (const { spots: its, colour } of others) {
      plot.root.append(line(its.filter((one) => known(one.loss)).map((one) => [plot.x(one.step), plot.y(one.loss)]), colour, { "stroke-width": 1.5 }));
    }
    let under = -Infinity;
    const ends = [];
    for (const layer of layers) {
      const its = points.filter((one) => known(one[value][layer - 1])).map((one) => [plot.x(one.step), plot.y(one[value][layer - 1])]);
      if (!its.length) continue;
      const colour = depthColour(layer, values.layers);
      plot.root.append(line(its, colour, { "stroke-width": layer === values.layers ? 3 : 2 }), mark("circle", ...its.at(-1), 3.5, colour));
      ends.push({ layer, y: its.at(-1)[1] });
    }
    ends.sort((a, b) => a.y - b.y);
    const named = [];
    for (const one of ends) { // the names of lines that end close together are moved apart, and above the axis
      if (one.y - under < 13 && values.layers > 16) continue;
      under = Math.max(one.y, under + 13);
      named.push({ ...one, at: under });
    }
    let over = plot.bottom;
    for (const one of named.reverse()) {
      one.at = Math.min(one.at, over);
      over = one.at - 13;
      const leader = [[plot.right + 3, one.y], [plot.right + 13, one.at]];
      plot.root.append(line(leader, depthColour(one.layer, values.layers), { "stroke-width": 1.5 }));
      plot.root.append(words(`exit ${one.layer}`, plot.right + 16, one.at + 4));
    }
    return plot;
  },
  draw(host, { values }) {
    const { training: points, losses } = values, phases = [...new Set([...points, ...losses].map((one) => one.phase))];
    const whole = html("div", {});
    host.append(whole);
    const plot = training.panel(whole, { values, points, value: "accuracy", label: "", ySay: short });
    let start = Math.min(0, ...points.map((one) => one.step));
    for (const phase of phases) {
      const its = points.filter((one) => one.phase === phase);
      if (!its.length) continue;
      const end = its.at(-1).step, from = Math.max(plot.left, plot.x(start));
      plot.root.append(words(phase.replaceAll("_", " "), (from + plot.x(end)) / 2, 26, "middle", "strong"));
      if (end !== points.at(-1).step) plot.root.append(svg("line", { x1: plot.x(end), x2: plot.x(end), y1: 14, y2: plot.bottom, "stroke-dasharray": "4 3", colour: "var(--line-axis)" }));
      start = end;
    }
    plot.root.append(words("accuracy on dev", 0, 11));
    whole.append(plot.root);
    const panels = phases.map((phase) => ({ phase, spots: losses.filter((one) => one.phase === phase), its: points.filter((one) => one.phase === phase) }))
      .filter(({ spots, its }) => spots.length || its.length > 1);
    const cells = places(host, panels.length);
    for (const [place, { phase, spots, its }] of panels.entries()) {
      const about = { values, points: its, value: "loss", others: [{ spots, colour: FULL }], label: `loss, ${phase.replaceAll("_", " ")}`, ySay: plain };
      cells[place].append(training.panel(cells[place], about).root);
    }
    host.append(legend([
      { name: "training texts: the phase's own loss", mark: (w, h) => [line([[1, h / 2], [w - 1, h / 2]], FULL, { "stroke-width": 1.5 })] },
      ...[values.exit_layers[0], ...values.exit_layers.slice(1).slice(-1)].map((layer) => ({
        name: `dev: exit ${layer}`, mark: (w, h) => [line([[1, h / 2], [w - 1, h / 2]], depthColour(layer, values.layers))],
      })),
    ]));
  },
  said({ values }) {
    const last = values.training.at(-1), exits = values.exit_layers;
    const losses = exits.map((layer) => `exit ${layer} ${number(last.loss[layer - 1], 3)}`).join(", ");
    return `Dev after step ${last.step}: accuracy ${exits.map((layer) => `exit ${layer} ${percent(last.accuracy[layer - 1])}`).join(", ")}; cross entropy ${losses}.`;
  },
  table({ values }) {
    const { exit_layers: exits, training: points, losses } = values;
    const dev = points.map((one) => [
      one.step, one.phase, null, ...exits.flatMap((layer) => [[percent, one.accuracy[layer - 1]], [(loss) => number(loss, 3), one.loss[layer - 1]]]),
    ]);
    const steps = losses.map((one) => [one.step, one.phase, [(loss) => number(loss, 4), one.loss], ...exits.flatMap(() => [null, null])]);
    const rows = [...dev, ...steps].sort((one, other) => one[0] - other[0]);
    return [["step", "phase", "training loss", ...exits.flatMap((layer) => [`exit ${layer} accuracy`, `exit ${layer} loss`])], rows];
  },
};

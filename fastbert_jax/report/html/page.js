// The chosen speed and batch size, and all that is drawn for them.

const values = JSON.parse(document.getElementById("values").textContent);
const PLOTS = { tradeoff, depths, clock, curves, reached, luha, confusion, classes, groups, reliability, training };
const FIXED = new Set(["training"]); // the same at every speed
const state = { place: values.start, size: 0 };
const byId = (id) => document.getElementById(id);
const chosen = () => ({ values, place: state.place, speed: values.speeds[state.place], size: values.sizes[state.size] });

function drawPlot(name) {
  const card = byId(name);
  if (!card) return;
  const at = chosen(), host = card.querySelector(".plot");
  host.replaceChildren();
  PLOTS[name].draw(host, at);
  const said = PLOTS[name].said(at);
  const heading = card.querySelector("h2").textContent;
  for (const picture of host.querySelectorAll("svg[role=img]")) picture.setAttribute("aria-label", `${heading}. ${said}`);
  card.querySelector(".said").textContent = said;
  if (card.querySelector("details").open) fillTable(name);
}

function fillTable(name) {
  byId(name).querySelector(".scroll").replaceChildren(table(...PLOTS[name].table(chosen())));
}

/** Keep a figure as a file: `svg` is its picture, `csv` its table. */
function keep(name, kind) {
  const card = byId(name), at = chosen();
  const file = `${name}${FIXED.has(name) ? "" : `_speed_${plain(at.speed.speed)}`}.${kind}`;
  if (kind === "csv") return save(file, "text/csv", csv(...PLOTS[name].table(at)));
  const title = `${card.querySelector("h2").textContent}. ${PLOTS[name].said(at)}`;
  return save(file, "image/svg+xml", standalone(card.querySelector(".plot"), title, getComputedStyle(card).backgroundColor));
}

function drawNumbers() {
  const at = chosen(), full = values.speeds[0], { speed } = at;
  const best = fastest(at);
  const texts = Math.round(values.texts * (speed.accuracy - full.accuracy));
  const timed = best?.measured.find((row) => row.speed === speed.speed);
  byId("number-accuracy").textContent = percent(speed.accuracy, 2);
  const noise = speed.beyond_noise ? "beyond" : "within";
  byId("note-accuracy").textContent = `${(100 * speed.low).toFixed(1)} to ${percent(speed.high)}` +
    (at.place === 0 ? "" : texts === 0 ? "; as many correct as at full depth" : `; against full depth ${texts > 0 ? "+" : ""}${String(texts).replace("-", "−")} of ${values.texts} texts, ${noise} the noise`);
  byId("number-depth").textContent = number(speed.mean_depth);
  byId("note-depth").textContent = `of ${values.layers}, on average`;
  byId("number-flops").textContent = times(speed.true_speedup);
  byId("number-clock").textContent = best ? times(best.speedups[at.place]) : "-";
  byId("note-clock").textContent = !best ? "no speed was timed"
    : at.place === 0 ? "full depth itself"
    : timed ? `${best.mode}, measured: ${number(timed.speedup.low)} to ${number(timed.speedup.high)}${timed.noise && `, ${timed.noise} of full depth`.replace("slower of", "slower than")}`
    : `${best.mode}, estimated; noise ${percent(at.size.noise, 0)}`;
  byId("speed-value").textContent = plain(speed.speed);
  byId("speed").setAttribute("aria-valuetext", `speed ${plain(speed.speed)}, accuracy ${percent(speed.accuracy, 2)}`);
  byId("use-speed").textContent = plain(speed.speed);
  for (const button of byId("jumps").children) button.setAttribute("aria-pressed", button.dataset.place === String(at.place));
}

function dots(depth) {
  const { layers } = values, gap = layers > 16 ? 6 : 11;
  const circles = layerNumbers(values).map((layer) =>
    svg("circle", { cx: gap * (layer - 0.5), cy: 6, r: gap * 0.36, "stroke-width": 1, colour: "var(--line-axis)", fill: layer <= depth ? "var(--mark-bar)" : "none" }),
  );
  return svg("svg", { width: gap * layers, height: 12, "aria-hidden": "true" }, ...circles);
}

function drawTexts() {
  const { place } = chosen();
  for (const kind of ["easy", "hard"]) {
    byId(kind).replaceChildren(...values[kind].map((one) => {
      const depth = one.depths[place], answer = one.labels[depth - 1], good = answer === one.label;
      const verdict = html("span", { class: good ? "right" : "wrong" }, good ? `✓ ${answer}` : `✗ ${answer}, expected ${one.label}`);
      const meta = html("div", { class: "meta" }, dots(depth), html("span", {}, `exits after layer ${depth}`), verdict, html("span", {}, `uncertainty ${number(one.uncertainty[depth - 1])}`));
      return html("li", {}, html("p", {}, one.text, one.pair ? html("span", { class: "pair" }, one.pair) : null), meta);
    }));
  }
}

function draw({ fixedToo }) {
  drawNumbers();
  for (const name of Object.keys(PLOTS)) if (fixedToo || !FIXED.has(name)) drawPlot(name);
  drawTexts();
}

function choose(place) {
  state.place = place;
  byId("speed").value = place;
  draw({ fixedToo: false });
}

function begin() {
  const slider = byId("speed");
  slider.max = values.speeds.length - 1;
  slider.addEventListener("input", () => choose(Number(slider.value)));
  const measured = new Set(values.sizes.flatMap((size) => size.modes.flatMap((mode) => mode.measured.map((row) => row.speed))));
  values.speeds.forEach((one, place) => {
    const isStart = place === values.start && values.recommended;
    if (place !== 0 && !measured.has(one.speed) && !isStart) return;
    const name = place === 0 ? "full depth" : plain(one.speed);
    const button = html("button", { type: "button", "data-place": place }, isStart ? `${name}, recommended` : name);
    button.addEventListener("click", () => choose(place));
    byId("jumps").append(button);
  });
  const sizes = byId("size");
  sizes.append(...values.sizes.map((size, index) => html("option", { value: index }, size.batches)));
  sizes.addEventListener("change", () => {
    state.size = Number(sizes.value);
    draw({ fixedToo: false });
  });
  byId("size-choice").hidden = values.sizes.length < 2;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const name of Object.keys(PLOTS)) {
    const card = byId(name);
    card?.querySelector("details").addEventListener("toggle", () => fillTable(name));
    for (const button of card?.querySelectorAll(".save button") ?? []) button.addEventListener("click", () => keep(name, button.dataset.kind));
  }
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's address bar comes and goes
    width = window.innerWidth;
    draw({ fixedToo: true });
  });
  choose(values.start);
  drawPlot("training");
}

begin();

"""The figures of the home page and of docs/fidelity, drawn by the report's own scripts in Chromium.

    python benchmarks/draw_figures.py

Reads `study.json` and `ablations.json` of each study in docs/fidelity and writes the SVG files beside them. Speedups
are in FLOPs as the paper counts them, and in wall-clock time where that was measured. Each file has its colours in
light and dark.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from playwright.sync_api import Browser, Page, sync_playwright

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow, Share
from fastbert_jax.report.tables import ASSETS, SCRIPTS

ROOT = Path(__file__).parent.parent
STUDIES = ROOT / "docs" / "fidelity"
HOME, HOME_SPEED = ROOT / "docs" / "point.svg", 0.25
"""The figure of the home page, and the speed that it marks: the one chosen on dev."""
HOME_RESULT = ROOT / "benchmarks" / "results" / "early_exit_movie_reviews.json"
SHOWN_SPEED = 0.5
FIGURES = {
    "tradeoff": ("accuracy_by_speedup", 760),
    "curves": ("accuracy_by_speed", 760),
    "luha": ("accuracy_by_uncertainty", 560),
    "depths": ("exits_by_speed", 560),
    "reached": ("uncertainty_by_layer", 560),
}
"""The report's figures by name: the name of the file and its width in pixels."""
SVG = "http://www.w3.org/2000/svg"
LOWEST = 0.06
"""A variant's curve is drawn down to so much below the highest accuracy."""
ABLATIONS = """
const ablations = {
  draw(host, { values: { variants } }) {
    const marked = ["cascade", "masked", "bucketed", "graph-cascade", "auto", "full"];
    const colours = marked.map((one) => `var(--mark-${one})`);
    const all = variants.flatMap((one) => one.curve);
    const plot = frame(host, {
      height: 360, x: range(all.map(([x]) => x), 0.03), y: range(all.map(([, y]) => y)), xSay: (x) => `${plain(x)}x`,
      xLabel: "speedup over full depth, FLOPs as the paper counts", yLabel: "accuracy", ySay: short,
    });
    const stroke = (points, index) => line(points, colours[index]);
    variants.forEach(({ curve }, index) => {
      plot.root.append(stroke(curve.map(([x, y]) => [plot.x(x), plot.y(y)]), index));
    });
    const marks = variants.map((_, index) => (w, h) => [stroke([[1, h / 2], [w - 1, h / 2]], index)]);
    host.append(legend(variants.map(({ name }, index) => ({ name, mark: marks[index] }))), plot.root);
  },
};
"""


def page_values(study: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the report's scripts read of a study."""
    mode, curve = study["mode"], study["curve"]
    points = {one["speed"]: one for one in (*curve, *study["table"])} | {0.0: study["full_depth"]}
    ordered = [points[speed] for speed in sorted(points)]
    points_of = {"paper_flops": 0, "true_flops": 0, "paper_speedup": 0.0, "true_speedup": 0.0}
    rows = [
        ComparisonRow(
            **points_of | {key: one[key] for key in ("speed", "accuracy", "mean_depth")},
            mode=mode,
            seconds=(),
            speedups=tuple(one["measured"][key] for key in ("low", "median", "high")) if one["measured"] else (1.0,),
            timed_depth=one["mean_depth"],
            layers=study["layers"],
        )
        for one in (study["full_depth"], *study["table"])
    ]
    size = BatchSizeComparison(
        batch_size=0,
        batch_tokens=0,
        rows=tuple(rows),
        seconds_again=(),
        timed_texts=study["timed_texts"],
        timed_batches=0,
        padding_share=0.0,
    )
    depths = [dataclasses.replace(rows[0], **{key: one[key] for key in ("speed", "mean_depth")}) for one in ordered]
    variants = collections.defaultdict(list)
    for run in runs:
        variants[run["variant"]].append(run["curve"])
    means = {name: [_mean(same) for same in zip(*curves, strict=True)] for name, curves in variants.items()}
    lowest = max(accuracy for curve in means.values() for _, accuracy in curve) - LOWEST
    return {
        "layers": study["layers"],
        "texts": study["texts"],
        "baseline": None,
        "speeds": [
            point
            | {"true_speedup": point["paper_speedup"], "texts_per_exit": point["leaving"]}
            | _interval(point["accuracy"], study["texts"])
            for point in ordered
        ],
        "exits": [one | {"true_speedup": one["paper_speedup"]} for one in study["exits"]],
        "modes": [
            {
                "mode": mode,
                "speedups": size.estimated_speedups(mode, depths),
                "measured": [
                    {"speed": row.speed, "accuracy": row.accuracy, "speedup": dataclasses.asdict(row.speedup)}
                    for row in rows[1:]
                ],
            }
        ],
        "variants": [
            {"name": name, "curve": [[x, accuracy] for x, accuracy in curve if accuracy >= lowest]}
            for name, curve in means.items()
        ],
    }


def _interval(accuracy: float, texts: int) -> dict[str, float]:
    share = Share.of(accuracy * texts, texts)
    assert share is not None
    return {"low": share.low, "high": share.high}


def _mean(points: tuple[dict[str, float], ...]) -> list[float]:
    return [statistics.fmean(one[key] for one in points) for key in ("paper_speedup", "accuracy")]


def drawn(page: Page, name: str, width: int, title: str) -> str:
    """One figure as SVG."""
    return str(
        page.evaluate(
            """([name, width, title]) => {
              const host = document.getElementById("host");
              host.style.width = `${width}px`;
              host.replaceChildren();
              figures[name].draw(host, at);
              return standalone(host, title, getComputedStyle(document.querySelector(".card")).backgroundColor);
            }""",
            [name, width, title],
        )
    )


def in_both_schemes(light: str, dark: str) -> str:
    """One SVG with the colours of two that differ in nothing else; a browser takes those of its scheme."""
    ElementTree.register_namespace("", SVG)
    root, other = ElementTree.fromstring(light), ElementTree.fromstring(dark)
    names: dict[tuple[str, str, str], str] = {}
    for one, its in zip(root.iter(), other.iter(), strict=True):
        classes = []
        for key in ("fill", "stroke"):
            colours = one.get(key), its.get(key)
            if colours[0] and colours[1] and colours[0] != colours[1]:
                classes.append(names.setdefault((key, *colours), f"c{len(names)}"))  # type: ignore[arg-type]
        if classes:
            one.set("class", " ".join(classes))
    rules = " ".join(f".{name} {{ {key}: {colour}; }}" for (key, _, colour), name in names.items())
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = f"@media (prefers-color-scheme: dark) {{ {rules} }}"
    root.insert(1, style)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def home_values() -> dict[str, Any]:
    """What the report's scripts read of the comparison whose figure the home page shows."""
    (size,) = Comparison.from_json(result := json.loads(HOME_RESULT.read_text())).batch_sizes
    points = {row.speed: row for row in sorted(size.rows, key=lambda row: row.true_speedup)}
    ordered = [points[speed] for speed in sorted(points)]
    modes = dict.fromkeys(row.mode for row in size.rows[1:])
    return {
        "layers": result["layers"],
        "texts": result["texts"],
        "baseline": result["baseline_accuracy"],
        "speeds": [row.to_json() | _interval(row.accuracy, result["texts"]) for row in ordered],
        "exits": [],
        "modes": [
            {
                "mode": mode,
                "speedups": size.estimated_speedups(mode, ordered),
                "measured": [row.to_json() for row in size.rows[1:] if row.mode == mode],
            }
            for mode in modes
        ],
    }


def draw(browser: Browser, values: dict[str, Any], *, speed: float, figures: dict[str, tuple[Path, int, str]]) -> None:
    """Write figures, each by its name in the report's scripts: its file, its width in pixels and its title."""
    css, scripts = (ASSETS / "page.css").read_text(), [(ASSETS / name).read_text() for name in SCRIPTS[:-1]]
    choice = f"""
      const figures = {{ {", ".join(FIGURES)}, ablations }};
      const values = {json.dumps(values)};
      const place = values.speeds.findIndex((one) => one.speed === {speed});
      const at = {{ values, place, speed: values.speeds[place], size: {{ modes: values.modes }} }};
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(
            f"<!doctype html><meta charset='utf-8'><style>{css}</style><div class='card'><div class='plot' id='host'>"
            f"</div></div><script>{chr(10).join([*scripts, ABLATIONS, choice])}</script>"
        )
        for name, (file, width, title) in figures.items():
            pictures = []
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
                page.goto(path.as_uri())
                pictures.append(drawn(page, name, width, title))
                page.close()
            file.write_text(in_both_schemes(*pictures), encoding="utf-8")


def main() -> None:
    """Draw the figure of the home page, and all figures of all studies."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        draw(browser, home_values(), speed=HOME_SPEED, figures={"tradeoff": (HOME, 760, "Accuracy against speedup")})
        for study in sorted(path.parent for path in STUDIES.glob("*/study.json")):
            runs = json.loads((study / "ablations.json").read_text())["runs"]
            figures = {
                name: (study / f"{file}.svg", width, f"{study.name}: {file.replace('_', ' ')}")
                for name, (file, width) in (FIGURES | {"ablations": ("ablations", 760)}).items()
            }
            values = page_values(json.loads((study / "study.json").read_text()), runs)
            draw(browser, values, speed=SHOWN_SPEED, figures=figures)
        browser.close()


if __name__ == "__main__":
    main()

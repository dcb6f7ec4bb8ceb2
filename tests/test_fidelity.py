"""docs/fidelity.md tells the numbers of its result files: every row of its tables is made of them again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "fidelity.md").read_text(encoding="utf-8")
MOVED_TO = "benchmarks/ablations.py"
"""Where the command of the result files is today."""
STUDIES = sorted(path.parent for path in (DOCS / "fidelity").glob("*/study.json"))


def rows_of_table_2(study: dict) -> Iterator[str]:
    rows = [("full depth", study["full_depth"]["mean_depth"], study["full_depth"])]
    rows += [(row["name"], row["layers"], row) for row in study["baselines"]]
    rows += [(f"speed {point['speed']:g}", point["mean_depth"], point) for point in study["table"]]
    for name, depth, row in rows:
        time = row.get("measured")
        clock = f"{time['median']:.2f}x ({time['low']:.2f} to {time['high']:.2f})" if time else ""
        speedups = f"{row['paper_flops'] / 1e6:.0f}M | {row['paper_speedup']:.2f}x | {row['true_speedup']:.2f}x"
        yield f"| {name} | {row['accuracy']:.4f} | {depth:.2f} | {speedups} | {clock} |"


def cells_of_table_3(ablations: dict) -> Iterator[str]:
    runs = ablations["runs"]
    for variant in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == variant]
        yield f"| {variant} | {len(own)} | {spread([run['full_depth_accuracy'] for run in own])} |"
        for place in range(len(own[0]["speeds"])):
            points = [run["speeds"][place] for run in own]
            accuracy = spread([point["accuracy"] for point in points])
            yield f"{accuracy} / {spread([point['paper_speedup'] for point in points], digits=2)} x |"


def spread(values: list[float], *, digits: int = 4) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if min(values) == max(values) else f"{mean} ({low} to {high})"


def test_there_are_studies() -> None:
    assert STUDIES


@pytest.mark.parametrize("directory", STUDIES, ids=lambda path: path.name)
def test_every_row_is_that_of_the_result_files(directory: Path) -> None:
    study = json.loads((directory / "study.json").read_text(encoding="utf-8"))
    expected = list(rows_of_table_2(study))
    if (directory / "ablations.json").exists():
        expected += cells_of_table_3(json.loads((directory / "ablations.json").read_text(encoding="utf-8")))
    assert [row for row in expected if row not in PAGE] == []
    words = "".join(character for character in PAGE if character not in "\\\n ")
    command = study["origin"]["command"].replace("-m fastbert_jax.training.ablations", MOVED_TO)
    assert command.replace(" ", "") in words


def test_what_is_said_of_the_tables_stands_in_them() -> None:
    said = PAGE[PAGE.index("## What the tables say") : PAGE.index("## Where we differ")]
    tables = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    studies = [json.loads((directory / "study.json").read_text(encoding="utf-8")) for directory in STUDIES]
    errors = {standard_error(study["full_depth"]["accuracy"], study["texts"]) for study in studies}
    known = {*re.findall(r"\d+\.\d+", tables), *errors}
    assert [number for number in re.findall(r"\d+\.\d+", said) if number not in known] == []


def standard_error(accuracy: float, texts: int) -> str:
    """Of an accuracy, in points, to two digits."""
    return f"{100 * (accuracy * (1 - accuracy) / texts) ** 0.5:.2g}"

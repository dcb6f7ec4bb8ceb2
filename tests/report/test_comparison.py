"""The comparison as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fastbert_jax.report.comparison import Comparison, ComparisonRow, render
from fastbert_jax.report.metrics import Spread

FULL = ComparisonRow(
    mode="full depth",
    speed=0.0,
    accuracy=0.97,
    mean_depth=6.0,
    paper_speedup=1.0,
    true_speedup=1.0,
    speedup=Spread(1.0, 1.0, 1.0),
    timed_depth=6.0,
    layers=6,
)
EARLY = dataclasses.replace(
    FULL,
    mode="bucketed",
    speed=0.5,
    accuracy=0.9651,
    mean_depth=2.0,
    paper_speedup=2.95,
    true_speedup=2.93,
    speedup=Spread(2.4, 2.3, 2.5),
    timed_depth=2.1,
)
COMPARISON = Comparison(
    rows=(FULL, EARLY),
    layers=6,
    texts=2189,
    timed_texts=512,
    batches="2048 tokens",
    padding_share=0.25,
    repeats=3,
    noise=0.0213,
    disagreements=0,
    device="cpu",
    baseline_accuracy=0.9735,
)


def test_efficiency_is_measured_over_promised() -> None:
    assert EARLY.efficiency == pytest.approx(2.4 / (6 / 2.1))
    assert FULL.efficiency == 1


def test_the_table_shows_every_number_and_what_it_rests_on() -> None:
    lines = render(COMPARISON).split("\n")
    assert lines[0].split() == "mode speed accuracy depth FLOPs/paper FLOPs/true measured (min..max) efficiency".split()
    assert lines[2].split()[:2] == ["full", "depth"]
    assert lines[3].split() == "bucketed 0.5 0.9651 2.00 2.95x 2.93x 2.40x 2.30..2.50 0.84".split()
    assert lines[4].split() == "TF-IDF + linear SVM 0.9735".split()
    notes = " ".join(lines[5:])
    for fact in (
        "2189 texts",
        "6 layers",
        "batches of 2048 tokens, 25% of them padding",
        "on cpu",
        "512 of the texts",
        "median of 3",
        "2.1%",
    ):
        assert fact in notes
    assert "WARNING" not in notes and "left out." not in notes.replace("tokenizing is left out.", "")


def test_no_baseline_no_row_and_disagreements_are_told() -> None:
    words = render(dataclasses.replace(COMPARISON, baseline_accuracy=None, disagreements=2))
    assert "SVM" not in words
    assert "WARNING: 2 answers of the engines differ" in words


def test_skipped_rows_are_told() -> None:
    words = render(dataclasses.replace(COMPARISON, skipped_rows=3))
    assert "3 rows could not be read and were left out." in words.split("\n")


def test_json_has_all_numbers() -> None:
    values = json.loads(json.dumps(COMPARISON.to_json()))
    assert values["rows"][1]["efficiency"] == EARLY.efficiency
    assert values["rows"][1]["speedup"] == {"median": 2.4, "low": 2.3, "high": 2.5}
    assert values["noise"] == 0.0213 and values["baseline_accuracy"] == 0.9735

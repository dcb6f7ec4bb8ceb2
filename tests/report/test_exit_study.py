"""A study's numbers: every text is counted once, bins and depths follow their definitions, and all of it is drawn."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.report.exit_study import (
    BINS,
    BaselineRow,
    ExitRow,
    ExitStudy,
    SpeedPoint,
    uncertainty_bins,
    uncertainty_of_arrivals,
)
from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.study_plots import PICTURES, draw
from fastbert_jax.report.study_tables import render


def point(speed: float, leaving: tuple[int, ...], *, timed: bool = False) -> SpeedPoint:
    return SpeedPoint(
        speed=speed,
        accuracy=0.9 - speed / 10,
        leaving=leaving,
        uncertainty=(0.5, None),
        paper_flops=2e6,
        true_flops=2.5e6,
        paper_speedup=1 + speed,
        true_speedup=1 + speed / 2,
        measured=Spread.of([1.2, 1.3, 1.25]) if timed else None,
    )


@pytest.fixture
def study() -> ExitStudy:
    bins = uncertainty_bins(np.array([0.05, 0.5, 0.95]), np.array([True, True, False]))
    rows = [
        ExitRow(layer=layer, accuracy=0.8, agreement=0.9, mean_uncertainty=0.5, paper_speedup=2.0, bins=bins)
        for layer in (1, 2)
    ]
    return ExitStudy(
        name="tiny",
        texts=3,
        classes=2,
        mode="cascade",
        timed_texts=3,
        layers=2,
        exits=tuple(rows),
        full_depth=point(0.0, (0, 3)),
        table=(point(0.5, (2, 1), timed=True),),
        curve=(point(0.0, (0, 3)), point(1.0, (3, 0))),
        baselines=(
            BaselineRow(
                name="one layer",
                layers=1,
                accuracy=0.7,
                paper_flops=1e6,
                paper_speedup=2.0,
                true_speedup=1.9,
                measured=Spread.of([1.8]),
            ),
        ),
        origin={"command": "python infer.py study", "device": "cpu"},
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_every_text_is_in_the_bin_of_its_uncertainty(texts: list[tuple[float, bool]]) -> None:
    uncertainty, right = (np.array(column) for column in zip(*texts, strict=True))
    bins = uncertainty_bins(uncertainty, right)
    assert [one.high for one in bins[:-1]] == [one.low for one in bins[1:]]
    for one in bins:
        inside = (uncertainty >= one.low) & ((uncertainty < one.high) | (one.high == 1))
        assert (one.texts, one.right) == (inside.sum(), right[inside].sum())
        assert one.accuracy is None if one.texts == 0 else one.accuracy == one.right / one.texts


def test_an_exit_is_as_unsure_as_the_texts_that_come_to_it() -> None:
    uncertainty_LxB = np.array([[0.2, 0.8], [0.9, 0.6], [0.1, 0.1]])
    assert uncertainty_of_arrivals(uncertainty_LxB, np.array([1, 2]), asked=[True] * 3) == (0.5, 0.6, None)
    assert uncertainty_of_arrivals(uncertainty_LxB, np.array([3, 3]), asked=[False, True, True]) == (None, 0.75, 0.1)


def test_depths_are_those_of_the_texts_that_leave() -> None:
    assert point(0.5, (2, 0, 1)).mean_depth == pytest.approx(5 / 3) and point(0.5, (2, 0, 1)).median_depth == 1


def test_numbers_are_plain_and_hold_what_follows_from_them(study: ExitStudy) -> None:
    values = json.loads(json.dumps(study.to_json()))
    assert values["table"][0]["mean_depth"] == pytest.approx(4 / 3) and values["full_depth"]["median_depth"] == 2
    assert len(values["exits"][0]["bins"]) == BINS
    assert [values["exits"][1]["bins"][place]["accuracy"] for place in (0, 1, 9)] == [1.0, None, 0.0]


def test_the_tables_hold_every_row(study: ExitStudy) -> None:
    tables = render(study)
    assert "| full depth | 0.9000 | 2.00 | 2M | 1.00x | 1.00x |  |" in tables
    assert "| one layer | 0.7000 | 1.00 | 1M | 2.00x | 1.90x | 1.80x (1.80 to 1.80) |" in tables
    assert "| speed 0.5 | 0.8500 | 1.33 | 2M | 1.50x | 1.25x | 1.25x (1.20 to 1.30) |" in tables
    assert "| 0.9 to 1.0 | 0.000 (1) | 0.000 (1) |" in tables and "| 0.1 to 0.2 | - | - |" in tables


def test_every_picture_is_a_picture_and_always_the_same(study: ExitStudy, tmp_path: Path) -> None:
    paths = draw(study, tmp_path)
    assert {path.stem for path in paths} == set(PICTURES)
    for path in paths:
        assert ET.parse(path).getroot().tag.endswith("svg")
        first = path.read_bytes()
        draw(study, tmp_path)
        assert path.read_bytes() == first
    words = " ".join(re.findall(r">([^<]+)</text>", (tmp_path / "accuracy_by_speedup.svg").read_text()))
    assert "one layer" in words and "wall clock (cascade)" in words

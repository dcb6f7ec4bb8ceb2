"""A study says of every speed and exit what `predict` gives, and writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastbert_jax.config import BadRow, Mode, StudyConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.study import study, study_spec, timed_study
from fastbert_jax.report.exit_study import ExitStudy
from fastbert_jax.report.flops import paper_flops, paper_layer_flops
from tests.inference.models import LAYERS
from tests.inference.saved import LABELS, save_tiny_model, some_texts

TEXTS = some_texts(40)
EXPECTED = np.arange(40) % 3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def predictor(directory: Path) -> Predictor:
    return load(directory)


@pytest.fixture(scope="module")
def made(predictor: Predictor) -> ExitStudy:
    asked = AskedTexts.of(predictor, TEXTS, EXPECTED)
    return timed_study(
        study(asked, name="tiny", speeds=(0.3, 0.6)),
        asked,
        mode=Mode.MASKED,
        repeats=1,
        timed_texts=8,
        baselines={"itself": predictor},
    )


def test_every_speed_is_what_predict_gives(predictor: Predictor, made: ExitStudy) -> None:
    for point in (made.full_depth, *made.table, *made.curve[:: len(made.curve) // 2]):
        answers = predictor.predict(TEXTS, speed=point.speed, mode="masked")
        right = [answer.label == LABELS[label] for answer, label in zip(answers, EXPECTED, strict=True)]
        assert point.accuracy == pytest.approx(np.mean(right))
        assert point.mean_depth == pytest.approx(np.mean([answer.exit_layer for answer in answers]))
        assert sum(point.leaving) == 40
    assert [point.measured is None for point in (made.full_depth, *made.table, made.curve[0])] == [
        True,
        False,
        False,
        True,
    ]


def test_every_exit_is_itself(predictor: Predictor, made: ExitStudy) -> None:
    labels_BxL = predictor.exit_probabilities(TEXTS).argmax(-1)
    assert [row.accuracy for row in made.exits] == pytest.approx((labels_BxL == EXPECTED[:, None]).mean(0).tolist())
    assert made.exits[-1].agreement == 1 and made.exits[-1].accuracy == made.full_depth.accuracy
    assert all(sum(one.texts for one in row.bins) == 40 for row in made.exits)


def test_flops_are_the_papers(predictor: Predictor, made: ExitStudy) -> None:
    lengths = predictor.plan(TEXTS).padded_lengths
    full = [paper_flops(predictor.config, length, LAYERS, exits_evaluated=1) for length in lengths]
    assert made.full_depth.paper_flops == pytest.approx(np.mean(full))
    one = [paper_flops(predictor.config, length, 1) for length in lengths]
    assert made.exits[0].paper_speedup == pytest.approx(np.sum(full) / np.sum(one))
    # Speed 0 of the curve pays for every exit, full depth for the teacher's alone.
    assert made.curve[0].paper_flops > made.full_depth.paper_flops > LAYERS * paper_layer_flops(predictor.config, 8)


def test_a_baseline_counts_at_its_full_depth(made: ExitStudy) -> None:
    (row,) = made.baselines
    assert (row.name, row.layers, row.accuracy) == ("itself", LAYERS, made.full_depth.accuracy)
    assert row.paper_speedup == row.true_speedup == 1 and row.measured.median > 0


def test_the_command_writes_tables_numbers_and_pictures(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{LABELS[label]}\t{text}" for text, label in zip(TEXTS, EXPECTED, strict=True)]
    (tmp_path / "test.tsv").write_text("\n".join(["label\ttext", *rows, "one column"]) + "\n")
    config = {"model": str(directory), "data": str(tmp_path / "test.tsv"), "repeats": 1, "timed_texts": 4}
    config |= {"on_bad_row": BadRow.SKIP}
    tables = study_spec(StudyConfig(**config, output=str(tmp_path / "out"), speeds=(0.5,), limit=20))
    assert (tmp_path / "out" / "study.md").read_text() == tables and "| speed 0.5 |" in tables
    assert "1 rows could not be read and were left out; the first:" in capsys.readouterr().err
    numbers = json.loads((tmp_path / "out" / "study.json").read_text())
    assert numbers["texts"] == 20 and len(list((tmp_path / "out").glob("*.svg"))) == 5
    with pytest.raises(UserError, match="test.tsv: expected a directory that can be written"):
        study_spec(StudyConfig(**config, output=str(tmp_path / "test.tsv")))


def test_bad_settings_are_refused(directory: Path, predictor: Predictor) -> None:
    for bad in ({"speeds": (0.0,)}, {"repeats": 0}, {"limit": -1}, {"timed_texts": -1}):
        with pytest.raises(UserError, match=next(iter(bad))):
            StudyConfig(model=str(directory), data="x.tsv", output="x", **bad)
    with pytest.raises(UserError, match="expected at least one text"):
        AskedTexts.of(predictor, [], EXPECTED)

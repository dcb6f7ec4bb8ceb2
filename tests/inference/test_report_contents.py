"""What a report shows of a model is what `predict` gives, at every speed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastbert_jax.config import EvaluateConfig, ExitConfig, Mode
from fastbert_jax.inference import report_contents as module
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import CURVE, AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.report_contents import report_of
from fastbert_jax.report.html.contents import Report
from tests.inference.models import LAYERS
from tests.inference.saved import LABELS, save_tiny_model, some_texts

TEXTS = [*some_texts(30), *some_texts(10)]  # some of them twice
EXPECTED = np.arange(40) % 2  # no mole
EVALUATE = EvaluateConfig(speeds=(0.33,), modes=(Mode.MASKED,), batch_size=8, repeats=1)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> AskedTexts:
    exits = ExitConfig(layers=(2, 3, LAYERS))
    predictor = load(save_tiny_model(tmp_path_factory.mktemp("run") / "model"), exits=exits)
    return AskedTexts.of(predictor, TEXTS, EXPECTED)


@pytest.fixture(scope="module")
def report(asked: AskedTexts) -> Report:
    return report_of(asked, compare(asked, evaluate=EVALUATE), model="m", data="d")


def test_every_speed_is_what_predict_gives(asked: AskedTexts, report: Report) -> None:
    predictor: Predictor = asked.predictor
    speeds = [one.point.speed for one in report.speeds]
    assert speeds == sorted({*CURVE, 0.33}) and len(CURVE) == 41
    for at in (0.0, 0.33, 0.6):
        shown = report.speeds[speeds.index(at)]
        answers = predictor.predict(TEXTS, speed=at, mode="masked")
        given = np.array([LABELS.index(answer.label) for answer in answers])
        depth = np.array([answer.exit_layer for answer in answers])
        assert shown.point.accuracy == np.mean(given == EXPECTED)
        assert [one.label for one in report.classes] == list(LABELS)
        for label in range(3):
            assert shown.found[label] == (given == label).sum()
            assert shown.right[label] == ((given == label) & (EXPECTED == label)).sum()
        assert shown.depth[2] is None and shown.depth[0] == pytest.approx(depth[EXPECTED == 0].mean())
        sure = [answer.probabilities.max() for answer in answers]
        parts = [one.texts * one.confidence for one in shown.reliability if one.confidence is not None]
        assert sum(parts) == pytest.approx(sum(sure), rel=1e-4)
        assert sum(one.right for one in shown.reliability) == (given == EXPECTED).sum()
        for one in (*report.easy, *report.hard):
            place = TEXTS.index(one.text)
            assert (
                one.depths[speeds.index(at)] == depth[place] and one.answers[depth[place] - 1] == LABELS[given[place]]
            )


def test_only_exits_that_are_asked_are_shown_and_alone_they_cost_less(asked: AskedTexts, report: Report) -> None:
    assert [one.row.layer for one in report.exits] == [2, 3, LAYERS]
    assert report.exits[-1].true_speedup == 1 and report.exits[-1].row.accuracy == report.speeds[0].point.accuracy
    assert report.exits[0].true_speedup > report.exits[1].true_speedup > 1
    assert report.exits[1].true_speedup > asked.full_flops.true / asked.stopping_at(3, asked.predictor.asked_exits).true


def test_easy_texts_run_fewer_layers_than_hard_ones_and_each_is_shown_once(report: Report) -> None:
    easy, hard = ([sum(one.depths) for one in texts] for texts in (report.easy, report.hard))
    assert max(easy) <= min(hard) and easy == sorted(easy) and hard == sorted(hard, reverse=True)
    assert len(easy) == len({one.text for one in report.easy}) == module.EXAMPLES
    assert len(hard) == len({one.text for one in report.hard}) == module.EXAMPLES


def test_many_classes_are_cut_to_the_largest_and_long_texts_to_their_beginning(
    asked: AskedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(asked, evaluate=EVALUATE)
    monkeypatch.setattr(module, "CLASSES", 1)
    monkeypatch.setattr(module, "CHARACTERS", 5)
    skewed = dataclasses.replace(asked, expected_B=np.ones(40, int), texts=[(text, "b" * 9) for text in TEXTS])
    report = report_of(skewed, comparison, model="m", data="d")
    assert ([one.label for one in report.classes], report.num_classes) == ([LABELS[1]], 3)
    assert all(len(one.text) <= 5 and one.pair == "bbbb…" for one in report.easy)


def test_one_text_is_enough(asked: AskedTexts) -> None:
    alone = AskedTexts.of(asked.predictor, TEXTS[:1], EXPECTED[:1])
    report = report_of(alone, compare(alone, evaluate=EVALUATE), model="m", data="d")
    assert len(report.easy) == 1 and report.hard == ()

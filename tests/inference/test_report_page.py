"""What a report shows of a model is what `predict` gives, at every speed; and where it opens."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert_jax.config import ExitConfig, MeasureConfig, Mode, PolicyName
from fastbert_jax.inference import report_page as module
from fastbert_jax.inference.calibrate import recommend
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import CURVE, EvaluatedTexts, ExitOutputs, uncertainty_at_exits
from fastbert_jax.inference.explain import exit_paths
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.report_page import mislabelled, page_values
from fastbert_jax.model.flops import Count, text_flops
from tests.inference.models import LAYERS
from tests.inference.saved import LABELS, save_tiny_model, some_texts

TEXTS = [*some_texts(30), *some_texts(10)]  # some of them twice
EXPECTED = np.arange(40) % 2  # no mole
LANGUAGES = ["de", "en", "en", "en"] * 10
MEASURE = MeasureConfig(speeds=(0.33,), modes=(Mode.MASKED,), batch_size=8, repeats=1)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedTexts:
    exits = ExitConfig(layers=(2, 3, LAYERS))
    predictor = load(save_tiny_model(tmp_path_factory.mktemp("run") / "model"), exits=exits)
    return EvaluatedTexts.of(predictor, TEXTS, EXPECTED, groups={"language": LANGUAGES})


@pytest.fixture(scope="module")
def report(evaluated: EvaluatedTexts) -> dict[str, Any]:
    return page_values(evaluated, compare(evaluated, measure=MEASURE))


def test_every_speed_is_what_predict_gives(evaluated: EvaluatedTexts, report: dict[str, Any]) -> None:
    predictor: Predictor = evaluated.predictor
    speeds = [one["speed"] for one in report["speeds"]]
    assert speeds == sorted({*CURVE, 0.33}) and len(CURVE) == 41
    for at in (0.0, 0.33, 0.6):
        shown = report["speeds"][speeds.index(at)]
        answers = predictor.predict(TEXTS, speed=at, mode="masked")
        given = np.array([LABELS.index(answer.label) for answer in answers])
        depth = np.array([answer.exit_layer for answer in answers])
        assert shown["accuracy"] == pytest.approx(np.mean(given == EXPECTED), abs=1e-5)
        assert [one["label"] for one in report["classes"]] == list(LABELS)
        for label in range(3):
            right, has, is_given = (
                np.sum(one) for one in ((given == label) & (EXPECTED == label), EXPECTED == label, given == label)
            )
            for score, part, total in zip(
                shown["scores"][label],
                (right, right, 2 * right),
                (is_given, has, has + is_given),
                strict=True,
            ):
                assert score is None if total == 0 else score[0] == pytest.approx(part / total, abs=1e-5)
            row = [int(((given == other) & (EXPECTED == label)).sum()) for other in range(3)]
            assert shown["confusion"]["cells"][label] == [*row, 0]
        for expected, other, texts in shown["confusion"]["largest"]:
            assert texts == ((given == other) & (EXPECTED == expected)).sum() and other != expected
        assert [one["value"] for one in report["groups"]] == ["en", "de"]
        languages = np.array(LANGUAGES)
        for place, one in enumerate(report["groups"]):
            its = languages == one["value"]
            assert one["texts"] == its.sum()
            assert shown["groups"][place][0] == pytest.approx((given == EXPECTED)[its].mean(), abs=1e-5)
        full = np.array([LABELS.index(answer.label) for answer in predictor.predict(TEXTS, speed=0.0, mode="masked")])
        assert shown["gained"] == ((given == EXPECTED) & (full != EXPECTED)).sum()
        assert shown["lost"] == ((given != EXPECTED) & (full == EXPECTED)).sum()
        assert shown["class_depth"][2] is None
        assert shown["class_depth"][0] == pytest.approx(depth[EXPECTED == 0].mean(), abs=1e-5)
        sure = [answer.probabilities.max() for answer in answers]
        parts = [one["texts"] * one["mean"] for one in shown["reliability"]["bins"] if one["mean"] is not None]
        assert sum(parts) == pytest.approx(sum(sure), rel=1e-4)
        assert sum(one["right"] for one in shown["reliability"]["bins"]) == (given == EXPECTED).sum()
        for one in (*report["easy"], *report["hard"]):
            place = TEXTS.index(one["text"])
            assert one["depths"][speeds.index(at)] == depth[place]
            assert one["labels"][depth[place] - 1] == LABELS[given[place]]


def test_only_exits_that_are_asked_are_shown_and_alone_they_cost_less(
    evaluated: EvaluatedTexts, report: dict[str, Any]
) -> None:
    second, third, last = report["exits"]
    assert [one["layer"] for one in report["exits"]] == [2, 3, LAYERS]
    assert last["true_speedup"] == 1 and last["accuracy"] == report["speeds"][0]["accuracy"]
    assert second["true_speedup"] > third["true_speedup"] > 1
    lengths = evaluated.predictor.plan(TEXTS).padded_lengths.tolist()
    full, alone, both = (
        sum(
            text_flops(Count.TRUE, evaluated.predictor.network, length, layers, exits_evaluated=n) for length in lengths
        )
        for layers, n in ((LAYERS, 1), (3, 1), (3, 2))
    )
    assert third["true_speedup"] == pytest.approx(full / alone, abs=1e-5) and full / alone > full / both


@pytest.mark.slow
@pytest.mark.parametrize("exit_layers", [(3,), (1, 3)])
def test_an_exit_that_the_model_does_not_have_is_not_shown(tmp_path: Path, exit_layers: tuple[int, ...]) -> None:
    predictor = load(save_tiny_model(tmp_path / "model", num_layers=3, exit_layers=exit_layers))
    evaluated = EvaluatedTexts.of(predictor, TEXTS, EXPECTED)
    comparison = compare(evaluated, measure=MEASURE)
    assert [row.layer for row in comparison.exits] == list(exit_layers) and comparison.disagreements == 0
    full, masked = comparison.rows
    exits = [
        sum(
            text_flops(Count.TRUE, predictor.network, int(length), 3, exits_evaluated=n)
            for length in evaluated.lengths_B
        )
        for n in (1, len(exit_layers))
    ]
    assert [full.true_flops, masked.true_flops] == exits
    measured = {"step": 4, "phase": "fine_tune", "accuracy": [0.3, 0.5, 0.9], "loss": [0.9, 0.8, 0.2]}
    values = page_values(evaluated, comparison, [measured])
    assert values["exit_layers"] == [one["layer"] for one in values["exits"]] == list(exit_layers)
    (point,) = values["training"]
    assert [layer for layer, accuracy in enumerate(point["accuracy"], 1) if accuracy is not None] == list(exit_layers)
    for speed in values["speeds"]:
        assert all(texts == 0 for layer, texts in enumerate(speed["texts_per_exit"], 1) if layer not in exit_layers)
        assert all(one is None for layer, one in enumerate(speed["uncertainty"], 1) if layer not in exit_layers)
    for path in exit_paths(predictor, TEXTS[:3], 0.6):
        assert [step["layer"] for step in path["layers"]] == list(exit_layers) and path["exit_layer"] in exit_layers


def test_easy_texts_run_fewer_layers_than_hard_ones_and_each_is_shown_once(report: dict[str, Any]) -> None:
    easy, hard = ([sum(one["depths"]) for one in texts] for texts in (report["easy"], report["hard"]))
    assert max(easy) <= min(hard) and easy == sorted(easy) and hard == sorted(hard, reverse=True)
    assert len(easy) == len({one["text"] for one in report["easy"]}) == module.EXAMPLES
    assert len(hard) == len({one["text"] for one in report["hard"]}) == module.EXAMPLES


def test_many_classes_are_cut_to_the_largest_and_long_texts_to_their_beginning(
    evaluated: EvaluatedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(evaluated, measure=MEASURE)
    monkeypatch.setattr(module, "CLASSES", 1)
    monkeypatch.setattr(module, "CHARACTERS", 5)
    skewed = dataclasses.replace(evaluated, expected_B=np.ones(40, int), texts=[(text, "b" * 9) for text in TEXTS])
    report = page_values(skewed, comparison)
    assert ([one["label"] for one in report["classes"]], report["num_classes"]) == ([LABELS[1]], 3)
    assert all(len(one["text"]) <= 5 and one["pair"] == "bbbb…" for one in report["easy"])


def test_the_texts_to_check_are_those_that_the_exits_contradict_on_average(evaluated: EvaluatedTexts) -> None:
    predictor = evaluated.predictor
    probabilities_BxLxN = predictor.exit_probabilities(TEXTS)
    asked_BxLxN = probabilities_BxLxN[:, [1, 2, LAYERS - 1]]
    mean_BxN = asked_BxLxN.mean(1)
    found = {one.place: one for one in mislabelled(evaluated, [f"f.csv:{row}" for row in range(40)])}
    suggested_B = mean_BxN.argmax(-1)
    assert [*found] == [f"f.csv:{row}" for row in np.flatnonzero(suggested_B != EXPECTED)] and 0 < len(found) < 40
    for place, one in found.items():
        row = int(place.removeprefix("f.csv:"))
        assert (one.label, one.suggested) == (LABELS[EXPECTED[row]], LABELS[suggested_B[row]])
        assert one.probability == pytest.approx(mean_BxN[row, EXPECTED[row]], abs=1e-6)
        assert one.suggested_probability == pytest.approx(mean_BxN[row].max(), abs=1e-6)
        assert (one.agreeing, one.exits) == ((asked_BxLxN[row].argmax(-1) == suggested_B[row]).sum(), 3)
        assert one.text == TEXTS[row] and one.pair == ""
    agreed = dataclasses.replace(evaluated, expected_B=suggested_B)
    assert mislabelled(agreed, [""] * 40) == []
    pairs = dataclasses.replace(evaluated, texts=[("a\n" * 500, f"\r\n{text}") for text in TEXTS])
    assert {(len(one.text), one.text[:4]) for one in mislabelled(pairs, [""] * 40)} == {(module.CHARACTERS, "a a ")}
    assert [one.pair for one in mislabelled(pairs, [""] * 40)] == [one.text for one in found.values()]


def test_one_text_is_enough(evaluated: EvaluatedTexts) -> None:
    alone = EvaluatedTexts.of(evaluated.predictor, TEXTS[:1], EXPECTED[:1])
    report = page_values(alone, compare(alone, measure=MEASURE))
    assert len(report["easy"]) == 1 and report["hard"] == []


def test_it_opens_at_the_speed_that_predict_takes(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")

    def opens_at(exits: ExitConfig = ExitConfig()) -> tuple[float, bool]:  # noqa: B008
        evaluated = EvaluatedTexts.of(load(directory, exits=exits), TEXTS, EXPECTED)
        report = page_values(evaluated, compare(evaluated, measure=MEASURE))
        return report["speeds"][report["start"]]["speed"], report["recommended"]

    assert opens_at() == (0.5, False)
    predictor = load(directory)
    full = EvaluatedTexts.of(predictor, TEXTS, EXPECTED).outputs
    speed = recommend(predictor, full, full.labels_B(0.62), data="dev").speed
    assert speed > 0.5 and opens_at() == (speed, True)  # chosen on these labels, not on those that are shown
    assert opens_at(ExitConfig(policy=PolicyName.MARGIN)) == (0.5, False)


def test_an_exits_uncertainty_is_that_of_the_texts_that_reach_it() -> None:
    uncertainty_LxB = np.array([[0.2, 0.8], [0.9, 0.6], [0.1, 0.1]])
    assert uncertainty_at_exits(uncertainty_LxB, np.array([1, 2]), asked=[True] * 3) == (0.5, 0.6, None)
    assert uncertainty_at_exits(uncertainty_LxB, np.array([3, 3]), asked=[False, True, True]) == (None, 0.75, 0.1)


def test_a_matrix_of_many_classes_has_those_that_are_confused_most() -> None:
    """Class c is confused with c + 1 in c of its 10 texts; the matrix and its last column hold all texts."""
    classes = 30
    expected_B = np.repeat(np.arange(classes), 10)
    label_B = np.where(np.arange(300) % 10 < np.minimum(expected_B // 3, 9), (expected_B + 1) % classes, expected_B)
    outputs = ExitOutputs(np.zeros((1, 300)), label_B[None], np.ones((1, 300)))
    labels = [f"class {number}" for number in range(classes)]
    predictor = types.SimpleNamespace(labels=labels)
    evaluated = EvaluatedTexts(predictor, ["a"] * 300, expected_B, outputs, np.empty(0), np.full(300, 8), 0)
    answers = evaluated.answers_at(0.0)
    found = module._confusion(answers, labels)
    assert len(found["classes"]) == module.MATRIX and set(found["classes"]) <= {*range(20, 30)}
    assert [sum(row) for row in found["cells"]] == [10] * module.MATRIX
    for place, one in enumerate(found["classes"]):
        assert found["cells"][place][place] == ((label_B == one) & (expected_B == one)).sum()
    texts = [count for _, _, count in found["largest"]]
    assert len(texts) == module.CONFUSIONS and texts == sorted(texts, reverse=True) and texts[0] == 9
    assert sum(one.texts for one in answers.confusions) == (label_B != expected_B).sum()

"""The calibrate command: what it finds is what predict then does, and it is kept with the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastbert_jax.config import CalibrateConfig, ExitConfig, Mode, PolicyName, PredictConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibrate as module
from fastbert_jax.inference import policies
from fastbert_jax.inference.calibrate import calibrate
from fastbert_jax.inference.calibration import Calibration, stored_calibration
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predict_command import predict
from fastbert_jax.report.comparison import Spread
from tests.inference.saved import save_tiny_model, some_texts

TEXTS = some_texts(60)


def read_calibration(run: Path, target: str) -> Calibration:
    return stored_calibration(run / "model", target)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "run" / "model").parent


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Texts with the labels that full depth gives them."""
    labels = [answer.label for answer in load(model).predict(TEXTS, speed=0)]
    path = tmp_path / "dev.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, labels, strict=True)))
    return path


@pytest.fixture
def fixed_speedup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every measurement gives what skipped layers promise, and nothing is timed."""

    def measured(predictor: object, plan: object, *, thresholds: float | np.ndarray, **settings: object) -> Spread:
        depth = np.mean(predictor.answers(plan, speed=np.asarray(thresholds), mode=Mode.MASKED).exit_layer_B)
        return Spread.of([predictor.config.num_layers / depth])

    monkeypatch.setattr(module, "measured_speedup", measured)


@pytest.mark.usefixtures("fixed_speedup")
@pytest.mark.parametrize("target", [{"agreement": 0.5}, {"max_drop": 10.0}])
def test_rows_that_training_excluded_are_left_out_and_counted(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str], target: dict[str, float]
) -> None:
    save_tiny_model(model / "model", excluded_labels=("whale",))
    with data.open("a") as stream:
        stream.write("some text\twhale\n")
    found = calibrate(CalibrateConfig(model=str(model), data=str(data), **target))
    assert found.texts == 60 and found.full_accuracy == 1.0
    assert "1 of 61 (1.6 %) rows have excluded labels and are left out: ['whale (1)']" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("per_layer", [False, True])
def test_the_thresholds_found_are_those_that_predict_takes(
    model: Path, data: Path, tmp_path: Path, per_layer: bool
) -> None:
    exits = ExitConfig(policy=PolicyName.MARGIN, layers=(1, 3))
    found = calibrate(
        CalibrateConfig(model=str(model), data=str(data), max_drop=10.0, per_layer=per_layer, exits=exits, repeats=1)
    )
    assert found.full_accuracy == 1.0 and found.accuracy >= 0.9 and found.accuracy == found.agreement
    assert found.mean_depth < 5 and found.speedup.median > 0 and found.texts == 60
    assert read_calibration(model, "max-drop=10") == found
    assert [layer for layer, threshold in enumerate(found.thresholds, 1) if threshold] in ([1, 3], [1, 3, 5])
    assert "max-drop=10" in found.summary() and "of 5 layers" in found.summary()

    predict(
        PredictConfig(
            model=str(model),
            input=(str(data),),
            output=str(tmp_path / "out.jsonl"),
            target="max-drop=10",
            speed=1.0,
            devices=2,
        )
    )
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.mean([answer["exit_layer"] for answer in answers]) == pytest.approx(found.mean_depth)
    assert {answer["exit_layer"] for answer in answers} <= {1, 3, 5}


@pytest.mark.slow
def test_targets_stand_beside_each_other(model: Path, data: Path, fixed_speedup: None) -> None:
    calibrate(CalibrateConfig(model=str(model), data=str(data), max_drop=0.0))
    promise = calibrate(CalibrateConfig(model=str(model), data=str(data), agreement=0.7, confidence=0.9))
    assert promise.agreement >= 0.7 and promise.confidence == 0.9
    assert set(json.loads((model / "model" / "calibration.json").read_text())) == {"max-drop=0", "agreement=0.7"}


@pytest.mark.slow
def test_a_speedup_is_reached_at_the_least_loss_or_refused(model: Path, data: Path, fixed_speedup: None) -> None:
    found = calibrate(CalibrateConfig(model=str(model), data=str(data), speedup=1.5))
    assert found.speedup.median >= 1.5 and 1.5 <= 5 / found.mean_depth < 2
    with pytest.raises(
        UserError, match=r"--speedup 50 cannot be reached: the most that was measured on these texts is"
    ):
        calibrate(CalibrateConfig(model=str(model), data=str(data), speedup=50.0))


@pytest.mark.parametrize("target", [pytest.param({"agreement": 0.7}, marks=pytest.mark.slow), {"speedup": 1.5}])
def test_labels_that_a_target_does_not_need_may_be_unknown(
    model: Path, data: Path, tmp_path: Path, fixed_speedup: None, target: dict
) -> None:
    known = calibrate(CalibrateConfig(model=str(model), data=str(data), **target))
    assert known.accuracy is not None and "unknown:" not in known.summary()
    rows = data.read_text().splitlines()
    rows[1] = rows[1].split("\t")[0] + "\twhale"
    (tmp_path / "unknown.tsv").write_text("\n".join(rows))
    found = calibrate(CalibrateConfig(model=str(model), data=str(tmp_path / "unknown.tsv"), **target))
    assert found.thresholds == known.thresholds and found.accuracy is found.full_accuracy is None
    assert re.search("accuracy    unknown: expected label one of .* found 'whale' at .*unknown.tsv:2;", found.summary())
    assert read_calibration(model, found.target) == found


def test_the_recommended_speed_is_what_is_used_where_none_is_given(
    model: Path, data: Path, fixed_speedup: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(*, exits: ExitConfig = ExitConfig()) -> tuple[list[int], str]:  # noqa: B008
        """The layers that `predict` runs, and what it says of the speed."""
        output = tmp_path / "out.jsonl"
        predict(PredictConfig(model=str(model), input=(str(data),), output=str(output), exits=exits, devices=1))
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("speed ")]
        return [json.loads(line)["exit_layer"] for line in output.read_text().splitlines()], "".join(said)

    def layers(speed: float | None, exits: ExitConfig | None = None) -> list[int]:
        return [answer.exit_layer for answer in load(model, exits=exits).predict(TEXTS, speed=speed)]

    rows = [f"{text}\t{answer.label}\n" for text, answer in zip(TEXTS, load(model).predict(TEXTS, 0.7), strict=True)]
    data.write_text("text\tlabel\n" + "".join(rows))  # what the last exit answers is often wrong
    assert answered()[0] == layers(None) == layers(0.5)
    assert "speed 0.5: the model has no recommended speed; `python infer.py calibrate --model" in answered()[1]
    found = calibrate(CalibrateConfig(model=str(model), data=str(data)))
    assert found.target == "recommended"
    assert 60 * (found.accuracy - found.full_accuracy) == pytest.approx(found.gained - found.lost)
    assert found.gained > found.lost and found.speed >= 0.7
    assert load(model).recommended == read_calibration(model, "recommended") == found
    assert answered()[0] == layers(None) == layers(found.speed) != layers(0.5)
    assert answered()[1] == f"speed {found.speed:g}, recommended for this model: chosen on 60 texts of {data}"
    margin = ExitConfig(policy=PolicyName.MARGIN)
    assert answered(exits=margin)[0] == layers(None, margin) == layers(0.5, margin)
    words = f"speed 0.5: the recommended speed {found.speed:g} holds for all exits by entropy only"
    assert answered(exits=margin)[1].startswith(words)
    assert load(model, policy=policies.margin).default_speed == 0.5  # of a user's own


def test_a_speed_is_recommended_for_the_default_exits_only(model: Path, data: Path) -> None:
    with pytest.raises(UserError, match="--exits: expected a target, such as --max-drop 0.5, with other exits"):
        CalibrateConfig(model=str(model), data=str(data), exits=ExitConfig(every=2))


def test_damaged_thresholds_are_named(model: Path) -> None:
    (model / "model" / "calibration.json").write_text(
        '{"recommended": {"exits": {}, "thresholds": [7], "speedup": null}}'
    )
    with pytest.raises(UserError, match=r"calibration.json: not a file of .*thresholds \[7\].*calibrate again"):
        load(model).predict(TEXTS[:1])
    assert load(model).predict(TEXTS[:1], speed=0.3)


def test_a_loss_of_accuracy_needs_every_label(model: Path, tmp_path: Path) -> None:
    (tmp_path / "unknown.tsv").write_text("text\tlabel\ngood\twhale\n")
    with pytest.raises(UserError, match="expected label one of .*, found 'whale' at .*unknown.tsv:2"):
        calibrate(CalibrateConfig(model=str(model), data=str(tmp_path / "unknown.tsv"), max_drop=1.0))


def test_a_calibration_that_cannot_be_kept_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (save_tiny_model(tmp_path / "model") / "calibration.json").mkdir()
    with pytest.raises(UserError, match=r"calibration\.json: cannot write the calibration: it is a directory"):
        calibrate(CalibrateConfig(model=str(tmp_path), data="no data", max_drop=0.5))


def test_what_was_not_calibrated_is_refused(model: Path, data: Path, fixed_speedup: None) -> None:
    with pytest.raises(UserError, match=r"no calibration for 'max-drop=0.5'; make it with"):
        read_calibration(model, "max-drop=0.5")
    calibrate(CalibrateConfig(model=str(model), data=str(data), max_drop=0.5))
    with pytest.raises(UserError, match=r"no calibration for 'max-dorp=0.5'; did you mean 'max-drop=0.5'"):
        read_calibration(model, "max-dorp=0.5")
    (model / "model" / "calibration.json").write_text('{"max-drop=0.5": {}}')
    with pytest.raises(UserError, match="calibrate again"):
        read_calibration(model, "max-drop=0.5")
    (model / "model" / "calibration.json").write_text("{")
    with pytest.raises(UserError, match="delete it"):
        read_calibration(model, "max-drop=0.5")


@pytest.mark.parametrize(
    "settings",
    [
        {"max_drop": 1.0, "speedup": 2.0},
        {"max_drop": -1.0},
        {"speedup": 0.5},
        {"agreement": 1.0},
        {"agreement": 0.9, "confidence": 1.0},
        {"agreement": 0.9, "per_layer": True},
    ],
)
def test_a_target_that_makes_no_sense_is_refused(settings: dict) -> None:
    with pytest.raises(UserError, match="expected"):
        CalibrateConfig(model="m", data="d", **settings)

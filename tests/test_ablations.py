"""Ablations end to end on tiny runs, and the tables made of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from fastbert_jax.command_line import read_over_file
from fastbert_jax.config import (
    DataConfig,
    DistilConfig,
    FineTuneConfig,
    Mode,
    ModelConfig,
    TruncateConfig,
)
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load
from fastbert_jax.model import sharding
from fastbert_jax.model.weights import load_model
from fastbert_jax.training import run

ROOT = Path(__file__).parent.parent

TEXTS = ["good film", "a bad bad film", "good", "the cast was poor", "fine and good", "poor plot", "bad"] * 3


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("ablations")


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))


@pytest.fixture
def config(ablations: ModuleType, tmp_path: Path) -> Any:
    rows = [f"{'pos' if 'good' in text or 'fine' in text else 'neg'}\t{text}" for text in TEXTS]
    (tmp_path / "train.tsv").write_text("\n".join(["label\ttext", *rows]))
    (tmp_path / "test.tsv").write_text("\n".join(["label\ttext", *rows[:9]]))
    return ablations.AblationsConfig(
        output=str(tmp_path / "study"),
        seeds=(3,),
        exit_size=4,
        layers=(1,),
        speeds=(0.5,),
        table_speeds=(0.4,),
        speedups=(1.2, 50.0),
        mode=Mode.MASKED,
        repeats=1,
        settings=ablations.Settings(
            data=DataConfig(train=str(tmp_path / "train.tsv"), test=str(tmp_path / "test.tsv"), max_length=8),
            model=ModelConfig(
                pretrained="random", hidden_size=16, num_layers=2, num_heads=2, feed_forward_size=32, exit_size=8
            ),
            fine_tune=FineTuneConfig(epochs=1, batch_size=8, learning_rate=0.01),
            truncate=TruncateConfig(epochs=1, batch_size=8),
            distil=DistilConfig(epochs=1, batch_size=8, learning_rate=0.01),
        ),
    )


@pytest.mark.slow
def test_every_variant_is_what_its_name_says(ablations: ModuleType, config: Any, tmp_path: Path) -> None:
    printed = ablations.run_ablations(config)
    output = tmp_path / "study"
    assert {path.name for path in output.iterdir()} == {
        *("comparison.md", "comparison.json", "ablations.md", "ablations.json", "runs")
    }
    assert (output / "comparison.md").read_text() in printed and (output / "ablations.md").read_text() in printed

    models = {path.name: load_model(path / "model") for path in (output / "runs").iterdir()}
    fine_tuned, fastbert = models["fine-tuned_seed_3"][0], models["FastBERT_seed_3"][0]
    same = jax.tree.map(np.array_equal, fine_tuned, {part: fastbert[part] for part in ("backbone", "last_exit")})
    assert all(jax.tree.leaves(same))
    for name in ("KL_student-teacher_seed_3", "noisy_teacher_seed_3"):
        other = models[name][0]
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, other["backbone"], fastbert["backbone"])))
        assert not np.array_equal(other["lower_exits"]["narrow"]["kernel"], fastbert["lower_exits"]["narrow"]["kernel"])
    assert models["exits_of_width_4_seed_3"][1].exit_size == 4
    assert set(models["linear_exits_seed_3"][0]["lower_exits"]) == {"classifier"}
    assert models["truncated_to_1_seed_3"][1].num_layers == 1

    numbers = json.loads((output / "ablations.json").read_text())
    assert [run["variant"] for run in numbers["runs"]] == [
        "FastBERT",
        "no self-distillation",
        "KL student-teacher",
        "noisy teacher",
        "exits of width 4",
        "linear exits",
    ]
    answers = load(output / "runs" / "FastBERT_seed_3").predict(TEXTS[:9], speed=0.5)
    right = [
        answer.label == ("pos" if "good" in text or "fine" in text else "neg")
        for answer, text in zip(answers, TEXTS, strict=False)
    ]
    first = numbers["runs"][0]
    assert first["speeds"][0]["accuracy"] == pytest.approx(np.mean(right))
    assert first["accuracy_at_speedup"]["50"] is None and 0 <= first["accuracy_at_speedup"]["1.2"] <= 1
    (size,) = json.loads((output / "comparison.json").read_text())["batch_sizes"]
    assert [row["mode"] for row in size["baselines"]] == ["truncated to 1"]
    assert "| layer 1 alone | 1 |" in (output / "ablations.md").read_text()


def test_what_has_no_variants_is_refused(ablations: ModuleType, config: Any) -> None:
    joint = dataclasses.replace(config.settings, recipe="joint")
    with pytest.raises(UserError, match="--recipe joint: these are variants of fastbert"):
        ablations.run_ablations(dataclasses.replace(config, settings=joint))
    with pytest.raises(UserError, match="--output: name a directory"):
        ablations.run_ablations(dataclasses.replace(config, output=""))


@pytest.mark.parametrize(("layers", "expected"), [(12, (6, 3, 1)), (6, (3, 1)), (2, (1,)), (1, ())])
def test_truncations_are_the_papers_shares_of_the_layers(
    ablations: ModuleType, layers: int, expected: tuple[int, ...]
) -> None:
    assert ablations.AblationsConfig().truncations(layers) == expected


def test_the_command_line_replaces_values_of_the_file(ablations: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 7\ndistil: {epochs: 5}\n")
    words = ["--config", str(tmp_path / "a.yaml"), "--distil.epochs", "2", "--ablations", "joint", "kl"]
    settings = (ablations.AblationsConfig, ablations.Settings)
    config = read_over_file(*settings, words, program="ablations.py")
    assert (config.settings.seed, config.settings.distil.epochs) == (7, 2)
    assert config.ablations == (ablations.Ablation.JOINT, ablations.Ablation.KL)
    with pytest.raises(UserError, match="--table-speeds: expected thresholds in"):
        read_over_file(*settings, ["--table-speeds", "2"], program="ablations.py")

"""The card beside a run's model: true before and after the measurement, and no part of what checksums hold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import fastbert_jax
from fastbert_jax.atomic_files import write_checksums
from fastbert_jax.config import DataConfig, TrainConfig
from fastbert_jax.config_yaml import to_yaml
from fastbert_jax.inference.predict_command import model_checksum
from fastbert_jax.training import export as module
from fastbert_jax.training.export import write_card
from fastbert_jax.training.run_directory import RunDirectory, verify_run
from tests.inference.saved import save_tiny_model
from tests.report.comparisons import COMPARISON


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose model is saved and was not measured."""
    run = RunDirectory(tmp_path / "reviews")
    save_tiny_model(run.model)
    write_checksums(run.model)
    run.config.write_text(to_yaml(TrainConfig()))
    return run


def card_of(run: RunDirectory) -> str:
    return (run.model / "README.md").read_text(encoding="utf-8")


def test_it_is_true_before_and_after_the_measurement_and_so_are_the_checksums(run):
    before = model_checksum(run.path)
    write_card(run)
    assert "has not been measured on test texts" in card_of(run) and "## How well" not in card_of(run)
    assert verify_run(run.path).endswith("whole: model") and model_checksum(run.path) == before
    run.comparison.write_text(json.dumps(COMPARISON.to_json()))
    write_card(run)
    assert "**Note: this model at full depth (accuracy 0.9700) answers 8 fewer of 2189 texts" in card_of(run)
    assert "| speed 0.5 | 0.9651 (0.9566 to 0.9720) |" in card_of(run) and "has not been measured" not in card_of(run)
    assert verify_run(run.path).endswith("whole: model") and model_checksum(run.path) == before


def test_a_model_of_one_exit_does_not_claim_early_exit(run):
    write_card(run)
    assert "easy texts cost a fraction of BERT" in card_of(run)
    shutil.rmtree(run.model)
    save_tiny_model(run.model, num_layers=3, exit_layers=(3,))
    write_card(run)
    assert "All texts run all layers." in card_of(run) and "easy texts" not in card_of(run)


def test_its_code_finds_the_exits_where_a_run_keeps_them(run, monkeypatch):
    write_card(run)
    card = card_of(run)
    assert card.split("---\n")[2].startswith("\n# reviews\n") and "exits are in `model.safetensors`" in card
    whole, _, ours, numbers = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(run.path)
    names: dict = {}
    exec(f"{whole}\n{ours}\n{numbers.splitlines()[0]}", names)
    [hidden_LxSxH] = fastbert_jax.load(run.path).hidden_states(["a text"])
    logits_N = names["exit_logits"](names["config"], names["tensors"], 1, np.asarray(hidden_LxSxH[1]))
    probabilities_N = np.exp(logits_N) / np.exp(logits_N).sum()
    expected_LxN = names["classifier"].exit_probabilities(["a text"])[0]
    np.testing.assert_allclose(probabilities_N, expected_LxN[0], atol=1e-5)


def test_nobody_is_told_to_load_another_layer_norm_with_transformers(run):
    config = json.loads((run.model / "config.json").read_text())
    (run.model / "config.json").write_text(json.dumps(config | {"layer_norm": "unbiased"}))
    write_card(run)
    assert "transformers would load it but compute wrong results" in card_of(run)
    assert "AutoModel" not in card_of(run) and "fastbert_jax.load" in card_of(run)


def test_a_full_disk_is_the_users_to_mend_and_leaves_the_card_before(run, monkeypatch):
    write_card(run)
    before = card_of(run)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_card(run)
    assert card_of(run) == before


def test_names_in_it_are_no_markup(run, tmp_path):
    labels = ("</script><b>", "```", "a|b & c")
    named = RunDirectory(tmp_path / "<script>`x`|y")
    save_tiny_model(named.model, labels=labels)
    data = DataConfig(train="a`</script>`|b.tsv", dev="dev.tsv")
    named.config.write_text(to_yaml(TrainConfig(data=data)))
    write_card(named)
    card = card_of(named)
    assert "<script" not in card and "</script" not in card and "```\n" in card
    (block,) = re.findall(r"in the order of the logits:\n\n```json\n(.*?)```", card, re.DOTALL)
    assert json.loads(block) == list(labels)
    (row,) = re.findall(r"^[|] train .*$", card, re.MULTILINE)
    assert len(re.findall(r"(?<!\\)[|]", row)) == 4 and "| `dev.tsv` |" in card

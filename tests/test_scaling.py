"""The arithmetic of benchmarks/scaling.py, whose tables docs/scaling.md shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scaling
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.flops import Count, forward_flops, text_flops


def test_minilm_has_its_own_shape(minilm_directory: Path) -> None:
    found = read_bert_config(minilm_directory, num_classes=2, exit_size=128, exit_heads=2)
    assert found == scaling.MODELS["MiniLM"]


def test_parameters_are_counted() -> None:
    # BERT-base's published 110 million include a pooler of 768 x 769, which we do not have.
    assert scaling.sizes(scaling.MODELS["BERT-base"]).backbone == 109_482_240 - 768 * 769
    minilm = scaling.sizes(scaling.MODELS["MiniLM"])
    assert minilm.lower_exits == 5 * minilm.last_exit


def test_time_follows_utilisation_and_chips() -> None:
    model = scaling.MODELS["BERT-base"]
    whole = scaling.seconds(model, 0.5)
    assert scaling.seconds(model, 0.25) == pytest.approx(2 * whole)
    assert scaling.seconds(model, 0.5, chips=8) == pytest.approx(32 * whole)
    flops = whole * 0.5 * 256 * 197e12
    # Twice the encoder's 85 million weights per token, and attention and exits.
    assert 1.0 < flops / (2 * 85e6 * 1e9 * 23.6 / 0.96) < 1.2


def test_the_price_of_a_chip_follows_its_flops_and_its_list_price() -> None:
    model = scaling.MODELS["BERT-base"]
    hours = 256 * scaling.seconds(model, scaling.TYPICAL_UTILISATION) / 3600
    flops = scaling.row_flops(model) * scaling.rows() / scaling.TEXTS
    [v5e] = scaling.dollars(flops, "TPU v5e")
    assert v5e == pytest.approx(hours * scaling.DOLLARS["TPU v5e"]["Google"])
    assert min(scaling.dollars(flops, "H200")) == pytest.approx(v5e * 197 / 989 * 3.5 / 1.2)


def test_early_exit_pays_for_its_layers_and_their_exits() -> None:
    model = scaling.MODELS["MiniLM"]
    network = Bert(model)
    length = scaling.ANSWERED_LENGTH
    assert scaling.answer_flops(model, 6, 1) == forward_flops(network, length)
    assert scaling.answer_flops(model, 2, 2) == text_flops(Count.TRUE, network, length, 2)
    assert scaling.early_share() * model.num_layers == pytest.approx(2.15, abs=0.01)


def test_memory_is_not_what_limits_a_chip() -> None:
    assert 0 < scaling.traffic_share() < 1, "docs/scaling.md says so, and prices arithmetic alone"


def test_every_device_of_a_mesh_holds_its_share() -> None:
    model = scaling.MODELS["BERT-large"]
    backbone, lower_exits, last_exit = scaling.sizes(model)
    assert scaling.device_parameters(model, (8, 1, 1)) == (backbone + last_exit, lower_exits)
    trained, _ = scaling.device_parameters(model, (1, 8, 1))
    assert backbone / 8 < trained < backbone / 8 * 1.02


def test_a_measured_utilisation_is_read_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "distillation.json"
    assert scaling.measured_utilisation("MiniLM", path) is None
    cases = {"MiniLM": {"utilisation": {"median": 0.31, "low": 0.3, "high": 0.32}}, "BERT-base": {"utilisation": None}}
    path.write_text(json.dumps({"cases": cases, "device": "TPU v5 lite (x86_64, Linux)"}))
    assert scaling.measured_utilisation("MiniLM", path) == (0.31, "TPU v5 lite (x86_64, Linux)")
    assert scaling.measured_utilisation("BERT-base", path) is None
    assert scaling.measured_utilisation("BERT-large", path) is None

"""The arithmetic behind docs/scaling.md: the page is what the script prints, and its short cuts are the code's."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastbert_jax.model.config_json import read_bert_config

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "benchmarks" / "scaling.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_prints(scaling: ModuleType) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in scaling.tables():
        assert table in page, f"docs/scaling.md: expected what benchmarks/scaling.py prints:\n{table}"
    for assumption in (f"{scaling.MEAN_TOKENS}", f"{scaling.REAL_TOKENS:.0%}", "$1.20", "197"):
        assert assumption in page


def test_minilm_has_its_own_shape(scaling: ModuleType, minilm_directory: Path) -> None:
    found = read_bert_config(minilm_directory, num_classes=2, exit_size=128, exit_heads=2)
    assert found == scaling.MODELS["MiniLM"]


def test_parameters_are_counted(scaling: ModuleType) -> None:
    # BERT-base's published 110 million hold a pooler of 768 x 769, which the exits stand in for.
    assert scaling.sizes(scaling.MODELS["BERT-base"]).backbone == 109_482_240 - 768 * 769
    students = scaling.sizes(scaling.MODELS["MiniLM"])
    assert students.students == 5 * students.teacher


def test_time_goes_by_utilisation_and_chips(scaling: ModuleType) -> None:
    model = scaling.MODELS["BERT-base"]
    whole = scaling.seconds(model, 0.5)
    assert scaling.seconds(model, 0.25) == pytest.approx(2 * whole)
    assert scaling.seconds(model, 0.5, chips=8) == pytest.approx(32 * whole)
    done = whole * 0.5 * 256 * 197e12
    # Twice the encoder's 85 million weights per token, attention and exits on top.
    assert 1.0 < done / (2 * 85e6 * 1e9 * 23.6 / 0.96) < 1.2


def test_whole_meshes_share_everything_that_they_can(scaling: ModuleType) -> None:
    model = scaling.MODELS["BERT-large"]
    backbone, students, teacher = scaling.sizes(model)
    assert scaling.device_parameters(model, (8, 1, 1)) == (backbone + teacher, students)
    trained, _ = scaling.device_parameters(model, (1, 8, 1))
    assert backbone / 8 < trained < backbone / 8 * 1.02


def test_a_measured_utilisation_is_read_where_there_is_one(scaling: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "distillation.json"
    assert scaling.measured_utilisation("MiniLM", path) is None
    cases = {"MiniLM": {"utilisation": {"median": 0.31, "low": 0.3, "high": 0.32}}, "BERT-base": {"utilisation": None}}
    path.write_text(json.dumps({"cases": cases, "device": "TPU v5 lite (x86_64, Linux)"}))
    assert scaling.measured_utilisation("MiniLM", path) == (0.31, "TPU v5 lite (x86_64, Linux)")
    assert scaling.measured_utilisation("BERT-base", path) is None
    assert scaling.measured_utilisation("BERT-large", path) is None

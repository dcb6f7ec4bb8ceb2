"""The examples in the docstrings of the public names give what they show."""

from __future__ import annotations

import doctest
import functools
from pathlib import Path

import pytest

import fastbert_jax
from fastbert_jax.inference import loading, prediction, predictor
from tests.inference.saved import save_tiny_model

PUBLIC = ("Prediction", "Predictor", "load")
METHODS = ("predict", "exit_probabilities", "hidden_states", "warm_up")


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model where the examples look for one."""
    save_tiny_model(tmp_path / "runs" / "demo" / "model", labels=("bad", "good"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", functools.cache(loading.load))  # one model compiles for all examples


def test_the_examples_give_what_they_show(run_directory: None) -> None:
    modules = (loading, prediction, predictor)
    found = [doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE) for module in modules]
    assert [failed for failed, _ in found] == [0, 0, 0] and sum(tried for _, tried in found) > 20


def test_every_public_name_has_an_example() -> None:
    methods = [getattr(fastbert_jax.Predictor, name) for name in METHODS]
    for documented in (*(getattr(fastbert_jax, name) for name in PUBLIC), *methods):
        assert ">>> " in documented.__doc__, documented

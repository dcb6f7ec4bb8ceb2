"""The examples in the docstrings of the public names give what they show, and those of the pages run."""

from __future__ import annotations

import doctest
import functools
from pathlib import Path

import pytest

import fastbert_jax
from fastbert_jax.inference import loading, prediction, predictor
from tests.inference.saved import save_tiny_model
from tests.pages import FENCED, PAGES, ROOT

PUBLIC = ("Prediction", "Predictor", "load")
METHODS = ("predict", "exit_probabilities", "hidden_states", "warm_up")
EXAMPLES = [
    (str(page.relative_to(ROOT)), body)
    for page in PAGES
    for _, language, body in FENCED.findall(page.read_text(encoding="utf-8"))
    if language == "python" and body.startswith("import fastbert_jax\n")
]
"""Those of docs/model_format.md are tests/model/test_model_format.py's."""


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model where the examples look for one."""
    for run in ("demo", "mine", "movie_reviews"):
        save_tiny_model(tmp_path / "runs" / run / "model", labels=("good", "bad"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(predictor.Predictor.warm_up.__kwdefaults__, "batch_tokens", 32)  # so that little is compiled
    monkeypatch.setattr(loading, "load", functools.cache(loading.load))  # one model compiles for all examples


def test_the_examples_give_what_they_show(run_directory: None) -> None:
    modules = (loading, prediction, predictor)
    found = [doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE) for module in modules]
    assert [failed for failed, _ in found] == [0, 0, 0] and sum(tried for _, tried in found) > 20


@pytest.mark.parametrize(
    ("page", "example"),
    [pytest.param(*one, marks=[pytest.mark.slow] if "warm_up" in one[1] else []) for one in EXAMPLES],
)
def test_the_examples_of_the_pages_run(
    page: str, example: str, run_directory: None, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example, page, "exec"), {})
    assert ("print(" in example) == bool(capsys.readouterr().out)


def test_every_public_name_has_an_example() -> None:
    methods = [getattr(fastbert_jax.Predictor, name) for name in METHODS]
    for documented in (*(getattr(fastbert_jax, name) for name in PUBLIC), *methods):
        assert ">>> " in documented.__doc__, documented

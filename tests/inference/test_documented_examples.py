"""The examples in the docstrings of the public names give what they show, and those of the pages run."""

from __future__ import annotations

import contextlib
import csv
import doctest
import functools
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastbert_jax
from fastbert_jax.config import DistilConfig, EvaluateConfig, FineTuneConfig, ModelConfig
from fastbert_jax.inference import loading, prediction, predictor
from fastbert_jax.model.config_json import CONFIGS
from fastbert_jax.model.networks import NETWORKS
from fastbert_jax.text.sources import COLLECTIONS
from tests.inference.saved import save_tiny_model, some_texts
from tests.pages import FENCED, PAGES, ROOT

PUBLIC = ("Prediction", "Predictor", "load")
METHODS = ("predict", "exit_probabilities", "hidden_states", "warm_up")
BLOCKS = [
    (str(page.relative_to(ROOT)), body)
    for page in PAGES
    for _, language, body in FENCED.findall(page.read_text(encoding="utf-8"))
    if language == "python"
]
EXAMPLES = [block for block in BLOCKS if block[1].startswith("import fastbert_jax\n")]
"""Those of docs/model_format.md are tests/model/test_model_format.py's."""
MODULES = {body.split()[1]: body for _, body in BLOCKS if body.split("\n")[0].endswith(".py")}
"""Files that a page asks to save, by the name in their first line."""
SLOW = ("warm_up", "import focal", "sqlite3")
LITTLE = {
    ModelConfig: {"pretrained": "random", "num_layers": 2, "hidden_size": 16, "vocab_size": 60, "exit_size": 8},
    FineTuneConfig: {"epochs": 1},
    DistilConfig: {"epochs": 1},
    EvaluateConfig: {"repeats": 1, "speeds": (), "modes": ()},
}
"""Examples that train do it with little, whatever the defaults are."""


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model where the examples look for one, texts to train on, and the modules of the pages."""
    for run in ("demo", "mine", "movie_reviews"):
        save_tiny_model(tmp_path / "runs" / run / "model", labels=("good", "bad"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(predictor.Predictor.warm_up.__kwdefaults__, "batch_tokens", 32)  # so that little is compiled
    monkeypatch.setattr(loading, "load", functools.cache(loading.load))  # one model compiles for all examples
    rows = [(text, ("good", "bad")[number % 2]) for number, text in enumerate(some_texts(60))]
    with open("mine.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    with contextlib.closing(sqlite3.connect("tickets.db")) as database, database:
        database.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, text, label, split)")
        splits = [(*row, "test" if number < 20 else "train") for number, row in enumerate(rows)]
        database.executemany("INSERT INTO tickets (text, label, split) VALUES (?, ?, ?)", splits)
    for settings, values in LITTLE.items():
        for name, value in values.items():
            monkeypatch.setitem(settings.__init__.__kwdefaults__, name, value)
    for name, body in MODULES.items():
        Path(name).write_text(body, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    registries = [(registry, dict(registry)) for registry in (CONFIGS, NETWORKS, COLLECTIONS)]
    yield
    for registry, before in registries:
        registry.clear()
        registry.update(before)


def test_the_examples_give_what_they_show(run_directory: None) -> None:
    modules = (loading, prediction, predictor)
    found = [doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE) for module in modules]
    assert [failed for failed, _ in found] == [0, 0, 0] and sum(tried for _, tried in found) > 20


@pytest.mark.parametrize(
    ("page", "example"),
    [pytest.param(*one, marks=[pytest.mark.slow] if any(map(one[1].__contains__, SLOW)) else []) for one in EXAMPLES],
)
def test_the_examples_of_the_pages_run(
    page: str, example: str, run_directory: None, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example, page, "exec"), {})
    assert "print(" not in example or capsys.readouterr().out.strip()


def test_every_public_name_has_an_example() -> None:
    methods = [getattr(fastbert_jax.Predictor, name) for name in METHODS]
    for documented in (*(getattr(fastbert_jax, name) for name in PUBLIC), *methods):
        assert ">>> " in documented.__doc__, documented

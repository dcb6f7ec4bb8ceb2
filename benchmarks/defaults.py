"""Which learning rates, epochs and direction of the KL are best on dev, over data sets of different size and kind.

    python benchmarks/defaults.py --output benchmarks/results/defaults.json

Every fine-tuning begins from the same pretrained backbone, on `texts` training texts of a set, spread evenly, and is
measured at full depth on its dev texts; `few` is the same with few texts. Every distillation begins from the best of
a set's fine-tunings; what counts is the speedup in FLOPs at which early exit has lost half a point on dev, and one
point. No test text is read. The result is written after every training, and a training that it has is not repeated.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from fastbert_jax import recipes
from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, DistilConfig, EvaluateConfig, FineTuneConfig, KLDirection, ModelConfig
from fastbert_jax.inference.compare import evenly
from fastbert_jax.recipes.fastbert import Settings as Run
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.text.examples import Example
from fastbert_jax.text.labelled_data import read_labelled_data
from measured import publish


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Train with several settings, and measure each on dev."""

    pretrained: str = "builtin:minilm"
    """The backbone."""
    sets: tuple[str, ...] = ("movie_reviews", "reuters_r8", "newsgroups", "reuters_r52")
    """Names of built-in sets."""
    texts: int = 1500
    """Training texts of a set."""
    dev_texts: int = 1000
    """At most so many dev texts."""
    few: int = 300
    """Training texts, where there are few."""
    few_sets: tuple[str, ...] = ("movie_reviews", "newsgroups")
    """The sets of which few texts are taken, too."""
    max_length: int = 48
    """Tokens of a text."""
    rates: tuple[float, ...] = (2e-5, 5e-5, 1e-4, 2e-4)
    """Learning rates of fine-tuning."""
    epochs: int = 3
    """Of fine-tuning on `texts`."""
    few_rates: tuple[float, ...] = (1e-4, 2e-4)
    """The same on `few` texts."""
    few_epochs: tuple[int, ...] = (3, 10, 20)
    """The same on `few` texts."""
    distil_rates: tuple[float, ...] = (2e-4, 1e-3)
    """Learning rates of distillation."""
    distil_epochs: int = 5
    """Of distillation."""
    runs: str = ""
    """Directory of the runs, which are then kept; empty: none is."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Train, measure, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    path = Path(settings.output) if settings.output else None
    known = json.loads(path.read_text(encoding="utf-8"))["trainings"] if path and path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(settings.runs or folder)
        for name, run in trainings(settings, runs, known):
            comparison = None if name in known else recipes.train(run)
            if comparison is not None:
                known[name] = measured(run, comparison)
                publish({"trainings": known}, settings)
                jax.clear_caches()


def trainings(settings: Settings, runs: Path, known: dict[str, Any]) -> Iterator[tuple[str, Run]]:
    """Names and settings of all trainings; those of a set's distillations are known when its fine-tunings are done."""
    grids: list[tuple[Sequence[str], int, Sequence[float], Sequence[int]]] = [
        (settings.sets, settings.texts, settings.rates, (settings.epochs,)),
        (settings.few_sets, settings.few, settings.few_rates, settings.few_epochs),
    ]
    for sets, texts, rates, epochs in grids:
        for name, rate, passes in itertools.product(sets, rates, epochs):
            label = f"{name}, {texts} texts, fine-tune {passes} epochs at {rate:g}"
            phases = {
                "fine_tune": FineTuneConfig(epochs=passes, learning_rate=rate),
                "distil": DistilConfig(epochs=0),
            }
            yield (
                label,
                run_of(settings, runs / label, name, texts, ModelConfig(pretrained=settings.pretrained), phases),
            )
    for name, kl, rate in itertools.product(settings.sets, KLDirection, settings.distil_rates):
        begins = f"{name}, {settings.texts} texts, fine-tune"
        best = max((one for one in known if one.startswith(begins)), key=lambda one: known[one]["accuracy"])
        label = f"{name}, {settings.texts} texts, distil {settings.distil_epochs} epochs at {rate:g}, {kl.value}"
        phases = {
            "fine_tune": FineTuneConfig(epochs=0),
            "distil": DistilConfig(epochs=settings.distil_epochs, learning_rate=rate, kl=kl),
        }
        yield (
            label,
            run_of(
                settings,
                runs / label,
                name,
                settings.texts,
                ModelConfig(pretrained=str(runs / best), keep_exits=True),
                phases,
            ),
        )


def run_of(settings: Settings, run: Path, name: str, texts: int, model: ModelConfig, phases: dict[str, Any]) -> Run:
    """A run on some of a set's training texts, measured on its dev texts."""
    spec = f"builtin:{name}"
    data = read_labelled_data(DataConfig(train=spec))
    files = {role: run.parent / f"{name}-{role}-{texts}.jsonl" for role in ("train", "dev")}
    run.parent.mkdir(parents=True, exist_ok=True)
    write(files["train"], [data.train[i] for i in evenly(len(data.train), texts)])
    write(files["dev"], [data.dev[i] for i in evenly(len(data.dev), settings.dev_texts)])
    return Run(
        run=str(run),
        data=DataConfig(
            train=str(files["train"]),
            dev=str(files["dev"]),
            test=str(files["dev"]),
            labels=data.labels,
            max_length=settings.max_length,
            length_buckets=(24, settings.max_length),
        ),
        model=model,
        evaluate=EvaluateConfig(speeds=(), modes=(), baseline=False, repeats=1),
        **phases,
    )


def write(path: Path, examples: Sequence[Example]) -> None:
    """Texts and labels as JSON lines."""
    lines = (json.dumps({"text": example.text, "label": example.label}) + "\n" for example in examples)
    path.write_text("".join(lines), encoding="utf-8")


def measured(run: Run, comparison: Comparison) -> dict[str, Any]:
    """Accuracy at full depth on dev; the highest speedup in FLOPs with half a point lost at most, and with one."""
    full = comparison.curve[0]
    found = {"accuracy": full.accuracy, "texts": comparison.texts, "exits": [one.accuracy for one in comparison.exits]}
    for points in (0.5, 1.0):
        kept = [one.true_speedup for one in comparison.curve if one.accuracy >= full.accuracy - points / 100 - 1e-9]
        found[f"speedup at {points:g} lost"] = max(kept)
    return found


if __name__ == "__main__":
    end_with(main)

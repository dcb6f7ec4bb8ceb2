"""How much of the promised speedup the engines deliver.

    python benchmarks/engine_efficiency.py --model runs/movie_reviews --data builtin:movie_reviews#test --speed 0.25
    python benchmarks/engine_efficiency.py --model random --texts 512 --length 64 --repeats 5
    python benchmarks/engine_efficiency.py --model random --data builtin:movie_reviews#test --modes bucketed auto

Efficiency is the wall-clock speedup over full depth divided by L / mean depth. Every repeat times full depth and each
engine in turn, in one process, after all programs are compiled; tokenizing is left out, the host's loops are not.

A text counts as one in the mean depth, however long it is. Where long texts leave later than short ones, as they do in
movie_reviews, even an engine that loses nothing has an efficiency below 1: `efficiency_by_tokens` is by the mean depth
of padded tokens instead, which is what a layer's time goes by.

`random` is random weights (BERT-base's size unless told otherwise) on random tokens, or on the texts of `--data` as
MiniLM's tokenizer cuts them, with one threshold per layer at which half of the texts that come there leave: exits of a
geometric distribution.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, Mode, Precision
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.plan import BatchedTexts, plan_batches
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from measured import publish, random_config, random_model, random_tokens, ratio

RANDOM = "random"
MINILM = "builtin:minilm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the efficiency of the engines."""

    model: str
    """Directory of a run, or `random`."""
    data: str = ""
    """SPEC of the texts; `random` needs none."""
    output: str = ""
    """JSON file of the result; empty: print it only."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = 0
    """Tokens per batch, padding included; 0: as many as suit the device."""
    texts: int = 1024
    """Texts to time, spread evenly over the data; 0: all."""
    copies: int = 1
    """Take every text so many times, for a larger input."""
    speed: float | None = None
    """Speed to measure; none: the one whose mean depth is nearest to a third of the layers. Not for `random`."""
    length: int = 64
    """random only: tokens of every random text, or of the longest one of `data`."""
    random_layers: int = 12
    """random only: layers."""
    random_hidden_size: int = 768
    """random only: width."""
    precision: Precision = Precision.FLOAT32
    """random only: of the arithmetic."""
    modes: tuple[Mode, ...] = (Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE)
    """Engines to measure."""
    repeats: int = 7
    """Interleaved repeats; the median counts."""


class Case(NamedTuple):
    """What is timed: a model, its batches, and a speed, one number or one per layer."""

    predictor: Predictor
    plan: BatchedTexts
    speed: float | np.ndarray


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    case = random_case(settings) if settings.model == RANDOM else trained_case(settings)
    publish(measure(case, settings), settings)


def trained_case(settings: Settings) -> Case:
    """A model of `train.py` on real texts."""
    if not settings.data:
        raise UserError("data: expected the SPEC of texts, found none")
    predictor = load(settings.model)
    plan = plan_of_data(predictor, settings)
    if settings.speed is not None:
        return Case(predictor, plan, settings.speed)
    uncertainty_LxB = predictor.all_exits(plan)[1].T
    speeds = np.geomspace(1e-6, 1, 1000)
    depths = np.array([1 + exit_indices(uncertainty_LxB, speed).mean() for speed in speeds])
    return Case(predictor, plan, float(speeds[abs(depths - predictor.config.num_layers / 3).argmin()]))


def plan_of_data(predictor: Predictor, settings: Settings) -> BatchedTexts:
    """The batches of real texts."""
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)] * settings.copies
    return predictor.plan(texts, batch_size=settings.batch_size, batch_tokens=settings.batch_tokens)


def random_case(settings: Settings) -> Case:
    """Random weights; each layer's threshold lets half of those who come leave."""
    config = random_config(layers=settings.random_layers, hidden_size=settings.random_hidden_size)
    if settings.data:
        lengths = DataConfig(max_length=settings.length).lengths
        tokenizer = load_tokenizer(pretrained_directory(MINILM))
        predictor = random_model(config, lengths=lengths, tokenizer=tokenizer, precision=settings.precision).predictor
        plan = plan_of_data(predictor, settings)
    else:
        number, lengths = settings.texts or 1024, (settings.length,)
        encoded = random_tokens(config, texts=number, length=settings.length)
        predictor = random_model(config, lengths=lengths, precision=settings.precision).predictor
        sizes = {"batch_size": settings.batch_size, "batch_tokens": settings.batch_tokens}
        plan = plan_batches(encoded, lengths=lengths, **sizes)
    speed, staying = [], np.ones(plan.texts, bool)
    for uncertainty in predictor.all_exits(plan)[1].T:
        speed.append(np.median(uncertainty[staying]) if staying.any() else 1.0)
        staying &= uncertainty >= speed[-1]
    return Case(predictor, plan, np.array(speed))


def measure(case: Case, settings: Settings) -> dict:
    """What is published, as plain values."""
    predictor, plan, speed = case
    runs = [functools.partial(predictor.answers, plan, speed=0.0, mode=settings.modes[0])]
    runs += [functools.partial(predictor.answers, plan, speed=speed, mode=mode) for mode in settings.modes]
    for run in runs:
        answers = run()
    mean_depth, layers = float(answers.exit_layer_B.mean()), predictor.config.num_layers
    depth_of_tokens = float(np.average(answers.exit_layer_B, weights=plan.padded_lengths))
    full, *early = interleaved_times(runs, settings.repeats)
    speedups = [ratio(full, own) for own in early]
    lengths, counts = np.unique(plan.padded_lengths, return_counts=True)
    return {
        "engines": {
            mode.value: {
                "efficiency": speedup["median"] * mean_depth / layers,
                "efficiency_by_tokens": speedup["median"] * depth_of_tokens / layers,
                "speedup": speedup,
            }
            for mode, speedup in zip(settings.modes, speedups, strict=True)
        },
        "noise": Spread.of(full).relative,
        "mean_depth": mean_depth,
        "mean_depth_of_tokens": depth_of_tokens,
        "layers": layers,
        "speed": np.asarray(speed).tolist(),
        "texts_by_exit_layer": np.bincount(answers.exit_layer_B, minlength=layers + 1)[1:].tolist(),
        "padding_share": plan.padding_share,
        "texts_by_padded_length": dict(zip(map(int, lengths), map(int, counts), strict=True)),
        "compiled_programs": predictor.compiled_programs,
    }


if __name__ == "__main__":
    end_with(main)

"""How much of the promised speedup the engines deliver at a mean depth near a third of the layers.

    python benchmarks/engine_efficiency.py --model runs/demo --data builtin:reuters_r8#test --output OUT.json

Efficiency is the wall-clock speedup over full depth divided by L / mean depth. Every repeat times full depth and each
engine in turn, in one process, after all programs are compiled; tokenizing is left out, the host's loops are not.
`--model synthetic` measures random weights of MiniLM's size, with thresholds at which half of the texts leave at every
layer: for work on the engine where no trained model is at hand.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BATCH_TOKENS, BertConfig, DataConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.plan import Plan, plan_batches
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.timing import evenly, interleaved_times
from fastbert_jax.model.fastbert import init_params
from fastbert_jax.report.metrics import Spread
from fastbert_jax.text.sources import read_examples
from measured import VOCABULARY, publish, random_tokens, ratio

SYNTHETIC = "synthetic"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the efficiency of the engines."""

    model: str
    """Directory of a run, or `synthetic`."""
    data: str = ""
    """SPEC of the texts; not for `synthetic`."""
    output: str = ""
    """JSON file of the result; empty: print it only."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, padding included."""
    texts: int = 1024
    """Texts to time, spread evenly over the data; 0: all."""
    length: int = 64
    """synthetic only: tokens of every text."""
    modes: tuple[Mode, ...] = (Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE)
    """Engines to measure."""
    repeats: int = 7
    """Interleaved repeats; the median counts."""


class Case(NamedTuple):
    """What is timed: a model, its batches, and a speed, one number or one per layer."""

    predictor: Predictor
    plan: Plan
    speed: float | np.ndarray


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    case = synthetic_case(settings) if settings.model == SYNTHETIC else trained_case(settings)
    publish(measure(case, settings), settings)


def trained_case(settings: Settings) -> Case:
    """A model of `train.py` at the speed whose mean depth is nearest to a third of its layers."""
    if not settings.data:
        raise UserError("data: expected the SPEC of texts, found none")
    predictor = load(settings.model)
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    plan = predictor.plan(texts, batch_size=settings.batch_size, batch_tokens=settings.batch_tokens)
    uncertainty_LxB = predictor.all_exits(plan)[1].T
    speeds = np.geomspace(1e-6, 1, 1000)
    depths = np.array([1 + exit_indices(uncertainty_LxB, speed).mean() for speed in speeds])
    return Case(predictor, plan, float(speeds[abs(depths - predictor.config.num_layers / 3).argmin()]))


def synthetic_case(settings: Settings) -> Case:
    """Random weights of MiniLM's size and random tokens; each layer's threshold lets half of those who come leave."""
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=384, num_layers=6, num_heads=12, feed_forward_size=1536)
    params = init_params(config, jax.random.key(0))
    number, length = settings.texts or 1024, settings.length
    encoded = random_tokens(config, texts=number, length=length)
    predictor = Predictor(params, config, None, labels=("a", "b"), max_length=length, length_buckets=(length,))
    plan = plan_batches(encoded, lengths=(length,), batch_size=settings.batch_size, batch_tokens=settings.batch_tokens)
    speed, staying = [], np.ones(number, bool)
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
    full, *early = interleaved_times(runs, settings.repeats)
    speedups = [ratio(full, own) for own in early]
    lengths, counts = np.unique(plan.padded_lengths, return_counts=True)
    return {
        "engines": {
            mode.value: {"efficiency": speedup["median"] * mean_depth / layers, "speedup": speedup}
            for mode, speedup in zip(settings.modes, speedups, strict=True)
        },
        "noise": Spread.of(full).relative,
        "mean_depth": mean_depth,
        "layers": layers,
        "speed": np.asarray(speed).tolist(),
        "texts_by_exit_layer": np.bincount(answers.exit_layer_B, minlength=layers + 1)[1:].tolist(),
        "padding_share": plan.padding_share,
        "texts_by_padded_length": dict(zip(map(int, lengths), map(int, counts), strict=True)),
        "compiled_programs": predictor.compiled_programs,
    }


if __name__ == "__main__":
    end_with(main)

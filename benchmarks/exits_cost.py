"""What the exits cost when no text exits early: every layer and every exit, over every layer and the last exit alone.

    python benchmarks/exits_cost.py --output benchmarks/results/exits_cost.json

Two models: a trained one on real texts, and random weights of BERT-base's size. For each engine, speed 1e-30, at which
every exit is asked and none is sure, over speed 0, plain BERT; and, without any engine, one program that scans all
layers with all exits over one that scans them without. All take turns in one process, after all has compiled.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, Mode
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.inference.engines.runtime import ExitResult
from fastbert_jax.inference.plan import BatchedTexts, plan_batches
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.sources import read_examples
from measured import Model, publish, random_config, random_model, random_tokens, ratio, trained_model

NEVER_SURE = 1e-30
"""A speed above 0, so that exits are asked, and below every uncertainty that float32 entropy gives but 0 itself."""
PURE = "one program"
"""The name of the ratio that no engine has a part in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure what exits cost when no text leaves."""

    model: str = "runs/movie_reviews"
    """Directory of a run."""
    data: str = "builtin:movie_reviews#test"
    """SPEC of its texts."""
    texts: int = 256
    """Texts to time, spread evenly over the data; 0: all."""
    batch_tokens: int = 0
    """Tokens per batch, padding included; 0: as many as suit the device."""
    random_layers: int = 12
    """Layers of the random model."""
    random_hidden_size: int = 768
    """Width of the random model."""
    random_texts: int = 8
    """Texts for the random model, in batches of 4."""
    random_length: int = 128
    """Tokens of each of them."""
    modes: tuple[Mode, ...] = tuple(Mode)
    """Engines to measure."""
    repeats: int = 7
    """Interleaved repeats; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    publish({"trained": trained(settings), "random": random(settings)}, settings)


def trained(settings: Settings) -> dict:
    """A model of `train.py` on real texts."""
    model = trained_model(settings.model)
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    plan = model.predictor.plan(texts, batch_tokens=settings.batch_tokens)
    return measure(model, plan, settings, at_most=1.05)


def random(settings: Settings) -> dict:
    """Random weights and random tokens."""
    config = random_config(layers=settings.random_layers, hidden_size=settings.random_hidden_size)
    length = settings.random_length
    encoded = random_tokens(config, texts=settings.random_texts, length=length)
    plan = plan_batches(encoded, lengths=(length,), batch_size=4)
    return measure(random_model(config, lengths=(length,)), plan, settings, at_most=1.03)


def measure(model: Model, plan: BatchedTexts, settings: Settings, *, at_most: float) -> dict:
    """The ratios of one model. The times of one repeat stand for the whole plan."""
    predictor, runtime, _ = model
    batches = plan.batches
    runs = [
        functools.partial(in_turn, runtime.full_depth, batches),
        functools.partial(in_turn, runtime.all_exits, batches),
        functools.partial(predictor.answers, plan, speed=0.0, mode=settings.modes[0]),  # in all modes the same
    ]
    for mode in settings.modes:
        runs.append(functools.partial(predictor.answers, plan, speed=NEVER_SURE, mode=mode))
        left = int((runs[-1]().exit_layer_B < predictor.config.num_layers).sum())
        if left:
            raise RuntimeError(f"expected every text to go through all layers by {mode.value}, found {left} that left")
    for run in runs:
        run()
    pure, pure_with_exits, full, *engines = interleaved_times(runs, settings.repeats)
    return {
        "over_full_depth": {
            PURE: ratio(pure_with_exits, pure),
            **{mode.value: ratio(own, full) for mode, own in zip(settings.modes, engines, strict=True)},
        },
        "wanted_at_most": at_most,
        "noise": Spread.of(full).relative,
        "layers": predictor.config.num_layers,
        "hidden_size": predictor.config.hidden_size,
        "texts": plan.texts,
        "batches": sorted({batch.text_BxS.shape for batch in batches}, key=lambda shape: shape[::-1]),
        "padding_share": plan.padding_share,
    }


def in_turn(program: Callable[[Batch], ExitResult], batches: Sequence[Batch]) -> None:
    """Run a program on each batch, waiting for its answer."""
    for batch in batches:
        jax.block_until_ready(program(batch))


if __name__ == "__main__":
    end_with(main)

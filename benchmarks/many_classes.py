"""Which exit policy lets most texts exit early where there are many classes.

    python train.py --config configs/reuters_r8.yaml --run runs/reuters_r52 --data.train builtin:reuters_r52
    python benchmarks/many_classes.py --model runs/reuters_r52 --dev builtin:reuters_r52#dev \
      --test builtin:reuters_r52#test --output OUT.json

For each policy, dev chooses the threshold of the least mean depth that loses at most `max_drop` points of accuracy.
Test then measures it once: accuracy, depth, and wall-clock speedup over full depth on the same batches. Full depth and
all policies take turns in one process.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, ExitConfig, Mode, PolicyName
from fastbert_jax.inference.calibrate import fastest_within
from fastbert_jax.inference.compare import evenly, interleaved_times, speedups_over_first
from fastbert_jax.inference.exit_outputs import ExitOutputs
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids
from fastbert_jax.text.sources import Role, read_examples
from measured import publish


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Compare exit policies at one loss of accuracy."""

    model: str
    """Directory of a run."""
    dev: str
    """SPEC of labelled texts that choose the thresholds."""
    test: str
    """SPEC of labelled texts that are measured with them."""
    output: str = ""
    """JSON file of the result; empty: print it only."""
    max_drop: float = 0.5
    """Points of accuracy that a policy may lose on dev."""
    policies: tuple[PolicyName, ...] = (
        PolicyName.ENTROPY,
        PolicyName.TOP_ENTROPY,
        PolicyName.MAX_PROBABILITY,
        PolicyName.MARGIN,
    )
    """Policies to compare."""
    mode: Mode = Mode.CASCADE
    """Engine that is timed."""
    batch_tokens: int = 0
    """Tokens per batch, padding included; 0: as many as suit the device."""
    timed_texts: int = 1024
    """Texts of test to time, spread evenly; 0: all."""
    repeats: int = 7
    """Interleaved repeats, every second one backwards; the median counts."""


class Labelled(NamedTuple):
    """Texts with their labels as numbers."""

    texts: list[Text]
    expected: np.ndarray


class Chosen(NamedTuple):
    """A policy with the threshold that dev chose for it."""

    policy: PolicyName
    predictor: Predictor
    dev: ExitOutputs
    threshold: float


def main() -> None:
    """Choose, measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    publish(measure(settings), settings)


def measure(settings: Settings) -> dict[str, Any]:
    """The result as plain values."""
    labels = load(settings.model).labels
    dev, test = _read(settings.dev, labels, "dev"), _read(settings.test, labels, "test")
    chosen = [_choose(settings, policy, dev) for policy in settings.policies]
    plan_of = functools.partial(chosen[0].predictor.plan, batch_tokens=settings.batch_tokens)
    timed = plan_of([test.texts[i] for i in evenly(len(test.texts), settings.timed_texts)])
    speedups, noise = _time(chosen, timed, settings)
    plan = plan_of(test.texts)
    return {
        "policies": {
            each.policy.value: _without_clock(each, dev, test, plan)
            | {"speedup": dataclasses.asdict(Spread.of(ratios))}
            for each, ratios in zip(chosen, speedups, strict=True)
        },
        "noise": dataclasses.asdict(noise),
        "layers": chosen[0].predictor.config.num_layers,
        "classes": len(labels),
        "dev_texts": len(dev.texts),
        "test_texts": len(test.texts),
        "timed_texts": timed.texts,
    }


def _read(spec: str, labels: tuple[str, ...], role: Role) -> Labelled:
    examples = read_examples(spec, DataConfig(), need_label=True, role=role).examples
    return Labelled([example.text for example in examples], label_ids(examples, labels, remedy="fix the row"))


def _choose(settings: Settings, policy: PolicyName, dev: Labelled) -> Chosen:
    predictor = load(settings.model, exits=ExitConfig(policy=policy))
    outputs = ExitOutputs.of(predictor, predictor.plan(dev.texts, batch_tokens=settings.batch_tokens))
    threshold = fastest_within(outputs, dev.expected, max_drop=settings.max_drop / 100)
    return Chosen(policy, predictor, outputs, threshold)


def _time(chosen: list[Chosen], plan: BatchedTexts, settings: Settings) -> tuple[list[list[float]], Spread]:
    """The speedups of every policy, `[policies][repeats]`, and the difference of two runs of full depth, as a share."""
    full = functools.partial(chosen[0].predictor.answers, plan, speed=0.0, mode=settings.mode)
    runs = [full]
    runs += [
        functools.partial(each.predictor.answers, plan, speed=each.threshold, mode=settings.mode) for each in chosen
    ]
    for run in runs:
        run()
    times = interleaved_times([*runs, full], settings.repeats)
    noise = Spread.of([abs(one / other - 1) for one, other in zip(times[0], times[-1], strict=True)])
    return speedups_over_first(times), noise


def _without_clock(chosen: Chosen, dev: Labelled, test: Labelled, plan: BatchedTexts) -> dict[str, Any]:
    """What needs no clock, on dev and on test; lists have one number per exit."""
    at_test = ExitOutputs.of(chosen.predictor, plan)
    asked = np.array(chosen.predictor.asked_exits)
    return {"threshold": chosen.threshold} | {
        name: {
            "full_accuracy": outputs.accuracy(0.0, expected),
            "accuracy": outputs.accuracy(chosen.threshold, expected),
            "mean_depth": outputs.mean_depth(chosen.threshold),
            "agreement": outputs.accuracy(chosen.threshold, outputs.labels_B(0.0)),
            "accuracy_of_exits": (outputs.label_LxB[asked] == expected).mean(1).tolist(),
            "median_uncertainty_of_exits": np.median(outputs.uncertainty_LxB[asked], axis=1).tolist(),
        }
        for name, outputs, expected in (("dev", chosen.dev, dev.expected), ("test", at_test, test.expected))
    }


if __name__ == "__main__":
    end_with(main)

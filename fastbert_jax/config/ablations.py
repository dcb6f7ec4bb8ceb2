"""Settings of the ablations: which variants of a run are trained, and what is measured of them."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from fastbert_jax.config.choices import Ablation, Mode
from fastbert_jax.config.shared import QuietCommand, require
from fastbert_jax.config.training import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationsConfig(QuietCommand):
    """Train a run and its variants, and tabulate what each part of FastBERT brings: the paper's tables 2 and 3.

    Variants: no self-distillation, the other KL direction, a noisy teacher, narrow and linear exits; fixed depths come
    from FastBERT's own exits, and truncated models are baselines.

    Example: python -m fastbert_jax.training.ablations --config configs/reuters_r8.yaml --output studies/reuters_r8

    Writes study.md (Table 2's form), ablations.md (Table 3's), their numbers as JSON, and SVG pictures. The variants'
    runs stay under OUTPUT/runs; the same command again goes on where it was stopped.
    """

    config: str = ""
    """YAML file of settings of the run, as train.py takes it; each can be given here too."""
    output: str = ""
    """Directory to write to."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, 0 or more, of FastBERT and of `joint`, the paper's ablation; other variants have the first one alone."""
    ablations: tuple[Ablation, ...] = tuple(Ablation)
    """Variants to train: `joint` has no self-distillation, `kl` the other KL direction, `noisy-teacher` dropout in the
    teacher; `narrow-exits` and `linear-exits` are what they say."""
    exit_size: int = 32
    """Width of the narrow exits, 1 or more."""
    layers: tuple[int, ...] = ()
    """Layers of the truncated models; empty: a half and a quarter of the model's, and 1."""
    speeds: tuple[float, ...] = (0.2, 0.7)
    """Uncertainty thresholds of the table of ablations, in (0, 1]."""
    speedups: tuple[float, ...] = (2.0, 3.0)
    """Speedups, 1 or more, in the paper's FLOPs, at which variants are held against each other."""
    table_speeds: tuple[float, ...] = (0.1, 0.5, 0.8)
    """Uncertainty thresholds of Table 2, timed."""
    mode: Mode = Mode.CASCADE
    """Engine that is timed."""
    repeats: int = 5
    """Interleaved repetitions of every timing, 1 or more; the median counts."""
    timed_texts: int = 512
    """Time this many test texts, spread evenly; 0: all."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(len(set(self.seeds)) == len(self.seeds) >= 1, "--seeds", "one or more, each once", self.seeds)
        require(len(set(self.ablations)) == len(self.ablations), "--ablations", "each once", self.ablations)
        require(self.exit_size >= 1, "--exit-size", "1 or more", self.exit_size)
        require(all(layer >= 1 for layer in self.layers), "--layers", "1 or more", self.layers)
        for key in ("speeds", "table_speeds"):
            speeds = getattr(self, key)
            require(all(0 < speed <= 1 for speed in speeds), f"--{key}", "thresholds in (0, 1]", speeds)
        require(all(speedup >= 1 for speedup in self.speedups), "--speedups", "1 or more", self.speedups)
        require(self.repeats >= 1, "--repeats", "1 or more", self.repeats)
        require(self.timed_texts >= 0, "--timed-texts", "0 or more", self.timed_texts)

    def truncations(self, num_layers: int) -> tuple[int, ...]:
        """Layers of the truncated models of a model of `num_layers`, the deepest first."""
        return tuple(sorted(self.layers, reverse=True)) or tuple(
            dict.fromkeys(layers for layers in (num_layers // 2, num_layers // 4, 1) if 1 <= layers < num_layers)
        )

"""What each part of FastBERT contributes on your data, as in the paper's tables 2 and 3.

python benchmarks/ablations.py --config configs/reuters_r8.yaml --output studies/reuters_r8

Trains FastBERT and its variants one after the other, each in a run directory of its own, and evaluates all exits on the
test texts. Variants that differ in distillation alone share one fine-tuned model.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from fastbert_jax.atomic_files import unless_refused, user_path, write_json, write_text
from fastbert_jax.command_line import end_with, read_over_file
from fastbert_jax.config import (
    DistilConfig,
    EvaluateConfig,
    ExitKind,
    KLDirection,
    MeasureConfig,
    Mode,
    QuietCommand,
    TrainConfig,
    TruncateConfig,
    require,
)
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import CURVE, EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.log import info, result, status
from fastbert_jax.recipes import fastbert, joint, train, truncated
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render_markdown
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids, read_labelled_data
from markdown_tables import at_the_same_speedup, table_3

SCHEMA = 1
"""The version of ablations.json; it rises when a key changes its meaning or is removed."""


class Ablation(enum.Enum):
    """A variant of FastBERT that lacks one part, or has another form of it.

    `joint` has no self-distillation: all exits are trained on labels. `kl` has the other KL direction, `noisy-teacher`
    dropout in the backbone and the last exit during distillation. `narrow-exits` are less wide, `linear-exits` a single
    linear layer.
    """

    JOINT = "joint"
    KL = "kl"
    NOISY_TEACHER = "noisy-teacher"
    NARROW_EXITS = "narrow-exits"
    LINEAR_EXITS = "linear-exits"


OF_EVERY_SEED = (None, Ablation.JOINT)
"""FastBERT itself, and the ablation of the paper's Table 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(fastbert.Settings):
    """FastBERT's settings, which its variants share, and those of the truncated models."""

    truncate: TruncateConfig = dataclasses.field(default_factory=TruncateConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationsConfig(QuietCommand):
    """Train a run and its variants, and tabulate what each part of FastBERT contributes: the paper's tables 2 and 3.

    Fixed depths are FastBERT's own exits; truncated models are baselines.

    Example: python benchmarks/ablations.py --config configs/reuters_r8.yaml --output studies/reuters_r8

    Writes comparison.md (the form of Table 2), ablations.md (Table 3), and their numbers as JSON. The variants' runs
    stay under OUTPUT/runs; the same command again resumes.
    """

    config: str = ""
    """YAML file of settings; those left out keep the defaults shown here."""
    output: str = ""
    """Directory to write to."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, 0 or more, of FastBERT and of `joint`, the paper's ablation; other variants have the first one alone."""
    ablations: tuple[Ablation, ...] = tuple(Ablation)
    """Variants to train: `joint` has no self-distillation, `kl` the other KL direction, `noisy-teacher` dropout in the
    last exit; `narrow-exits` and `linear-exits` have smaller exits."""
    exit_size: int = 32
    """Width of the narrow exits, 1 or more."""
    layers: tuple[int, ...] = ()
    """Layers of the truncated models; empty: a half and a quarter of the model's, and 1."""
    speeds: tuple[float, ...] = (0.2, 0.7)
    """Uncertainty thresholds of the table of ablations, in (0, 1]."""
    speedups: tuple[float, ...] = (2.0, 3.0)
    """Speedups, 1 or more, in the paper's FLOPs, at which variants are compared."""
    table_speeds: tuple[float, ...] = (0.1, 0.5, 0.8)
    """Uncertainty thresholds of Table 2, timed."""
    mode: Mode = Mode.CASCADE
    """Engine that is timed."""
    repeats: int = 5
    """Interleaved repetitions of every timing, 1 or more; the median counts."""
    timed_texts: int = 512
    """Time this many test texts, spread evenly; 0: all."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)

    def __post_init__(self) -> None:
        require(len(set(self.seeds)) == len(self.seeds) >= 1, "--seeds", "one or more, each once", self.seeds)
        require(len(set(self.ablations)) == len(self.ablations), "--ablations", "each once", self.ablations)
        require(self.exit_size >= 1, "--exit-size", "1 or more", self.exit_size)
        require(all(layer >= 1 for layer in self.layers), "--layers", "1 or more", self.layers)
        for key, speeds in (("--speeds", self.speeds), ("--table-speeds", self.table_speeds)):
            require(all(0 < speed <= 1 for speed in speeds), key, "thresholds in (0, 1]", speeds)
        require(all(speedup >= 1 for speedup in self.speedups), "--speedups", "1 or more", self.speedups)
        require(self.repeats >= 1, "--repeats", "1 or more", self.repeats)
        require(self.timed_texts >= 0, "--timed-texts", "0 or more", self.timed_texts)

    def truncations(self, num_layers: int) -> tuple[int, ...]:
        """Layers of the truncated models of a model of `num_layers`, the deepest first."""
        return tuple(sorted(self.layers, reverse=True)) or tuple(
            dict.fromkeys(layers for layers in (num_layers // 2, num_layers // 4, 1) if 1 <= layers < num_layers)
        )


def run_ablations(config: AblationsConfig) -> str:
    """Train, evaluate and write all; the tables.

    Raises:
      UserError: no output, settings that cannot be used, or files that cannot be written.
    """
    if not config.output:
        raise UserError("--output: name a directory to write to")
    if config.settings.recipe != fastbert.Settings.recipe:
        raise UserError(f"--recipe {config.settings.recipe}: these are variants of fastbert; leave --recipe out")
    output = user_path(config.output)
    with unless_refused(f"--output {output}", "make the directory"):
        output.mkdir(parents=True, exist_ok=True)
    runs = _Runs(config, output / "runs")
    trained = [
        (seed, *runs.model(ablation, seed))
        for ablation in (None, *config.ablations)
        for seed in (config.seeds if ablation in OF_EVERY_SEED else config.seeds[:1])
    ]
    task = read_labelled_data(config.settings.data)
    texts: list[Text] = [example.text for example in task.test]
    expected_B = label_ids(task.test, task.labels)

    def evaluate(model: Path) -> EvaluatedTexts:
        return EvaluatedTexts.of(load(model), texts, expected_B)

    numbers = [
        {"variant": name, "seed": seed, **variant_numbers(config, evaluate(model))} for seed, name, model in trained
    ]
    main = evaluate(trained[0][-1])
    layers = config.truncations(main.layers)
    truncated = {f"truncated to {count}": runs.truncated(count) for count in layers}
    comparison = compare(
        main,
        measure=MeasureConfig(speeds=config.table_speeds, modes=(config.mode,), repeats=config.repeats),
        timed_texts=config.timed_texts,
        baselines={name: evaluate(model) for name, model in truncated.items()},
    )
    name = f"{config.settings.model.pretrained} on {config.settings.data.train}"
    values = {
        "schema": SCHEMA,
        "name": name,
        "texts": comparison.texts,
        "layers": comparison.layers,
        "origin": dataclasses.asdict(comparison.origin),
        "runs": numbers,
    }
    table_2, table_3 = render_markdown(comparison, name), _tables(name, comparison, numbers, layers)
    with unless_refused(output, "write the tables"):
        write_json(output / "comparison.json", comparison.to_json())
        write_text(output / "comparison.md", table_2)
        write_json(output / "ablations.json", values)
        write_text(output / "ablations.md", f"{table_3}\n")
    return f"{table_2}\n{table_3}\n"


def variant_numbers(config: AblationsConfig, evaluated: EvaluatedTexts) -> dict[str, Any]:
    """The numbers of one run in ablations.json, of the test texts. Nothing is timed; FLOPs are per text."""
    curve = [evaluated.at(speed) for speed in CURVE]
    known, accuracy = [point.paper_speedup for point in curve], [point.accuracy for point in curve]
    # NaN where all texts exit at the first layer before.
    at_speedup = np.interp(config.speedups, known, accuracy, right=np.nan)
    return {
        "full_depth_accuracy": evaluated.full_depth().accuracy,
        "exit_accuracy": [evaluated.exit_row(layer).accuracy for layer in evaluated.asked_layers],
        "speeds": [
            {
                "speed": point.speed,
                "accuracy": point.accuracy,
                "mean_depth": point.mean_depth,
                "paper_flops": point.paper_flops / len(evaluated.texts),
                "paper_speedup": point.paper_speedup,
            }
            for point in map(evaluated.at, config.speeds)
        ],
        "accuracy_at_speedup": {
            f"{speedup:g}": None if np.isnan(value) else float(value)
            for speedup, value in zip(config.speedups, at_speedup, strict=True)
        },
        "curve": [
            {"speed": point.speed, "accuracy": point.accuracy, "paper_speedup": point.paper_speedup} for point in curve
        ],
    }


def _tables(name: str, comparison: Comparison, runs: Sequence[dict[str, Any]], layers: Sequence[int]) -> str:
    """Table 3's form over several seeds, and variants at equal speedup, in Markdown."""
    exits = [dataclasses.asdict(row) for row in comparison.exits]
    return "\n\n".join(
        (
            f"# {name}: what each part contributes",
            f"{comparison.texts} test texts, {comparison.layers} layers. Command: `{comparison.origin.command}`. Mean "
            "of the seeds, minimum and maximum in brackets; FLOPs and speedups as the paper counts them.",
            "## Table 3",
            table_3(runs, exits, layers),
            "At a speed: accuracy / speedup. *Layer k alone* is FastBERT without adaptive inference.",
            "## At equal speedup",
            at_the_same_speedup(runs),
            "Accuracy where the curve of 41 speeds has this speedup, interpolated between its two nearest speeds; `-` "
            "where all texts exit at the first layer before.",
        )
    )


class _Runs:
    """The runs of all variants, trained when they are first used."""

    def __init__(self, config: AblationsConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self._trained: set[Path] = set()

    def model(self, ablation: Ablation | None, seed: int) -> tuple[str, Path]:
        """The name of a variant, or of FastBERT itself, in the tables, and its run, trained."""
        settings = self._config.settings
        distil, model = settings.distil, settings.model
        match ablation:
            case None:
                name, changed = "FastBERT", self._distilling(seed, distil)
            case Ablation.JOINT:
                name, changed = "no self-distillation", self._of_recipe(joint.Settings)
            case Ablation.KL:
                other = next(kl for kl in KLDirection if kl is not distil.kl)
                name = f"KL {other.value}"
                changed = self._distilling(seed, dataclasses.replace(distil, kl=other))
            case Ablation.NOISY_TEACHER:
                name = "noisy teacher"
                noisy = dataclasses.replace(distil, noisy_teacher=True, cache_teacher=False)
                changed = self._distilling(seed, noisy)
            case Ablation.NARROW_EXITS:
                size = self._config.exit_size
                name = f"exits of width {size}"
                changed = self._of_recipe(fastbert.Settings, model=dataclasses.replace(model, exit_size=size))
            case Ablation.LINEAR_EXITS:
                name = "linear exits"
                linear = dataclasses.replace(model, exit_kind=ExitKind.LINEAR)
                changed = self._of_recipe(fastbert.Settings, model=linear)
        return name, self._train(name, seed, changed)

    def truncated(self, layers: int) -> Path:
        """The run that truncates the first seed's FastBERT."""
        seed, settings = self._config.seeds[0], self._config.settings
        _, own = self.model(None, seed)
        model = dataclasses.replace(settings.model, pretrained=str(own), first_layers=layers)
        changed = self._of_recipe(truncated.Settings, model=model, distil=self._no_distillation)
        return self._train(f"truncated to {layers}", seed, changed)

    def _distilling(self, seed: int, distil: DistilConfig) -> TrainConfig:
        """A run that distils the model that the seed's own run would have fine-tuned."""
        settings = self._config.settings
        alone = self._of_recipe(fastbert.Settings, distil=self._no_distillation)
        fine_tuned = self._train("fine-tuned", seed, alone)
        return self._of_recipe(
            fastbert.Settings,
            model=dataclasses.replace(settings.model, pretrained=str(fine_tuned), keep_exits=True),
            fine_tune=dataclasses.replace(settings.fine_tune, epochs=0),
            distil=distil,
        )

    def _of_recipe(self, kind: type[TrainConfig], **changed: Any) -> TrainConfig:
        """The settings of a run of one recipe, whose class is given."""
        names = [field.name for field in dataclasses.fields(kind) if field.name != "recipe"]
        return kind(**{name: getattr(self._config.settings, name) for name in names} | changed)

    @property
    def _no_distillation(self) -> DistilConfig:
        return dataclasses.replace(self._config.settings.distil, epochs=0, steps=0)

    def _train(self, name: str, seed: int, settings: TrainConfig) -> Path:
        directory = self._directory / f"{name.replace(' ', '_')}_seed_{seed}"
        if directory in self._trained:
            return directory
        status(f"\n{name}, seed {seed}: {directory}")
        full_depth_alone = EvaluateConfig(speeds=(), modes=(), repeats=1, baseline=False)
        train(dataclasses.replace(settings, run=str(directory), seed=seed, evaluate=full_depth_alone))
        self._trained.add(directory)
        return directory


def main() -> None:
    """Read the settings (defaults, then `--config`'s file, then the command line), then train and tabulate."""
    config = read_over_file(AblationsConfig, Settings, sys.argv[1:], program="benchmarks/ablations.py")
    result(run_ablations(config))
    info(f"tables and numbers are in {config.output}")


if __name__ == "__main__":
    end_with(main)

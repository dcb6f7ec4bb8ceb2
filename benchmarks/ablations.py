"""What each part of FastBERT contributes on your data, as in the paper's tables 2 and 3.

python benchmarks/ablations.py --config configs/reuters_r8.yaml --output studies/reuters_r8

Trains FastBERT and its variants one after the other, each in a run directory of its own, and evaluates all exits on the
test texts. Variants that differ in distillation alone share one fine-tuned model.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from fastbert_jax.atomic_files import write_json, write_text
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
from fastbert_jax.inference.compare import compare, provenance
from fastbert_jax.inference.exit_outputs import CURVE, EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.log import info, result, status
from fastbert_jax.recipes import fastbert, joint, train, truncated
from fastbert_jax.report.comparison import Comparison, ExitRow, SpeedPoint
from fastbert_jax.report.tables import render_markdown
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids, read_labelled_data
from scaling import markdown

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantRun:
    """One variant, trained with one seed, on the test texts. Nothing is timed."""

    variant: str
    seed: int
    full_depth: SpeedPoint
    exits: tuple[ExitRow, ...]
    points: tuple[SpeedPoint, ...]
    """At the speeds of the table."""
    curve: tuple[SpeedPoint, ...]

    def accuracy_at(self, speedups: Sequence[float] | np.ndarray) -> np.ndarray:
        """Accuracy at these speedups in the paper's FLOPs, interpolated between the two nearest speeds of the curve.

        NaN where the curve does not reach a speedup, because all texts exit at the first layer before.
        """
        known = np.array([point.paper_speedup for point in self.curve])
        accuracy = np.array([point.accuracy for point in self.curve])
        found: np.ndarray = np.interp(speedups, known, accuracy, right=np.nan)
        return found


def run_ablations(config: AblationsConfig) -> str:
    """Train, evaluate and write all; the tables.

    Raises:
      UserError: no output, settings that cannot be used, or files that cannot be written.
    """
    if not config.output:
        raise UserError("--output: name a directory to write to")
    if config.settings.recipe != fastbert.Settings.recipe:
        raise UserError(f"--recipe {config.settings.recipe}: these are variants of fastbert; leave --recipe out")
    output = Path(config.output).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot make the directory: {error.strerror}") from None
    runs = _Runs(config, output / "runs")
    models = {
        (runs.name(ablation), seed): runs.model(ablation, seed)
        for ablation in (None, *config.ablations)
        for seed in (config.seeds if ablation in OF_EVERY_SEED else config.seeds[:1])
    }
    task = read_labelled_data(config.settings.data)
    texts: list[Text] = [example.text for example in task.test]
    expected_B = label_ids(task.test, task.labels)

    def evaluate(model: Path) -> EvaluatedTexts:
        return EvaluatedTexts.of(load(model), texts, expected_B)

    variants = [_variant_run(config, evaluate(model), *key) for key, model in models.items()]
    main = evaluate(models[runs.name(None), config.seeds[0]])
    layers = config.truncations(main.layers)
    truncated = {f"truncated to {count}": runs.truncated(count) for count in layers}
    comparison = compare(
        main,
        measure=MeasureConfig(speeds=config.table_speeds, modes=(config.mode,), repeats=config.repeats),
        timed_texts=config.timed_texts,
        baselines={name: evaluate(model) for name, model in truncated.items()},
    )
    name = f"{config.settings.model.pretrained} on {config.settings.data.train}"
    return _write(config, name, comparison, variants, layers)


def _variant_run(config: AblationsConfig, evaluated: EvaluatedTexts, variant: str, seed: int) -> VariantRun:
    return VariantRun(
        variant=variant,
        seed=seed,
        full_depth=evaluated.full_depth(),
        exits=tuple(evaluated.exit_row(layer) for layer in evaluated.asked_layers),
        points=tuple(evaluated.at(speed) for speed in config.speeds),
        curve=tuple(evaluated.at(speed) for speed in CURVE),
    )


def _write(
    config: AblationsConfig, name: str, comparison: Comparison, runs: Sequence[VariantRun], layers: Sequence[int]
) -> str:
    output = Path(config.output).expanduser()
    values = {
        "schema": SCHEMA,
        "name": name,
        "texts": comparison.texts,
        "layers": comparison.layers,
        "origin": dataclasses.asdict(provenance()),
        "runs": [_plain(config, run, comparison.texts) for run in runs],
    }
    table_2, table_3 = render_markdown(comparison, name), "\n\n".join(_tables(config, name, comparison, runs, layers))
    try:
        write_json(output / "comparison.json", comparison.to_json())
        write_text(output / "comparison.md", table_2)
        write_json(output / "ablations.json", values)
        write_text(output / "ablations.md", f"{table_3}\n")
    except OSError as error:
        raise UserError(f"{output}: cannot write the tables: {error}") from None
    return f"{table_2}\n{table_3}\n"


def _plain(config: AblationsConfig, run: VariantRun, texts: int) -> dict[str, Any]:
    """A run of ablations.json; FLOPs are per text."""
    at_speedup = zip(config.speedups, run.accuracy_at(config.speedups), strict=True)
    return {
        "variant": run.variant,
        "seed": run.seed,
        "full_depth_accuracy": run.full_depth.accuracy,
        "exit_accuracy": [row.accuracy for row in run.exits],
        "speeds": [
            {
                "speed": point.speed,
                "accuracy": point.accuracy,
                "mean_depth": point.mean_depth,
                "paper_flops": point.paper_flops / texts,
                "paper_speedup": point.paper_speedup,
            }
            for point in run.points
        ],
        "accuracy_at_speedup": {
            f"{speedup:g}": None if np.isnan(value) else float(value) for speedup, value in at_speedup
        },
        "curve": [
            {"speed": point.speed, "accuracy": point.accuracy, "paper_speedup": point.paper_speedup}
            for point in run.curve
        ],
    }


def _tables(
    config: AblationsConfig, name: str, comparison: Comparison, runs: Sequence[VariantRun], layers: Sequence[int]
) -> Iterator[str]:
    """Table 3's form over several seeds, and variants at equal speedup, in Markdown."""
    variants: dict[str, list[VariantRun]] = {}
    for run in runs:
        variants.setdefault(run.variant, []).append(run)
    yield f"# {name}: what each part contributes"
    yield (
        f"{comparison.texts} test texts, {comparison.layers} layers. Command: `{comparison.origin.command}`. Mean of "
        "the seeds, minimum and maximum in brackets; FLOPs and speedups as the paper counts them."
    )
    yield "## Table 3"
    rows = [_row_at_speeds(variant, own) for variant, own in variants.items()]
    rows += [_row_of_fixed_depth(layer, next(iter(variants.values())), len(config.speeds)) for layer in layers]
    yield markdown(("variant", "seeds", "full depth", *(f"speed {speed:g}" for speed in config.speeds)), rows)
    yield "At a speed: accuracy / speedup. *Layer k alone* is FastBERT without adaptive inference."
    yield "## At equal speedup"
    rows = [
        (variant, *map(_spread, np.transpose([run.accuracy_at(config.speedups) for run in own])))
        for variant, own in variants.items()
    ]
    yield markdown(("variant", *(f"{speedup:g}x" for speedup in config.speedups)), rows)
    yield (
        "Accuracy where the curve of 41 speeds has this speedup, interpolated between its two nearest speeds; `-` "
        "where all texts exit at the first layer before."
    )


def _row_at_speeds(name: str, runs: Sequence[VariantRun]) -> Sequence[str]:
    cells = [
        f"{_spread(point.accuracy for point in points)} / {_spread((p.paper_speedup for p in points), digits=2)} x"
        for points in zip(*(run.points for run in runs), strict=True)
    ]
    return (name, str(len(runs)), _spread(run.full_depth.accuracy for run in runs), *cells)


def _row_of_fixed_depth(layer: int, runs: Sequence[VariantRun], width: int) -> Sequence[str]:
    rows = [next(row for row in run.exits if row.layer == layer) for run in runs]
    cell = f"{_spread(row.accuracy for row in rows)} / {_spread((row.paper_speedup for row in rows), digits=2)} x"
    return (f"layer {layer} alone", str(len(runs)), "", cell, *[""] * (width - 1))


def _spread(values: Iterable[float], *, digits: int = 4) -> str:
    """The mean; of several values also their minimum and maximum, in brackets."""
    found = np.array(list(values))
    if np.isnan(found).any():
        return "-"
    mean = f"{found.mean():.{digits}f}"
    if len(found) == 1 or found.min() == found.max():
        return mean
    return f"{mean} ({found.min():.{digits}f} to {found.max():.{digits}f})"


class _Runs:
    """The runs of all variants, trained when they are first used."""

    def __init__(self, config: AblationsConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self._trained: set[Path] = set()

    def model(self, ablation: Ablation | None, seed: int) -> Path:
        """The run of a variant, or of FastBERT itself, trained."""
        distil = self._config.settings.distil
        match ablation:
            case None:
                changed = self._distilling(seed, distil)
            case Ablation.JOINT:
                changed = self._of_recipe(joint.Settings)
            case Ablation.KL:
                changed = self._distilling(seed, dataclasses.replace(distil, kl=self._other_kl))
            case Ablation.NOISY_TEACHER:
                noisy = dataclasses.replace(distil, noisy_teacher=True, cache_teacher=False)
                changed = self._distilling(seed, noisy)
            case Ablation.NARROW_EXITS:
                changed = self._with_exits(exit_size=self._config.exit_size)
            case Ablation.LINEAR_EXITS:
                changed = self._with_exits(exit_kind=ExitKind.LINEAR)
        return self._train(self.name(ablation), seed, changed)

    def name(self, ablation: Ablation | None) -> str:
        """The name of a variant in the tables."""
        match ablation:
            case None:
                return "FastBERT"
            case Ablation.JOINT:
                return "no self-distillation"
            case Ablation.KL:
                return f"KL {self._other_kl.value}"
            case Ablation.NOISY_TEACHER:
                return "noisy teacher"
            case Ablation.NARROW_EXITS:
                return f"exits of width {self._config.exit_size}"
            case Ablation.LINEAR_EXITS:
                return "linear exits"

    def truncated(self, layers: int) -> Path:
        """The run that truncates the first seed's FastBERT."""
        seed, settings = self._config.seeds[0], self._config.settings
        model = dataclasses.replace(settings.model, pretrained=str(self.model(None, seed)), first_layers=layers)
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

    def _with_exits(self, **exits: Any) -> TrainConfig:
        model = dataclasses.replace(self._config.settings.model, **exits)
        return self._of_recipe(fastbert.Settings, model=model)

    def _of_recipe(self, kind: type[TrainConfig], **changed: Any) -> TrainConfig:
        """The settings of a run of one recipe, whose class is given."""
        names = [field.name for field in dataclasses.fields(kind) if field.name != "recipe"]
        return kind(**{name: getattr(self._config.settings, name) for name in names} | changed)

    @property
    def _no_distillation(self) -> DistilConfig:
        return dataclasses.replace(self._config.settings.distil, epochs=0, steps=0)

    @property
    def _other_kl(self) -> KLDirection:
        return next(kl for kl in KLDirection if kl is not self._config.settings.distil.kl)

    def _train(self, name: str, seed: int, settings: TrainConfig) -> Path:
        directory = self._directory / f"{name.replace(' ', '_')}_seed_{seed}"
        if directory in self._trained:
            return directory
        status(f"\n{name}, seed {seed}: {directory}")
        full_depth_alone = EvaluateConfig(speeds=(), modes=(), repeats=1, baseline=False)
        train(dataclasses.replace(settings, run=str(directory), seed=seed, evaluate=full_depth_alone))
        self._trained.add(directory)
        return directory


def parse_ablations(argv: Sequence[str]) -> AblationsConfig:
    """Settings from defaults, then `--config`'s file, then the rest of the command line.

    Raises:
      UserError: the file cannot be read, a value is out of its range, or an option is not known.
    """
    return read_over_file(AblationsConfig, Settings, argv, program="benchmarks/ablations.py")


def main() -> None:
    """Read the settings, then train and tabulate."""
    config = parse_ablations(sys.argv[1:])
    result(run_ablations(config))
    info(f"tables and numbers are in {config.output}")


if __name__ == "__main__":
    end_with(main)

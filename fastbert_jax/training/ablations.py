"""What each part of FastBERT brings on your data: python -m fastbert_jax.training.ablations --config configs/X.yaml

Trains the variants one after the other, each in a run directory of its own, and studies their exits on the test texts.
Variants that differ in distillation alone begin with one fine-tuned model, which is what their own run would have made.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.command_line import end_with, parse_ablations
from fastbert_jax.config import (
    Ablation,
    AblationsConfig,
    DistilConfig,
    EvaluateConfig,
    ExitKind,
    KLDirection,
    RecipeName,
    TrainConfig,
)
from fastbert_jax.errors import UserError
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.study import make_directory, study, timed_study, write_study
from fastbert_jax.log import info, result, status
from fastbert_jax.report import ablation_table, study_tables
from fastbert_jax.report.ablation import Ablations, VariantRun
from fastbert_jax.report.exit_study import ExitStudy
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids, read_labelled_data
from fastbert_jax.training.run import train

OF_EVERY_SEED = (None, Ablation.JOINT)
"""FastBERT itself, and what the paper's Table 3 holds against it."""


def run_ablations(config: AblationsConfig) -> str:
    """Train, study and write all; the tables.

    Raises:
      UserError: no output, settings that cannot be used, or no place to write to.
    """
    if not config.output:
        raise UserError("--output: expected a directory to write to, found nothing")
    if config.settings.recipe is not RecipeName.FASTBERT:
        raise UserError(f"--recipe: expected fastbert, whose variants these are, found {config.settings.recipe.value}")
    output = Path(config.output).expanduser()
    make_directory(output)
    runs = _Runs(config, output / "runs")
    models = {
        (runs.name(ablation), seed): runs.model(ablation, seed)
        for ablation in (None, *config.ablations)
        for seed in (config.seeds if ablation in OF_EVERY_SEED else config.seeds[:1])
    }
    test = _Test.of(config.settings)
    main = load(models[runs.name(None), config.seeds[0]])
    layers = config.truncations(main.config.num_layers)
    asked = test.asked_of(main)
    table_2 = timed_study(
        study(asked, name=test.name, speeds=config.table_speeds),
        asked,
        mode=config.mode,
        repeats=config.repeats,
        timed_texts=config.timed_texts,
        baselines={f"truncated to {count}": load(runs.truncated(count)) for count in layers},
    )
    table_3 = Ablations(
        name=test.name,
        speeds=config.speeds,
        speedups=config.speedups,
        fixed_layers=layers,
        runs=tuple(
            VariantRun(
                variant=variant,
                seed=seed,
                study=study(test.asked_of(load(model)), name=test.name, speeds=config.speeds),
            )
            for (variant, seed), model in models.items()
        ),
    )
    _write(table_2, table_3, output)
    return f"{study_tables.render(table_2)}\n{ablation_table.render(table_3)}"


def _write(table_2: ExitStudy, table_3: Ablations, output: Path) -> None:
    write_study(table_2, output)
    try:
        write_json(output / "ablations.json", table_3.to_json())
        write_text(output / "ablations.md", ablation_table.render(table_3))
        ablation_table.draw(table_3, output / "ablations.svg")
    except OSError as error:
        raise UserError(f"{output}: expected a directory that can be written, found {error}") from None


@dataclasses.dataclass(frozen=True)
class _Test:
    """The texts that all models answer."""

    name: str
    texts: Sequence[Text]
    expected_B: np.ndarray

    @classmethod
    def of(cls, settings: TrainConfig) -> _Test:
        task = read_labelled_data(settings.data)
        name = f"{settings.model.pretrained} on {settings.data.train}"
        return cls(name, [example.text for example in task.test], label_ids(task.test, task.labels))

    def asked_of(self, predictor: Predictor) -> AskedTexts:
        return AskedTexts.of(predictor, self.texts, self.expected_B)


class _Runs:
    """The runs of all variants, made when they are asked for."""

    def __init__(self, config: AblationsConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self._trained: set[Path] = set()

    def model(self, ablation: Ablation | None, seed: int) -> Path:
        """The run of a variant, or of FastBERT itself, trained."""
        settings, distil = self._config.settings, self._config.settings.distil
        match ablation:
            case None:
                changed = self._distilling(seed, distil)
            case Ablation.JOINT:
                changed = dataclasses.replace(settings, recipe=RecipeName.JOINT)
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
        """What the tables call a variant."""
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
        at_full_depth = dataclasses.replace(settings.distil, epochs=0, steps=0)
        changed = dataclasses.replace(settings, recipe=RecipeName.TRUNCATED, model=model, distil=at_full_depth)
        return self._train(f"truncated to {layers}", seed, changed)

    def _fine_tuned(self, seed: int) -> Path:
        settings = self._config.settings
        alone = dataclasses.replace(settings.distil, epochs=0, steps=0)
        return self._train("fine-tuned", seed, dataclasses.replace(settings, distil=alone))

    def _distilling(self, seed: int, distil: DistilConfig) -> TrainConfig:
        """A run that distils the model that the seed's own run would have fine-tuned."""
        settings = self._config.settings
        return dataclasses.replace(
            settings,
            model=dataclasses.replace(settings.model, pretrained=str(self._fine_tuned(seed)), keep_exits=True),
            fine_tune=dataclasses.replace(settings.fine_tune, epochs=0),
            distil=distil,
        )

    def _with_exits(self, **exits: Any) -> TrainConfig:
        settings = self._config.settings
        return dataclasses.replace(settings, model=dataclasses.replace(settings.model, **exits))

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


def main() -> None:
    """Read the settings, then do what they ask."""
    config = parse_ablations(sys.argv[1:])
    result(run_ablations(config))
    info(f"tables, numbers and pictures are in {config.output}")


if __name__ == "__main__":
    end_with(main)

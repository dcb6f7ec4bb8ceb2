"""What each part of FastBERT brings on your data: python -m fastbert_jax.training.ablations --config configs/X.yaml

Trains the variants one after the other, each in a run directory of its own, and studies their exits on the test texts.
Variants that differ in distillation alone begin with one fine-tuned model, which is what their own run would have made.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.command_line import end_with, parse_ablations
from fastbert_jax.config import AblationsConfig, EvaluateConfig, ExitKind, KLDirection, RecipeName, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.predictor import Predictor, load
from fastbert_jax.inference.study import make_directory, study, timed_study, write_study
from fastbert_jax.report import ablation_table, study_tables
from fastbert_jax.report.ablation import Ablations, VariantRun
from fastbert_jax.report.exit_study import ExitStudy
from fastbert_jax.text.examples import Text
from fastbert_jax.text.tasks import label_ids, load_task
from fastbert_jax.training.run import train
from fastbert_jax.whole_files import write_json, write_text

FASTBERT = "FastBERT"


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
    variants = [(variant, seed) for variant in runs.of_every_seed for seed in config.seeds]
    variants += [(variant, config.seeds[0]) for variant in runs.of_one_seed]
    models = {one: runs.model(*one) for one in variants}
    test = _Test.of(config.settings)
    main = load(models[FASTBERT, config.seeds[0]])
    layers = config.truncations(main.config.num_layers)
    table_2 = timed_study(
        test.study(main, config.table_speeds),
        main,
        test.texts,
        test.expected_B,
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
            VariantRun(variant=variant, seed=seed, study=test.study(load(model), config.speeds))
            for (variant, seed), model in models.items()
        ),
    )
    _write(table_2, table_3, output)
    return f"{study_tables.render(table_2)}\n{ablation_table.render(table_3)}\nAll of it is in {output}."


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
        task = load_task(settings.data)
        name = f"{settings.model.pretrained} on {settings.data.train}"
        return cls(name, [example.text for example in task.test], label_ids(task.test, task.labels))

    def study(self, predictor: Predictor, speeds: Sequence[float]) -> ExitStudy:
        return study(predictor, self.texts, self.expected_B, name=self.name, speeds=speeds)


class _Runs:
    """The runs of all variants, made when they are asked for."""

    def __init__(self, config: AblationsConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        settings = config.settings
        other_kl = next(kl for kl in KLDirection if kl is not settings.distil.kl)
        self._distilled: dict[str, dict[str, Any]] = {
            FASTBERT: {},
            f"KL {other_kl.value}": {"kl": other_kl},
            "noisy teacher": {"noisy_teacher": True, "cache_teacher": False},
        }
        joint = dataclasses.replace(settings, recipe=RecipeName.JOINT)
        narrow, linear = (
            dataclasses.replace(settings, model=dataclasses.replace(settings.model, **exits))
            for exits in ({"exit_size": config.exit_size}, {"exit_kind": ExitKind.LINEAR})
        )
        self._joint = {"no self-distillation": joint}
        self._other_exits = {f"exits of width {config.exit_size}": narrow, "linear exits": linear}

    @property
    def of_every_seed(self) -> tuple[str, ...]:
        """Variants that are trained with each seed."""
        return (*self._distilled, *self._joint)

    @property
    def of_one_seed(self) -> tuple[str, ...]:
        """Variants that are trained with the first seed alone."""
        return tuple(self._other_exits)

    def model(self, variant: str, seed: int) -> Path:
        """The run of a variant, trained."""
        whole: Mapping[str, TrainConfig] = self._joint | self._other_exits
        if variant in whole:
            return self._train(variant, seed, whole[variant])
        return self._train(variant, seed, self._distilling(self._fine_tuned(seed), **self._distilled[variant]))

    def truncated(self, layers: int) -> Path:
        """The run that truncates the first seed's FastBERT."""
        seed, settings = self._config.seeds[0], self._config.settings
        model = dataclasses.replace(settings.model, pretrained=str(self.model(FASTBERT, seed)), first_layers=layers)
        at_full_depth = dataclasses.replace(settings.distil, epochs=0, steps=0)
        changed = dataclasses.replace(settings, recipe=RecipeName.TRUNCATED, model=model, distil=at_full_depth)
        return self._train(f"truncated to {layers}", seed, changed)

    def _fine_tuned(self, seed: int) -> Path:
        settings = self._config.settings
        alone = dataclasses.replace(settings.distil, epochs=0, steps=0)
        return self._train("fine-tuned", seed, dataclasses.replace(settings, distil=alone))

    def _distilling(self, fine_tuned: Path, **distil: Any) -> TrainConfig:
        settings = self._config.settings
        return dataclasses.replace(
            settings,
            model=dataclasses.replace(settings.model, pretrained=str(fine_tuned), keep_exits=True),
            fine_tune=dataclasses.replace(settings.fine_tune, epochs=0),
            distil=dataclasses.replace(settings.distil, **distil),
        )

    def _train(self, name: str, seed: int, settings: TrainConfig) -> Path:
        directory = self._directory / f"{name.replace(' ', '_')}_seed_{seed}"
        print(f"\n{name}, seed {seed}: {directory}", flush=True)
        full_depth_alone = EvaluateConfig(speeds=(), modes=(), repeats=1, baseline=False)
        train(dataclasses.replace(settings, run=str(directory), seed=seed, evaluate=full_depth_alone))
        return directory


def main() -> None:
    """Read the settings, then do what they ask."""
    print(run_ablations(parse_ablations(sys.argv[1:])))


if __name__ == "__main__":
    end_with(main)

"""The card of a trained model, from its files and those of the run around it, for the run and for its exports."""

from __future__ import annotations

import inspect
from pathlib import Path, PurePath

import yaml

from fastbert_jax.atomic_files import write_text
from fastbert_jax.config import RecipeName, TrainConfig
from fastbert_jax.config_yaml import from_yaml, to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import saved_settings
from fastbert_jax.model import in_numpy
from fastbert_jax.model.tensor_files import EXITS_FILE, read_json
from fastbert_jax.model.weights import read_fastbert_config
from fastbert_jax.report.model_card import FILE, Making, model_card
from fastbert_jax.text.sources import BUILTIN, TFDS
from fastbert_jax.training.run_directory import RunDirectory

STORY = (
    "Labels trained the backbone and the teacher; then both were frozen, and the teacher's answers trained the other "
    "exits."
)
JOINT_STORY = "Labels trained the backbone and all exits at once."
TRUNCATED_STORY = (
    "The first layers of a trained model learned its answers; then its last exit's answers trained the others."
)
MADE: dict[RecipeName, tuple[str, tuple[str, ...]]] = {
    RecipeName.FASTBERT: (STORY, ("fine_tune", "distil")),
    RecipeName.OFFICIAL: (STORY, ("fine_tune", "distil")),
    RecipeName.JOINT: (JOINT_STORY, ("fine_tune",)),
    RecipeName.TRUNCATED: (TRUNCATED_STORY, ("truncate", "distil")),
}
"""What trained what, and the settings of the phases, by recipe."""
MODEL_KEYS = ("first_layers", "keep_exits", "exit_kind", "exit_size", "exit_heads", "dropout", "precision")
"""What a card repeats of the settings of a model, beside where it began: sizes are in config.json."""


def write_card(run: RunDirectory) -> None:
    """Write the card beside the model of a run, whole; it tells the measurements when there are some.

    Raises:
      UserError: a file of the run that cannot be read, or no room for the card.
    """
    try:
        write_text(run.model / FILE, card_of(run.model, name=run.path.resolve().name))
    except OSError as error:
        raise UserError(
            f"{run.model / FILE}: expected to write the model's card, found: {error}\n"
            "Make room and run the same command again."
        ) from error


def card_of(model: Path, *, name: str, exported_to: str = "") -> str:
    """The card of a model directory, as Markdown.

    Args:
      name: the model's, for people.
      exported_to: the name of the directory that an export of it gets; empty: the card is for `model` itself.

    Raises:
      UserError: one of the files cannot be read.
    """
    architecture, extra = read_fastbert_config(model)
    settings = saved_settings(model, extra)
    return model_card(
        name=name,
        directory=exported_to or model.name,
        config=architecture,
        labels=settings["labels"],
        max_length=settings["max_length"],
        exits_file=EXITS_FILE if exported_to else "model.safetensors",
        numpy_code=inspect.getsource(in_numpy),
        making=making_of(model),
    )


def making_of(model: Path) -> Making | None:
    """What the run around a `model` directory tells, without the names of directories; None where there is no run.

    Raises:
      UserError: one of its files cannot be read.
    """
    run = RunDirectory(model.resolve().parent)
    if model.resolve() != run.model or not run.config.is_file():
        return None
    config = from_yaml(TrainConfig, run.config)
    settings = to_dict(config)
    settings["model"] = {"pretrained": last_part(config.model.pretrained)} | {
        key: settings["model"][key] for key in MODEL_KEYS
    }
    story, phases = MADE[config.recipe]
    told = {key: settings[key] for key in ("seed", "recipe", "model", *phases)}
    counts = read_json(run.data) if run.data.is_file() else {}
    specs = {role: getattr(config.data, role) for role in ("train", "dev", "unlabelled", "test")}
    return Making(
        texts=[
            (role, f"`{last_part(spec)}`" if spec else "", counts.get(role, ""))
            for role, spec in specs.items()
            if spec or role in counts
        ],
        story=story,
        settings=yaml.safe_dump(told, sort_keys=False),
        comparison=read_json(run.comparison) if run.comparison.is_file() else None,
    )


def last_part(spec: str) -> str:
    """A SPEC without the directories that it is in, which are a machine's own."""
    return spec if spec.startswith((BUILTIN, TFDS)) else PurePath(spec).name

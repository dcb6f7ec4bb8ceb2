"""A trained model for others: a Hugging Face directory of its backbone, the exits beside it, and a card."""

from __future__ import annotations

import inspect
from pathlib import Path, PurePath
from typing import Any

import yaml
from safetensors import SafetensorError

from fastbert_jax.config import ExportConfig, LayerNormKind, RecipeName, TrainConfig
from fastbert_jax.config_yaml import from_yaml, to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibrate
from fastbert_jax.inference.predictor import model_directory, saved_settings
from fastbert_jax.model import in_numpy
from fastbert_jax.model.tensor_files import read_json
from fastbert_jax.model.weights import load_model, save_model
from fastbert_jax.report.model_card import Making, model_card
from fastbert_jax.text.sources import BUILTIN, TFDS
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.whole_files import check_unused, whole_directory, write_json, write_text

STORY = (
    "Labels trained the backbone and the teacher; then both were frozen, and the teacher's answers trained the other "
    "exits."
)
JOINT_STORY = "Labels trained the backbone and all exits at once."
MODEL_KEYS = ("exit_kind", "exit_size", "exit_heads", "dropout", "precision")
"""What a card repeats of the settings of a model, beside where it began: sizes are in config.json."""


def export(config: ExportConfig) -> str:
    """Write the directory, whole; what it holds, in words.

    Raises:
      UserError: no trained model, one that transformers cannot compute, damaged files, or no place for the directory.
    """
    output = Path(config.output).expanduser()
    check_unused(output, "--output")
    source = model_directory(config.model)
    params, architecture, extra = load_model(source)
    if architecture.layer_norm is not LayerNormKind.STANDARD:
        raise UserError(
            f"--model {source}: expected a model with BERT's LayerNorm, found one with UER's, which transformers would "
            "load and compute wrongly; share the directory as it is, which fastbert_jax loads"
        )
    settings = saved_settings(source, extra)
    tokenizer = load_tokenizer(source)
    card = model_card(
        name=output.resolve().name,
        config=architecture,
        labels=settings["labels"],
        max_length=settings["max_length"],
        numpy_code=inspect.getsource(in_numpy),
        making=making_of(source),
    )
    try:
        with whole_directory(output.resolve()) as directory:
            tokenizer.save(directory)
            save_model(directory, params, architecture, extra=extra, exits_apart=True)
            if (source / calibrate.FILE).is_file():
                write_json(directory / calibrate.FILE, calibrations_of(source))
            write_text(directory / "README.md", card)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output {output}: expected a place to write the model to, found: {error}") from error
    return f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}"


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
    joint = config.recipe is RecipeName.JOINT
    keys = ("seed", "recipe", "model", "fine_tune", *([] if joint else ["distil"]))
    told = {key: settings[key] for key in keys}
    counts = read_json(run.data) if run.data.is_file() else {}
    specs = {role: getattr(config.data, role) for role in ("train", "dev", "unlabelled", "test")}
    return Making(
        texts=[
            (role, f"`{last_part(spec)}`" if spec else "", counts.get(role, ""))
            for role, spec in specs.items()
            if spec or role in counts
        ],
        story=JOINT_STORY if joint else STORY,
        settings=yaml.safe_dump(told, sort_keys=False),
        comparison=read_json(run.comparison) if run.comparison.is_file() else None,
    )


def calibrations_of(model: Path) -> dict[str, Any]:
    """What `infer.py calibrate` left with a model, without the names of directories."""
    found = read_json(model / calibrate.FILE)
    return {target: entry | {"data": last_part(entry["data"])} for target, entry in found.items()}


def last_part(spec: str) -> str:
    """A SPEC without the directories that it is in, which are a machine's own."""
    return spec if spec.startswith((BUILTIN, TFDS)) else PurePath(spec).name

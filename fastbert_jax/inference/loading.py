"""From a directory to a predictor: a run, a model of ours, or a Hugging Face BERT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastbert_jax import stopping
from fastbert_jax.config import AnswerCommand, BertConfig, DataConfig, ExitConfig, MeshConfig, Precision, ReadingConfig
from fastbert_jax.config_yaml import convert, shown
from fastbert_jax.errors import UserError, program_name
from fastbert_jax.inference.policies import Policy, Uncertainty
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info
from fastbert_jax.model.config_json import ConfigJson, code_notes, read_bert_config
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.model.tensor_files import check_is_file
from fastbert_jax.model.weights import check_vocabulary, load_model, load_params
from fastbert_jax.text.builtin import nothing_at, pretrained_directory
from fastbert_jax.text.tokenizer import load_tokenizer

CARD = "README.md"
"""The model card beside a model's files."""
EXTRA = {"labels": tuple[str, ...], "max_length": int, "length_buckets": tuple[int, ...], "precision": Precision}
"""The keys of `fastbert.extra` that inference needs, and the types of their values."""
EXCLUDED = "excluded_labels"
"""The key of the labels whose rows were left out of training, where there are some."""
LEAST_LENGTH = 4
"""Tokens of the longest text of a model, at least: two texts and what frames them have more."""


@stopping.stoppable()
def load(
    directory: str | Path,
    *,
    exits: ExitConfig | None = None,
    mesh: Mesh | None = None,
    policy: Policy | Uncertainty | None = None,
) -> Predictor:
    """Load a trained model, or a Hugging Face BERT directory for its hidden states alone.

    >>> import fastbert_jax
    >>> classifier = fastbert_jax.load("runs/demo")
    >>> classifier.labels
    ('good', 'bad')
    >>> classifier.predict(["a bad actor"], speed=0.5)[0].label
    'bad'

    Args:
      directory: a run, its `model` directory, or a Hugging Face directory with tokenizer files.
      exits: which exits are used, and how their uncertainty is measured; none: all of them, by entropy.
      mesh: devices of this process: those along `data` share the texts, the others the parameters; none: one.
      policy: how the uncertainty of an exit is measured, in place of `exits.policy`: a jax function from its logits
        `[B, N]` to float32 `[B]` in [0, 1], or a `Policy`, which also keeps a state between the layers.

    Raises:
      UserError: no such directory, no model in it, damaged files, or a tokenizer of another model.
    """
    directory = model_directory(directory)
    config_json = ConfigJson.read(directory)
    if config_json.is_fastbert:
        params, config, extra = load_model(config_json)
        settings = saved_settings(directory, extra, config)
    else:
        config = read_bert_config(config_json)
        params = load_params(config_json, config, exits=False)
        longest = config.max_positions
        if longest < LEAST_LENGTH:
            expected = f"{LEAST_LENGTH} or more"
            raise UserError(f"{config_json.path}: max_position_embeddings: expected {expected}, found {longest}")
        lengths = (*(length for length in DataConfig.length_buckets if length < longest), longest)
        settings = {"labels": (), "max_length": longest, "length_buckets": lengths}
    tokenizer = load_tokenizer(directory)
    check_vocabulary(tokenizer.vocab_size, config)
    for note in (*code_notes(config_json), *tokenizer.notes):
        info(note)
    places: dict[str, Any] = {"mesh": mesh, "directory": directory}
    return Predictor(params, config, tokenizer, exits=exits, policy=policy, **places, **settings)


def load_in_use(config: AnswerCommand, *, mesh: Mesh | None = None) -> tuple[Predictor, float | np.ndarray]:
    """The model that a command answers with, and its speed or the thresholds `[L]` of its target.

    A speed that the command does not name is printed.

    Raises:
      UserError: what `load` raises, a backbone without exits, or no calibration for the target.
    """
    loaded = load(config.model, exits=config.exits, mesh=mesh)
    loaded.require_exits()
    if not config.target and config.speed is None:
        info(loaded.default_speed_note)
    return loaded.in_use(config.target, config.speed)


def local_mesh(config: MeshConfig, *, count: int) -> Mesh:
    """The first `count` devices of this process as a mesh; 0: all.

    Raises:
      UserError: there are fewer, or the product of the sizes is not their number.
    """
    devices = jax.local_devices()
    if count > len(devices):
        raise UserError(f"--devices: expected up to {len(devices)}, found {count}")
    return make_mesh(config, devices[: count or None])


def model_directory(directory: str | Path) -> Path:
    """The directory of the weights: `directory` itself, or `model` in it when it is a run's.

    Also that of `builtin:minilm`, and of a model of the Hugging Face Hub by its name, where `hf download` has put it.

    Raises:
      UserError: there is none.
    """
    directory = pretrained_directory(str(directory))
    for candidate in (directory / "model", directory):
        if os.path.lexists(candidate / "config.json"):  # unlike Path.exists, also for a name that no file can have
            _check_files(candidate)
            return candidate
    raise UserError(f"expected the directory of a run or of a model, found {_found_instead(directory)}")


def _found_instead(directory: Path) -> str:
    """What is in the place of a model, and what to do with it."""
    if not os.path.exists(directory):
        return nothing_at(directory)
    if not os.path.isdir(directory):
        return f"a file at {directory}; give the directory that it is in"
    if (directory / "config.yaml").is_file():
        command = f"{program_name('train')} --config {directory / 'config.yaml'}"
        return f"a run that is not finished; finish it with `{command}`"
    found = f"neither model/config.json nor config.json in {directory}"
    if (directory / "bert_config.json").is_file():
        return f'{found}; copy bert_config.json there to config.json, and add `"model_type": "bert"` to it'
    if (directory / "adapter_config.json").is_file():
        return (
            f"{found}; an adapter is no model: merge it into its model with peft's `merge_and_unload()`, and save that"
        )
    for inside in (*sorted(directory.glob("*/config.json")), *sorted(directory.glob("snapshots/*/config.json"))):
        return f"{found}; there is a config.json in {inside.parent}: give that directory"
    return found


def _check_files(directory: Path) -> None:
    """Refuse a pipe or a device under any name: to open it could wait forever.

    Raises:
      UserError: there is one, or the directory cannot be read.
    """
    try:
        for path in directory.iterdir():
            if not path.is_dir():
                check_is_file(path)
    except OSError as error:
        raise UserError(f"expected a directory that can be read, found {error}") from None


def saved_settings(directory: Path, extra: dict[str, Any], config: BertConfig) -> dict[str, Any]:
    """The labels, lengths and precision that training saved with a model, as `Predictor` takes them.

    Raises:
      UserError: one of them is missing, of another type, or does not fit the model or the others.
    """
    where = str(directory / "config.json")
    if missing := [key for key in EXTRA if key not in extra]:
        raise UserError(
            f"{where}: fastbert.extra: expected {', '.join(EXTRA)}, found no {', '.join(missing)}; the model was not "
            "saved by fastbert_jax"
        )
    settings = {key: convert(kind, extra[key], where=where, key=f"fastbert.extra.{key}") for key, kind in EXTRA.items()}
    labels, longest, lengths = (settings[key] for key in ("labels", "max_length", "length_buckets"))
    classes, names, positions = config.num_classes, "".join(labels), config.max_positions
    is_unicode = names == names.encode("utf-8", "replace").decode("utf-8")
    checks = {
        "labels": (
            is_unicode and len(labels) == classes == len(set(labels)),
            f"{classes} different names, one for each class",
        ),
        "max_length": (LEAST_LENGTH <= longest <= positions, f"{LEAST_LENGTH} to {positions}, the model's positions"),
        "length_buckets": (
            [0, *lengths] == sorted({0, *lengths}) and lengths[-1:] == (longest,),
            f"rising lengths, the last {longest}",
        ),
    }
    for key, (fits, expected) in checks.items():
        if not fits:
            raise UserError(f"{where}: fastbert.extra.{key}: expected {expected}, found {shown(extra[key])}")
    if "reading" in extra:  # older models do not have it
        reading = convert(ReadingConfig, extra["reading"], where=where, key="fastbert.extra.reading")
        settings["reading"] = reading
    if EXCLUDED in extra:
        settings[EXCLUDED] = convert(tuple[str, ...], extra[EXCLUDED], where=where, key=f"fastbert.extra.{EXCLUDED}")
    return settings

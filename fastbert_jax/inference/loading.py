"""From a directory to a predictor: a run, a model of ours, or a Hugging Face BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from fastbert_jax import stopping
from fastbert_jax.config import DataConfig, ExitConfig, MeshConfig, Precision
from fastbert_jax.errors import UserError, program_name
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.config_json import ConfigJson, read_bert_config
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.model.weights import check_vocabulary, load_model, load_params
from fastbert_jax.text.tokenizer import load_tokenizer

CARD = "README.md"
"""The model card beside a model's files."""


@stopping.stoppable()
def load(directory: str | Path, *, exits: ExitConfig | None = None, mesh: Mesh | None = None) -> Predictor:
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

    Raises:
      UserError: no such directory, no model in it, damaged files, or a tokenizer of another model.
    """
    directory = model_directory(directory)
    config_json = ConfigJson.read(directory)
    if config_json.is_fastbert:
        params, config, extra = load_model(config_json)
        settings = saved_settings(directory, extra)
    else:
        config = read_bert_config(config_json)
        params = load_params(config_json, config, exits=False)
        lengths = DataConfig(max_length=config.max_positions).lengths
        settings = {"labels": (), "max_length": config.max_positions, "length_buckets": lengths}
    tokenizer = load_tokenizer(directory)
    check_vocabulary(tokenizer.vocab_size, config)
    return Predictor(params, config, tokenizer, exits=exits, mesh=mesh, **settings)


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

    Raises:
      UserError: there is none.
    """
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise UserError(f"expected the directory of a run or of a model, found {found} at {directory}; check the path")
    for candidate in (directory / "model", directory):
        if (candidate / "config.json").is_file():
            return candidate
    if (directory / "config.yaml").is_file():
        raise UserError(
            f"expected a trained model in {directory / 'model'}, found a run that is not finished; "
            f"finish it with `{program_name('train')} --config {directory / 'config.yaml'}`"
        )
    raise UserError(
        f"expected the directory of a run or of a model, found neither model/config.json nor config.json in {directory}"
    )


def saved_settings(directory: Path, extra: dict[str, Any]) -> dict[str, Any]:
    """The labels, lengths and precision that training saved with a model, as `Predictor` takes them.

    Raises:
      UserError: one of them is missing.
    """
    try:
        return {
            "labels": tuple(extra["labels"]),
            "max_length": extra["max_length"],
            "length_buckets": tuple(extra["length_buckets"]),
            "precision": Precision(extra["precision"]),
        }
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{directory / 'config.json'}: fastbert.extra: expected labels, max_length, length_buckets and precision, "
            f"found {extra}; the model was not saved by fastbert_jax ({error})"
        ) from None

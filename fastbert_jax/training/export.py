"""Export a trained model: a Hugging Face directory of its backbone, with the exits beside it and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fastbert_jax.atomic_files import atomic_directory, check_unused, write_json, write_text
from fastbert_jax.config import ExportConfig, LayerNormKind
from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibrate
from fastbert_jax.inference.loading import CARD, model_directory
from fastbert_jax.model.tensor_files import read_json
from fastbert_jax.model.weights import load_model, save_model
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.training.card import card_of, last_part


def export(config: ExportConfig) -> str:
    """Write the directory; its files, in words.

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
            "compute wrongly; share the directory as it is, which fastbert_jax loads"
        )
    name = output.resolve().name
    card = card_of(source, name=name, exported_to=name)
    tokenizer = load_tokenizer(source)
    try:
        with atomic_directory(output.resolve()) as directory:
            tokenizer.save(directory)
            save_model(directory, params, architecture, extra=extra, exits_apart=True)
            if (source / calibrate.FILE).is_file():
                write_json(directory / calibrate.FILE, calibrations_of(source))
            write_text(directory / CARD, card)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output {output}: expected a place to write the model to, found: {error}") from error
    return f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}"


def calibrations_of(model: Path) -> dict[str, Any]:
    """The calibrations of a model, without the names of directories."""
    found = read_json(model / calibrate.FILE)
    return {target: entry | {"data": last_part(entry["data"])} for target, entry in found.items()}

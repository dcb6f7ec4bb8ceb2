"""What answers depend on besides the texts: whether two runs of the predict command do the same work."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.config import ExitConfig, PredictConfig
from fastbert_jax.config_yaml import to_dict
from fastbert_jax.inference import calibrate
from fastbert_jax.inference.loading import CARD, model_directory
from fastbert_jax.inference.predict_command import row_chunks


def work_of(config: PredictConfig, *, speed: float | np.ndarray, exits: ExitConfig) -> dict[str, Any]:
    """JSON values by name; equal ones give equal bytes on the same machine.

    What becomes of bad rows is not among them: under `stop` there are none before the end.

    Args:
      speed: the thresholds in use, as `config.speed` or `config.target` tell.
      exits: the exits in use.
    """
    return {
        "model": model_checksum(config.model),
        "speed": np.asarray(speed).tolist(),
        "exits": to_dict(exits),
        "mode": config.mode.value,
        "batch_size": config.batch_size,
        "batch_tokens": config.batch_tokens,
        "devices per copy of the model": [config.mesh.fsdp, config.mesh.tensor],  # they add in another order
        "text_column": config.text_column,
        "pair_column": config.pair_column,
        "rows at once": row_chunks.ROWS,
    }


def model_checksum(directory: str | Path) -> str:
    """SHA-256 of a model's files: settings, weights and tokenizer, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(model_directory(directory).iterdir()):
        if path.is_file() and path.name not in (calibrate.FILE, CARD) and not path.name.startswith("."):
            with open(path, "rb") as stream:
                digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()

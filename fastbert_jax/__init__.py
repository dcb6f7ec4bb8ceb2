"""FastBERT in JAX: a BERT whose every layer can answer."""

import importlib
from typing import Any

from fastbert_jax.version import VERSION as __version__

_HOMES = {
    "load": "fastbert_jax.inference.loading",
    "Prediction": "fastbert_jax.inference.prediction",
    "Predictor": "fastbert_jax.inference.predictor",
    "UserError": "fastbert_jax.errors",
    "train": "fastbert_jax.recipes",
}

__all__ = ["Prediction", "Predictor", "UserError", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, those not yet imported included."""
    return __all__

"""FastBERT as the released code trains it (autoliuweijie/FastBERT, run_fastbert.py).

Its AdamW reads no weight decay and corrects no bias; phase 2 has the other KL direction, dropout in the frozen parts,
and the schedule of phase 1. Learning rates, epochs and batches stay as given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fastbert_jax.config import KLDirection
from fastbert_jax.recipes import fastbert
from fastbert_jax.recipes.fastbert import make

__all__ = ["Settings", "make"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(fastbert.Settings):
    """A run of FastBERT with the released code's settings in place of those given."""

    recipe: str = "official"

    @property
    def resolved(self) -> Settings:
        """The same with what the recipe sets."""
        plain: dict[str, Any] = {"weight_decay": 0.0, "clip_norm": 0.0, "bias_correction": False}
        distil: dict[str, Any] = {
            "kl": KLDirection.TEACHER_STUDENT,
            "noisy_teacher": True,
            "decay_epochs": self.fine_tune.epochs,
        }
        return dataclasses.replace(
            self,
            fine_tune=dataclasses.replace(self.fine_tune, **plain),
            distil=dataclasses.replace(self.distil, **plain, **distil),
        )

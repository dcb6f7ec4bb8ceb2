"""The memory of self-distillation: the teacher's answers to all texts, collected in one epoch and read in the next.

An epoch runs either whole or by the shortcut: by it when the answers to all texts were there as the epoch began, which
is from the second on. So a run that is stopped, however it is, goes on with the same programs as one that is not. Where
the answers are lost, the rest of that epoch runs whole, and so do further ones until all answers are there again.

Of several processes the first one writes, in the run's directory, which all share; the others open the file when it is
complete. Every process knows which texts are in which row, so the answers need no other way from one to another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from fastbert_jax import processes
from fastbert_jax.text.training_batches import EpochBatches
from fastbert_jax.training.answer_file import AnswerFile
from fastbert_jax.training.array_checksums import leaf_checksums
from fastbert_jax.training.memory import Memory
from fastbert_jax.training.recipe import Known, Tree


class AnswerCache(Memory):
    """Answers in a directory of the run."""

    def __init__(
        self, directory: Path, batches: EpochBatches, *, corpus: str, classes: int, say: Callable[[str], None]
    ) -> None:
        """The memory of a phase on `batches`.

        Args:
          corpus: words that differ when its texts do.
          say: told when answers that were there are of no use.
        """
        self._batches, self._corpus, self._say = batches, corpus, say
        self._file = AnswerFile(directory, texts=batches.total_texts, classes=classes)
        self._complete = False

    def open(self, frozen: Tree, *, done: int) -> None:
        """Find the answers of these parameters to these texts, or begin without any."""
        weights = hashlib.sha256(json.dumps(leaf_checksums(frozen)).encode()).hexdigest()
        processes.first_alone(lambda: self._open_or_begin({"corpus": self._corpus, "teacher": weights}, done))
        self._find_out()

    def known(self, step: int) -> Known | None:
        """The answers to this process's rows, in an epoch that has all of them."""
        return Known(self._file.read(self._batches.texts_at(step))) if self._complete else None

    def keep(self, step: int, kept_BxKxN: jax.Array) -> None:
        """Write the answers of a whole step."""
        if processes.is_first():
            self._file.write(self._batches.texts_at(step, local=False), np.asarray(kept_BxKxN))

    def settle(self, done: int) -> None:
        """Bring the answers to the disk; at the end of an epoch see whether they are all there."""
        if self._complete:
            return
        if done % self._batches.batches_per_epoch:
            processes.first_alone(self._file.flush)
        else:
            processes.first_alone(lambda: self._seal(done))
            self._find_out()

    def _open_or_begin(self, about: dict[str, str], done: int) -> None:
        problem = self._file.open_or_begin(about)
        if problem:
            self._say(f"{problem}\nThe teacher's answers are collected again; until then the teacher runs.")
        epoch_began, sealed_at = done - done % self._batches.batches_per_epoch, self._file.sealed_at
        if sealed_at is not None and epoch_began < sealed_at:
            self._file.unseal()  # a kill came between the last answer and the checkpoint after it
        elif sealed_at is None and epoch_began and not problem:
            self._say("the teacher's answers are not all there; the teacher runs until they are")

    def _seal(self, done: int) -> None:
        missing = self._file.seal(done)
        if missing:
            self._say(f"the teacher's answers to {missing} texts are missing; the teacher runs for another epoch")

    def _find_out(self) -> None:
        """Whether the answers are complete, as one for all processes; the file is opened where they are."""
        self._complete = processes.all_well(not processes.is_first() or self._file.sealed_at is not None)
        if self._complete:
            processes.together(lambda: None if processes.is_first() else self._file.open_sealed())

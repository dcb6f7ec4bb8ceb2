"""The batches of a phase as the loop takes them: each has a kind, and views of its texts and of what a recipe needs.

`KeptValues` also gives values of all texts that are computed in one epoch, kept in a directory, and read in the next:

kept/  about.json (what the values depend on, and after which step they were complete)  values.npy (float32 [texts, N])
       files.json (checksums, while the values are complete)

A text whose values are not known yet has NaN. An epoch runs either with kept values or without: with them when those of
all texts were known as it began. So a run that was stopped, whenever that was, continues with the same programs as one
that was not. Where values are lost, the rest of that epoch runs without, and so do further ones until all are known.

Of several processes the first one writes, in a directory that all share; the others open the file when it is complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fastbert_jax import processes
from fastbert_jax.atomic_files import (
    CHECKSUMS,
    MAKE_ROOM,
    atomic_file,
    changed_files,
    put_aside,
    read_file,
    remove_unfinished,
    unless_refused,
    write_checksums,
    write_json,
)
from fastbert_jax.text.training_batches import Batches, TrainingBatches
from fastbert_jax.training.terms import COMPUTED, KEPT, Kept, Views

ABOUT, VALUES = "about.json", "values.npy"
CHUNK = 2**20
"""Texts that are written or looked at at a time."""


class BatchStream:
    """All batches of a phase by their position, of the kind `computed`. A subclass may give other kinds and more views.

    Every process calls every function in the same order.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.batches.batches_per_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def views(self, start: int) -> Generator[tuple[str, Views]]:
        """The kind and the views of each batch from step `start` on; closing the iterator ends the work ahead."""
        with contextlib.closing(self.batches.stream(start)) as stream:
            for batch in stream:
                yield COMPUTED, {"batch": batch}

    def open(self, frozen: Any, *, done: int) -> None:
        """Begin, or go on after `done` steps, with these frozen parameters."""

    def keep(self, step: int, values_BxKxN: jax.Array) -> None:
        """Take what the case of step `step`, from 0, keeps, as an array of all processes' rows."""

    def settle(self, done: int) -> None:
        """Write what was kept to the disk; called before the state after `done` steps is saved."""


class KeptValues(BatchStream):
    """Batches, and N values of each of their texts: of the kind `kept` while the values of all texts are known."""

    batches: TrainingBatches

    def __init__(self, directory: Path, batches: TrainingBatches, *, corpus: str, classes: int) -> None:
        """Nothing is opened yet.

        Args:
          corpus: words that differ when the texts do.
          classes: N.
        """
        super().__init__(batches)
        self._directory = directory
        self._errors = functools.partial(
            unless_refused, directory, "read and write the kept values, which all processes share", remedy=MAKE_ROOM
        )
        self._about: dict[str, Any] = {"corpus": corpus, "texts": batches.total_texts, "classes": classes}
        self._values: np.memmap
        self._complete = False

    def open(self, frozen: Any, *, done: int) -> None:
        """Open the values that were kept after `done` steps, or begin without any.

        Args:
          frozen: the parameters that the values depend on.

        Raises:
          UserError: the directory cannot be read or written.
        """
        self._about["parameters"] = tree_sha256(frozen)
        processes.first_alone(lambda: self._find_or_begin(done))
        self._open_values()

    def views(self, start: int) -> Generator[tuple[str, Views]]:
        """See `BatchStream`."""
        with contextlib.closing(super().views(start)) as stream:
            for step, (kind, views) in enumerate(stream, start):
                values_BxKxN = self.view(step)
                yield (kind, views) if values_BxKxN is None else (KEPT, {**views, "kept": Kept(values_BxKxN)})

    def view(self, step: int) -> np.ndarray | None:
        """The values of this process's rows of the batch of `step`, counted from 0; None in an epoch without.

        Float32 `[B, K, N]`, 0 where there is no text.
        """
        if not self._complete:
            return None
        numbers_BxK = self.batches.texts_at(step)
        values_BxKxN = np.zeros((*numbers_BxK.shape, self._about["classes"]), np.float32)
        values_BxKxN[numbers_BxK >= 0] = self._values[numbers_BxK[numbers_BxK >= 0]]
        return values_BxKxN

    def keep(self, step: int, values_BxKxN: Any) -> None:
        """Keep the values of the batch of `step`, of all processes' rows, as an array that every process can read."""
        if processes.is_first():
            numbers_BxK = self.batches.texts_at(step, local=False)
            self._values[numbers_BxK[numbers_BxK >= 0]] = np.asarray(values_BxKxN)[numbers_BxK >= 0]

    def settle(self, done: int) -> None:
        """Write what was kept to the disk; called before the state after `done` steps is saved.

        Raises:
          UserError: it cannot be written.
        """
        if not self._complete:
            processes.first_alone(lambda: self._flush(done))
            if done % self.batches.batches_per_epoch == 0:
                self._open_values()

    def _find_or_begin(self, done: int) -> None:
        about, checksums = self._directory / ABOUT, self._directory / CHECKSUMS
        epoch_began = done - done % self.batches.batches_per_epoch
        with self._errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            problem = self._problem() if about.exists() else ""
            if problem:
                processes.say(f"{problem}\nThe kept values are not used; they are computed again.")
            if problem or not about.exists():
                self._begin()
            if not checksums.exists():
                if epoch_began and not problem:
                    processes.say(f"{self._directory}: kept values are missing; they are computed again")
            elif epoch_began < json.loads(about.read_text(encoding="utf-8"))["complete_after"]:
                checksums.unlink()  # the run was stopped before the state after the last of these steps was saved

    def _problem(self) -> str:
        """Why the values in the directory cannot be used; empty: they can."""
        try:
            found = json.loads(read_file(self._directory / ABOUT))
            other = [key for key in self._about if found.get(key) != self._about[key]]
            if other:
                return f"{self._directory}: expected values that this run kept, found other {' and '.join(other)}"
            self._mapped("r")
        except Exception as error:  # numpy raises many kinds for damaged files
            return f"{self._directory}: expected kept values, found a damaged file: {error}"
        return "\n".join(changed_files(self._directory)) if (self._directory / CHECKSUMS).exists() else ""

    def _begin(self) -> None:
        """Make all values unknown; `about.json` is written last, and makes the directory complete."""
        for path in (self._directory / name for name in (CHECKSUMS, ABOUT, VALUES)):
            if path.is_dir():
                put_aside(path, "expected a file, found a directory")
            else:
                path.unlink(missing_ok=True)
        remove_unfinished(self._directory)
        # Written, not left as a hole: on a full disk a hole would end the process when a value is written into it.
        with atomic_file(self._directory / VALUES, "wb") as stream:
            texts, classes = self._about["texts"], self._about["classes"]
            header = {"descr": "<f4", "fortran_order": False, "shape": (texts, classes)}
            np.lib.format.write_array_header_2_0(stream, header)
            for start in range(0, texts, CHUNK):
                stream.write(np.full((min(CHUNK, texts - start), classes), np.nan, "<f4").tobytes())
        write_json(self._directory / ABOUT, self._about)

    def _flush(self, done: int) -> None:
        """Write the values to the disk and, at the end of an epoch, checksums if there is none missing."""
        with self._errors():
            self._values.flush()
            if done % self.batches.batches_per_epoch:
                return
            starts = range(0, len(self._values), CHUNK)
            if missing := sum(int(np.isnan(self._values[start : start + CHUNK, 0]).sum()) for start in starts):
                processes.say(f"{self._directory}: values of {missing} texts are missing; another epoch computes them")
                return
            write_json(self._directory / ABOUT, self._about | {"complete_after": done})
            write_checksums(self._directory)

    def _open_values(self) -> None:
        """Find out, with one answer for all processes, whether the values are complete; open them if so.

        The first process, which writes them, opens them in any case.
        """
        first = processes.is_first()
        self._complete = processes.all_well(not first or (self._directory / CHECKSUMS).exists())

        def open_own() -> None:
            with self._errors():
                self._values = self._mapped("r+" if first else "r")

        processes.together(open_own if first or self._complete else lambda: None)

    def _mapped(self, mode: Any) -> np.memmap:
        path = self._directory / VALUES
        if path.exists() and not path.is_file():  # to read a FIFO would never end
            raise ValueError(f"{VALUES} is no regular file")
        values: np.memmap = np.lib.format.open_memmap(path, mode)
        expected = (self._about["texts"], self._about["classes"])
        if values.shape != expected or values.dtype != np.float32:
            raise ValueError(f"{VALUES} of {values.dtype} {list(values.shape)}, not float32 {list(expected)}")
        return values


def tree_sha256(tree: Any) -> str:
    """SHA-256 of the names and values of a tree's arrays, on any mesh; every process calls it."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(processes.whole(leaf).tobytes())
    return digest.hexdigest()

"""The teacher's answers to all texts of a corpus, in a directory: found by the text's number, mapped into memory.

teacher_answers/  about.json (whose answers to which texts)  logits.npy (float32 [texts, N])
                  sealed.json (the step when all were there)  files.json (checksums)

A text whose answer is not there yet has NaN. `files.json` is there from the moment on when every answer is: the file
is *sealed*, and whatever happens to it later shows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.atomic_files import atomic_file, is_unfinished, write_json
from fastbert_jax.errors import UserError
from fastbert_jax.training.file_checksums import FILES, write_checksums, wrong_files

ABOUT, LOGITS, SEALED = "about.json", "logits.npy", "sealed.json"
CHUNK = 2**20
"""Texts that are looked at or begun at a time."""


class AnswerFile:
    """One process writes it, and others read it once it is sealed."""

    def __init__(self, directory: Path, *, texts: int, classes: int) -> None:
        """Answers `[texts, classes]`; nothing is opened yet."""
        self._directory, self._shape = directory, (texts, classes)
        self._logits: np.memmap

    @property
    def sealed_at(self) -> int | None:
        """The step after which every answer was there; None while some are missing."""
        if not (self._directory / FILES).exists():
            return None
        with self._errors():
            return int(json.loads((self._directory / SEALED).read_text(encoding="utf-8")))

    def open_or_begin(self, about: dict[str, Any]) -> str:
        """Open the answers to write more of them, or begin without any; why those that were there are of no use.

        Args:
          about: what the answers depend on, for JSON.

        Raises:
          UserError: it cannot be written.
        """
        about = about | {"texts": self._shape[0], "classes": self._shape[1]}
        problem = ""
        with self._errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            if (self._directory / ABOUT).exists():
                problem = self._problem(about)
            if problem or not (self._directory / ABOUT).exists():
                self._begin(about)
            self._logits = self._mapped("r+")
        return problem

    def open_sealed(self) -> None:
        """Open the answers to read them.

        Raises:
          UserError: they are not there.
        """
        with self._errors():
            self._logits = self._mapped("r")

    def read(self, numbers_BxK: np.ndarray) -> np.ndarray:
        """The answers `[B, K, N]` to the texts of these numbers; 0 where a number is -1."""
        held_BxK = numbers_BxK >= 0
        answers_BxKxN = np.zeros((*numbers_BxK.shape, self._shape[1]), np.float32)
        answers_BxKxN[held_BxK] = self._logits[numbers_BxK[held_BxK]]
        return answers_BxKxN

    def write(self, numbers_BxK: np.ndarray, answers_BxKxN: np.ndarray) -> None:
        """Write the answers to the texts of these numbers, but for those of -1. Not for a sealed file."""
        held_BxK = numbers_BxK >= 0
        self._logits[numbers_BxK[held_BxK]] = answers_BxKxN[held_BxK]

    def flush(self) -> None:
        """Return when all that was written is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._errors():
            self._logits.flush()

    def seal(self, done: int) -> int:
        """Write the number of steps that are done, and checksums, if every answer is there; how many are not.

        Raises:
          UserError: it could not be written.
        """
        self.flush()
        chunks = (self._logits[start : start + CHUNK] for start in range(0, len(self._logits), CHUNK))
        missing = sum(int(np.isnan(chunk).any(axis=1).sum()) for chunk in chunks)
        if not missing:
            with self._errors():
                write_json(self._directory / SEALED, done)
                write_checksums(self._directory)
        return missing

    def unseal(self) -> None:
        """Let more be written."""
        with self._errors():
            (self._directory / FILES).unlink(missing_ok=True)

    def _problem(self, about: dict[str, Any]) -> str:
        try:
            found = json.loads((self._directory / ABOUT).read_text(encoding="utf-8"))
            other = [key for key in about if found.get(key) != about[key]]
            if other:
                return f"{self._directory}: expected this run's teacher and texts, found other {' and '.join(other)}"
            self._mapped("r")
        except (OSError, ValueError, EOFError, AttributeError) as error:
            return f"{self._directory}: expected the teacher's answers, found a damaged file: {error}"
        return "\n".join(wrong_files(self._directory)) if (self._directory / FILES).exists() else ""

    def _begin(self, about: dict[str, Any]) -> None:
        """Every answer unknown; what it is about is written last, and makes it a file of answers."""
        for path in self._directory.iterdir():
            if path.name in (FILES, SEALED, ABOUT) or is_unfinished(path):
                path.unlink()
        # Written, not left as a hole: on a full disk a hole would end the process when an answer is written into it.
        with atomic_file(self._directory / LOGITS, "wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_2_0(stream, header)
            for start in range(0, self._shape[0], CHUNK):
                rows = min(CHUNK, self._shape[0] - start)
                stream.write(np.full((rows, self._shape[1]), np.nan, "<f4").tobytes())
        write_json(self._directory / ABOUT, about)

    def _mapped(self, mode: Any) -> np.memmap:
        logits = np.load(self._directory / LOGITS, mmap_mode=mode)
        if logits.shape != self._shape or logits.dtype != np.float32:
            raise ValueError(f"{LOGITS} of {logits.dtype} {list(logits.shape)}, not float32 {list(self._shape)}")
        return logits

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self._directory}: expected to read and write the teacher's answers, found: {error}\n"
                "Make room or mend the directory, which all processes share, then run the same command again."
            ) from error

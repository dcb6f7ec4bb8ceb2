"""The predict command: rows of files or stdin in, one answer per row out, chunk by chunk, in one or more processes."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.config import Mode, PredictConfig, Probabilities
from fastbert_jax.config_yaml import to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.inference.answer_files import STDOUT, AnswerFile, AnswerFormat, StandardOutput
from fastbert_jax.inference.calibration import FILE as CALIBRATION
from fastbert_jax.inference.loading import CARD, load_in_use, local_mesh, model_directory
from fastbert_jax.inference.plan import CPU, device_sizes
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info, progress_bar
from fastbert_jax.text.examples import Example, Unreadable, chunks
from fastbert_jax.text.filesystem import expand, is_file, place_of, without_compression
from fastbert_jax.text.sources import STDIN, ExampleReader, is_named_set, open_examples, require_skip

NAME = "{}"
"""What stands for the input's name in the name of an output."""
LAUNCHERS = (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
"""Where Slurm and Open MPI say how many processes there are, and which this is."""
ROWS = 4096
"""Rows of a chunk on a CPU, at most, enough to fill the batches of every length; more where these hold more tokens."""
CHARACTERS = 2**24
"""A chunk ends with the row that reaches so many characters, so that long texts do not fill the memory."""

Row = Example | Unreadable


def predict(config: PredictConfig) -> int:
    """Answer every row of the inputs that are this process's share, each input into its output, in order.

    Returns how many inputs that were; those that were answered before do not count.

    Outputs, and the columns of all inputs, are checked before the first row is answered.
    An output file gets its name only when all of it is written. Under `skip`, a row that cannot be read gives a record
    with the reason, so that there are as many records as rows.

    Raises:
      UserError: no model, no input, an output that cannot be written or resumed, or a bad row under `stop`.
    """
    outputs = _to_do(config)
    if not outputs:
        return 0
    model = _Model(config)
    if len(outputs) > 1:
        for name in outputs:
            with model.opened(name):
                pass
    if config.warm_up:
        model.warm_up()
    answered = 0
    try:
        for name, output in outputs.items():
            model.answer(name, output, prefix=f"{name}: " if len(outputs) > 1 else "")
            answered += 1
        if config.mode is Mode.AUTO and model.predictor.picked:
            info(f"auto picked {model.predictor.picked}")
    finally:
        if 0 < answered < len(outputs):
            info(f"{answered} of {len(outputs)} inputs are answered; --resume leaves them out")
    return answered


def _to_do(config: PredictConfig) -> dict[str, str]:
    """This process's share of the inputs with their outputs; under --resume without those that are complete."""
    outputs = outputs_of(config.input, config.output)
    process = this_process(config.process_count, config.process_index, os.environ)
    mine = process.share(outputs)
    if process.count > 1:
        nothing = "" if mine else ": nothing to do"
        info(f"{process} answers {len(mine)} of {len(outputs)} inputs{nothing}")
    left = {name: output for name, output in mine.items() if not (config.resume and AnswerFile(output).is_complete())}
    for output in left.values():
        if output != STDOUT:
            AnswerFile(output).check()
    if len(left) < len(mine):
        which = next(iter(mine.values())) if len(mine) == 1 else f"{len(mine) - len(left)} of {len(mine)} outputs"
        info(f"{which}: complete, nothing to do; without --resume made anew")
    return left


class _Model:
    """A model and the settings of the command, which answer one input after another."""

    def __init__(self, config: PredictConfig) -> None:
        self.predictor, self._speed = load_in_use(config, mesh=local_mesh(config.mesh, count=config.devices))
        self._config = config
        shown = config.probabilities is Probabilities.ALL
        self._form = AnswerFormat.of(
            config.output, self.predictor.labels, keep=config.keep, top=config.top, probabilities=shown
        )
        self._settings = {} if config.output == STDOUT else settings_of(config, self.predictor, self._speed)
        self._batches = {"batch_size": config.batch_size, "batch_tokens": config.batch_tokens}
        self._told = ""  # of the columns of the last input

    def warm_up(self) -> None:
        """Compile all programs, and say how many."""
        info(str(self.predictor.warm_up(self._config.mode, **self._batches)))

    def opened(self, name: str) -> contextlib.AbstractContextManager[ExampleReader]:
        """The rows of an input, read like those of training where the command does not say otherwise."""
        keep, trained = self._config.keep, self.predictor.reading
        return open_examples(name, self._config, role="test", trained=trained, keep=keep)

    def answer(self, name: str, output: str, *, prefix: str) -> None:
        """Answer the rows of one input that are not answered yet.

        Args:
          prefix: of the notes about it.
        """
        before, unreadable = "rows were answered before", "rows could not be read; their records say why"
        long = f"texts have more than {self.predictor.max_length} tokens and were cut"
        numbers = Counter({before: 0, unreadable: 0, long: 0})  # in this order
        first = 1
        file = StandardOutput() if output == STDOUT else AnswerFile(output)
        settings = {"input": name, **self._settings}
        with self.opened(name) as rows:
            columns = rows.note.removeprefix(rows.table.name)
            if columns and columns != self._told:
                info(rows.note)
            self._told = columns
            with (
                file.opened(self._form, settings, resume=self._config.resume),
                progress_bar("predict", total=rows.table.row_count, unit="texts") as advance,
            ):
                most = ROWS * device_sizes().batch_tokens // CPU.batch_tokens
                for chunk in chunks(rows, rows=most, characters=CHARACTERS):
                    checksum = checksum_of(chunk, first=first)
                    if file.has(checksum):
                        numbers[before] += len(chunk)
                        advance(len(chunk), "")
                    else:
                        content, cut = self._answers(chunk, lambda count: advance(count, ""), first=first)
                        file.add(checksum, content)
                        numbers[long] += cut
                    first += len(chunk)
                    numbers[unreadable] += sum(isinstance(row, Unreadable) for row in chunk)
        for what, number in numbers.items():
            if number:
                info(f"{prefix}{number} {what}")

    def _answers(self, chunk: Sequence[Row], advance: Callable[[int], None], *, first: int) -> tuple[bytes, int]:
        """The bytes of the answers to some rows, and how many texts were too long and cut; `first`: a row's number."""
        texts = [row.text for row in chunk if isinstance(row, Example)]
        for row in chunk:
            if isinstance(row, Unreadable):
                require_skip(row, self._config)
        advance(len(chunk) - len(texts))
        plan = self.predictor.plan(texts, **self._batches)
        answers = self.predictor.predict_plan(plan, speed=self._speed, mode=self._config.mode, on_batch=advance)
        return self._form.part(chunk, answers, first=first), plan.truncated_texts


def settings_of(config: PredictConfig, predictor: Predictor, speed: float | np.ndarray) -> dict[str, Any]:
    """What answers depend on besides the texts, as JSON values by name; equal ones give equal bytes on one machine.

    `on_bad_row` is not among them: under `stop`, an output with a bad row is never complete.
    """
    return {
        "model": model_checksum(config.model),
        "speed": np.asarray(speed).tolist(),
        "exits": to_dict(predictor.exits),
        "mode": config.mode.value,
        "batch_size": config.batch_size,
        "batch_tokens": config.batch_tokens,
        "keep": config.keep,
        "top": config.top,
        "probabilities": config.probabilities.value,
        "devices per copy of the model": [config.mesh.fsdp, config.mesh.tensor],  # they add in another order
    }


def model_checksum(directory: str | Path) -> str:
    """SHA-256 of a model's files, in any directory: settings, weights and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(model_directory(directory).iterdir()):
        if path.is_file() and path.name not in (CALIBRATION, CARD) and not path.name.startswith("."):
            with open(path, "rb") as stream:
                digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def checksum_of(chunk: Sequence[Row], *, first: int = 1) -> str:
    """A checksum of all that the records of some rows depend on, their numbers from `first` on included."""
    digest = hashlib.blake2b(repr(first).encode(), digest_size=16)
    for row in chunk:
        content = row.text if isinstance(row, Example) else (None, row.where, row.problem)
        digest.update(repr((content, row.kept)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Process:
    """One of several processes that run the same command."""

    index: int
    """From 0."""
    count: int
    source: str = ""
    """The launcher's variables that say so; empty when the command does, or nothing does."""

    def share(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """The inputs of this process and their outputs; every input belongs to exactly one process."""
        return dict(list(outputs.items())[self.index :: self.count])

    def __str__(self) -> str:
        return f"process {self.index} of {self.count}" + (f" ({self.source})" if self.source else "")


def this_process(count: int, index: int, environment: Mapping[str, str]) -> Process:
    """The process that the command names, else the one that its launcher names, else the only one.

    Args:
      count: how many processes there are; 0: not given.
      index: which one this is, from 0; -1: not given.

    Raises:
      UserError: the launcher's numbers make no sense.
    """
    if count:
        return Process(index, count)
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            found = [environment[name] for name in names]
            numbers = [int(text) if text.isdecimal() else -1 for text in found]
            if not 0 <= numbers[1] < numbers[0]:
                raise UserError(
                    f"expected {names[0]} processes, of which this is {names[1]}, found {found[0]!r} and {found[1]!r}; "
                    "pass --process-count and --process-index"
                )
            return Process(numbers[1], numbers[0], " and ".join(names))
    return Process(0, 1)


def outputs_of(inputs: Sequence[str], output: str) -> dict[str, str]:
    """Every input with its output, in order; the files that a pattern matches are sorted.

    Raises:
      UserError: a pattern that no file matches, several inputs for one output, or an output that is an input.
    """
    found = [name for given in inputs for name in (expand((given,), key="--input") if _is_pattern(given) else [given])]
    several = len(found) > 1 or any(_is_pattern(name) for name in inputs)
    if several and NAME not in output:
        raise UserError(
            f"--output: expected a name with {NAME}, which each input's own name replaces, for the {len(found)} inputs,"
            f" found {output!r}; write 'answers/{NAME}.jsonl'"
        )
    by_stem: dict[str, str] = {}
    for name in found:
        stem = stem_of(name)
        if stem in by_stem:
            raise UserError(
                f"--input: {by_stem[stem]} and {name} would have the same output, as both are named {stem!r}; "
                "answer them in two commands, with different outputs"
            )
        by_stem[stem] = name
    outputs = {name: output.replace(NAME, stem) for stem, name in by_stem.items()}
    sources = {Path(_absolute(name)).resolve() for name in found}
    by_target: dict[Path, str] = {}
    for place in (place for place in outputs.values() if place != STDOUT):
        path = Path(_absolute(place))
        other = by_target.setdefault(path.resolve(), place)
        if other != place:
            raise UserError(f"--output: {other!r} and {place!r} are links to one file; remove one of them")
        if path.resolve() in sources or any(_is_pattern(name) and path.match(_absolute(name)) for name in inputs):
            raise UserError(
                f"--output: {place!r} is one of the inputs, or matches them; use another directory or ending"
            )
    return outputs


def stem_of(name: str) -> str:
    """An input's name without its directory and its endings: `a` for `texts/a.jsonl.gz`."""
    if name == STDIN:
        return "stdin"
    if is_named_set(name):
        return re.sub("[:/#]", "_", name)
    return without_compression(name).stem


def _is_pattern(name: str) -> bool:
    """Whether a name is a pattern and not that of a file."""
    return glob.has_magic(name) and not is_named_set(name) and not is_file(place_of(name))


def _absolute(name: str) -> str:
    return os.path.abspath(os.path.expanduser(name))

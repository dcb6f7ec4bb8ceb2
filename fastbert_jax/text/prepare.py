"""Tokenise a corpus once, in parallel: python -m fastbert_jax.text.prepare --help"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbert_jax.atomic_files import is_unfinished, lock_file
from fastbert_jax.command_line import end_with, read_settings
from fastbert_jax.config import Delimiter, PrepareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import result, status
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.corpus_format import Ledger, Shard, read_ledger, shard_of, token_dtype
from fastbert_jax.text.corpus_workers import write_inputs
from fastbert_jax.text.corpus_writer import InputWork
from fastbert_jax.text.filesystem import expand, is_file, place_of, size_of
from fastbert_jax.text.prepared_corpus import verify
from fastbert_jax.text.sources import BUILTIN, TFDS, what_is_read
from fastbert_jax.text.tokenizer import Tokenizer, load_tokenizer

LOCK = ".lock"


def main() -> None:
    """Prepare or verify, and say what there is."""
    config = read_settings(PrepareConfig, sys.argv[1:], program="python -m fastbert_jax.text.prepare")
    if config.verify:
        directory = Path(config.verify).expanduser()
        with progress_bar("verify", total=None, unit="texts") as advance:
            ledger = verify(directory, lambda count: advance(count, ""))
        result(f"{directory}: every byte is as it was made. {words(ledger)}")
    else:
        ledger = prepare(config)
        result(f"{config.output}: {words(ledger)}\nTrain on them with --data.unlabelled prepared:{config.output}")


def words(ledger: Ledger) -> str:
    """What a corpus holds, in sentences."""

    def total(field: str) -> int:
        return sum(getattr(shard, field) for shard in ledger.shards)

    sentences = [
        f"{total('texts'):,} texts, {total('tokens'):,} tokens, in {len(ledger.shards)} shards "
        f"from {len(ledger.inputs)} inputs."
    ]
    if total("truncated_texts"):
        sentences.append(
            f"{total('truncated_texts'):,} texts have more than {ledger.settings['max_length']} tokens: "
            f"{total('truncated_tokens'):,} tokens were cut off."
        )
    if total("bad_rows"):
        examples = next(shard.bad_row_examples for shard in ledger.shards if shard.bad_rows)
        sentences.append(f"{total('bad_rows'):,} rows were left out; the first: {examples[0]}.")
    return " ".join(sentences)


def prepare(config: PrepareConfig) -> Ledger:
    """Make the corpus that `config` describes, or what is left of it.

    Raises:
      UserError: an input or a row that cannot be read, a directory that holds something else or a corpus of other
        settings (all differences are listed), or a worker that died.
    """
    directory = Path(config.output).expanduser()
    names = expand(config.input, key="input")
    tokenizer_directory = pretrained_directory(config.tokenizer)
    tokenizer = load_tokenizer(tokenizer_directory)
    ledger = Ledger(settings=_settings(config, tokenizer), inputs=_sizes(names), shards=(), finished=False)
    status(what_is_read(names[0], config.reading))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _only_one(directory):
            done = _claim(directory, ledger)
            todo = [
                InputWork(
                    directory=directory,
                    input=number,
                    name=name,
                    data=config.reading,
                    max_length=config.max_length,
                    shard_texts=config.shard_texts,
                    token_dtype=ledger.settings["token_dtype"],
                    done=tuple(done[number]),
                )
                for number, name in enumerate(names)
                if not (done[number] and done[number][-1].last)
            ]
            before = sum(shard.texts for shards in done for shard in shards)
            with progress_bar("prepare", total=None, unit="texts", done=before) as advance:
                write_inputs(
                    todo, tokenizer_directory, workers=config.workers, advance=lambda count: advance(count, "")
                )
            return _finish(directory, ledger)
    except OSError as error:
        raise UserError(f"--output {directory}: expected a directory that can be written, found {error}") from None


def _settings(config: PrepareConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    # What corpora had before there was a choice stays as it was.
    chosen = {} if config.delimiter is Delimiter.AUTO else {"delimiter": config.delimiter.value}
    return chosen | {
        "tokenizer": tokenizer.fingerprint,
        "max_length": config.max_length,
        "shard_texts": config.shard_texts,
        "text_column": config.text_column,
        "pair_column": config.pair_column,
        "on_bad_row": config.on_bad_row.value,
        "token_dtype": token_dtype(tokenizer.vocab_size),
        "versions": {name: importlib.metadata.version(name) for name in ("tokenizers", "array-record")},
    }


def _sizes(names: Sequence[str]) -> dict[str, int]:
    sizes = {}
    for name in names:
        if name.startswith((BUILTIN, TFDS)):
            raise UserError(f"input: expected files, found {name}; sets with a name need no preparation")
        place = place_of(name)
        if not is_file(place):
            raise UserError(f"input: expected a file, found nothing at {name}; check the path")
        sizes[name] = size_of(place)
    return sizes


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Keep other processes from the directory; not on a file system that knows no locks."""
    with open(directory / LOCK, "wb") as stream:
        lock_file(stream, directory)
        yield


def _claim(directory: Path, ledger: Ledger) -> list[list[Shard]]:
    """Make the directory this corpus's, or check that it is; the shards of each input that are there, up to a gap."""
    there = read_ledger(directory)
    if there is None:
        found = sorted(path.name for path in directory.iterdir() if path.name != LOCK and not is_unfinished(path))
        if found:
            raise UserError(f"{directory}: expected an empty directory or that of a corpus, found {found[:5]}")
        ledger.write(directory)
        there = ledger
    differences = _differences(there, ledger)
    if differences:
        lines = "\n".join(f"  {difference}" for difference in differences)
        raise UserError(
            f"{directory}: expected the corpus that these settings began, found one with others:\n{lines}\n"
            "Give the same settings and inputs to go on, or another --output."
        )
    shards = {shard.name: shard for shard in (*there.shards, *_entries(directory))}
    for path in directory.iterdir():
        if is_unfinished(path):
            path.unlink()
    done: list[list[Shard]] = [[] for _ in ledger.inputs]
    for number, found_shards in enumerate(done):
        for part in itertools.count():
            shard = shards.get(f"{number:05d}-{part:05d}")
            if shard is None or not shard.is_there(directory):
                break
            found_shards.append(shard)
    return done


def _entries(directory: Path) -> Iterator[Shard]:
    """The entries of shards that a stopped command has left."""
    for path in sorted(directory.glob("*-*.json")):
        yield shard_of(json.loads(path.read_text(encoding="utf-8")))


def _differences(there: Ledger, now: Ledger) -> list[str]:
    found = []
    for what, old, new in (("", there.settings, now.settings), ("input ", there.inputs, now.inputs)):
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                found.append(f"{what}{key}: there {old.get(key)!r}, now {new.get(key)!r}")
    if not found and list(there.inputs) != list(now.inputs):
        found.append("the inputs: in another order")
    return found


def _finish(directory: Path, ledger: Ledger) -> Ledger:
    """Write the ledger of what is there, and clear away what it replaces."""
    there = read_ledger(directory)
    shards = {shard.name: shard for shard in (*(there.shards if there else ()), *_entries(directory))}
    ledger = dataclasses.replace(ledger, shards=tuple(shards[name] for name in sorted(shards)), finished=True)
    ledger.write(directory)
    for shard in ledger.shards:
        shard.entry_file(directory).unlink(missing_ok=True)
    return ledger


if __name__ == "__main__":
    end_with(main)

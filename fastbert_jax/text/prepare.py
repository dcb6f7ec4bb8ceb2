"""Tokenise a corpus once, in parallel: python -m fastbert_jax.text.prepare --help"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.atomic_files import (
    atomic_file,
    is_unfinished,
    lock_file,
    remove_unfinished,
    sha256_of,
    user_path,
    write_json,
)
from fastbert_jax.command_line import end_with, read_settings
from fastbert_jax.config import AUTO_ENCODING, PrepareConfig, require
from fastbert_jax.errors import UserError
from fastbert_jax.log import progress_bar, result, status
from fastbert_jax.text.builtin import nothing_at, pretrained_directory
from fastbert_jax.text.corpora import (
    MANIFEST,
    TEXT_DTYPE,
    TEXTS,
    TOKENS,
    Manifest,
    Shard,
    checksums,
    read_manifest,
    share_name,
    verify,
)
from fastbert_jax.text.examples import Example, Unreadable, chunks, is_blank, same_text
from fastbert_jax.text.filesystem import expand, place_of, size_of
from fastbert_jax.text.sources import is_named_set, open_examples, require_skip
from fastbert_jax.text.tokenizer import Encoded, Tokenizer, load_tokenizer

LOCK = ".lock"
CHUNK, CHUNK_CHARACTERS = 1024, 2**22
"""Texts that are tokenised at once, and their characters, at most."""
BAD_ROWS_TO_NAME = 10
ENTRIES = "*-*.json"
"""Files with each shard's part of the manifest, until all shards are made."""
POLL_SECONDS = 0.2
"""How often the progress of the workers is looked at."""


def main() -> None:
    """Prepare or verify, and say what the corpus holds."""
    config = read_settings(PrepareConfig, sys.argv[1:], program="python -m fastbert_jax.text.prepare")
    if config.verify:
        directory = user_path(config.verify)
        with progress_bar("verify", total=None, unit="bytes") as advance:
            manifest = verify(directory, advance)
        result(f"{directory}: no byte has changed. {words(manifest)}")
    else:
        manifest = prepare(config)
        directory = _directory(config)
        shared = ", once all shares are there" if directory != user_path(config.output) else ""
        result(f"{directory}: {words(manifest)}\nTrain on them with --data.unlabelled prepared:{config.output}{shared}")


def words(manifest: Manifest) -> str:
    """What a corpus holds, in sentences."""
    total, shards = manifest.total, manifest.shards
    sentences = [
        f"{total('texts'):,} texts, {total('tokens'):,} tokens, in {len(shards)} shards "
        f"from {len(manifest.inputs)} inputs."
    ]
    if total("truncated_texts"):
        sentences.append(
            f"{total('truncated_texts'):,} texts have more than {manifest.settings['max_length']} tokens: "
            f"{total('truncated_tokens'):,} tokens were cut off."
        )
    if total("bad_rows"):
        examples = next(shard.bad_row_examples for shard in shards if shard.bad_rows)
        sentences.append(f"{total('bad_rows'):,} rows were left out; the first: {examples[0]}.")
    return " ".join([*sentences, *(f"{note}." for note in manifest.notes)])


def _directory(config: PrepareConfig) -> Path:
    number, shares = config.number_of_share
    return user_path(config.output) / (share_name(number, shares) if shares > 1 else "")


def prepare(config: PrepareConfig) -> Manifest:
    """Make the corpus or the share of it that `config` describes, or the shards of it that are missing.

    Raises:
      UserError: an input or a row that cannot be read, a directory that holds something else or a corpus of other
        settings (all differences are listed), or a worker that was killed.
    """
    directory = _directory(config)
    names = expand(config.input, key="input")
    for name in names:
        if is_named_set(name):
            raise UserError(f"input: expected files, found {name}; sets with a name need no preparation")
    first, shares = config.number_of_share
    require(shares <= len(names), "share", f"at most {len(names)} shares, as there are so many inputs", config.share)
    if shares > 1 and (user_path(config.output) / MANIFEST).exists():
        raise UserError(f"--output {config.output}: expected no corpus or its shares, found one that is not shared")
    numbers = range(first, len(names), shares)
    inputs = {names[number]: size_of(place_of(names[number])) for number in numbers}
    tokenizer = _load_tokenizer(config.tokenizer)
    settings = _settings(config, tokenizer)
    if shares > 1:  # the shares fit each other if they were cut from one list
        settings["shared_inputs"] = f"{len(names)}, sha256 {hashlib.sha256(repr(names).encode()).hexdigest()}"
    manifest = Manifest(settings=settings, inputs=inputs, shards=(), finished=False)
    with open_examples(names[first], config) as reader:
        for note in filter(None, (*tokenizer.notes, reader.note)):
            status(note)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / LOCK, "wb") as lock:
            lock_file(lock, directory)
            done = _claim(directory, manifest, numbers)
            work = [
                functools.partial(write_input, config, manifest, number, names[number], shards)
                for number, shards in done.items()
                if not (shards and shards[-1].last)
            ]
            with progress_bar("prepare", total=None, unit="texts", done=sum(map(_texts, done.values()))) as advance:
                _run(work, config.workers, directory, advance)
            return _finish(directory, manifest)
    except OSError as error:
        raise UserError(f"--output {directory}: expected a directory that can be written, found {error}") from None


def _texts(shards: Iterable[Shard]) -> int:
    return sum(shard.texts for shard in shards)


def _settings(config: PrepareConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer.fingerprint,
        **{key: getattr(config, key) for key in ("max_length", "shard_texts", "pair_column")},
        "text_column": list(config.text_columns) if len(config.text_columns) > 1 else "".join(config.text_columns),
        "delimiter": config.delimiter.value,
        **({} if config.encoding == AUTO_ENCODING else {"encoding": config.encoding}),  # others have no such key
        "on_bad_row": config.on_bad_row.value,
        "token_dtype": "<u2" if tokenizer.vocab_size <= 2**16 else "<u4",
        "versions": {"tokenizers": importlib.metadata.version("tokenizers")},
    }


def _claim(directory: Path, manifest: Manifest, numbers: Iterable[int]) -> dict[int, list[Shard]]:
    """Begin the corpus in the directory, or check that it is this one; the shards that are there, by number of input.

    Of the shards of an input, those before the first missing one count.
    """
    there = read_manifest(directory)
    if there is None:
        found = sorted(path.name for path in directory.iterdir() if path.name != LOCK and not is_unfinished(path))
        if found:
            raise UserError(f"{directory}: expected an empty directory or that of a corpus, found {found[:5]}")
        manifest.write(directory)
        there = manifest
    if differences := _differences(there, manifest):
        raise UserError(
            f"{directory}: expected the corpus that these settings began, found one with others:\n{differences}"
            "Give the same settings and inputs to continue it, or another --output."
        )
    remove_unfinished(directory)
    shards = _shards(directory, there)
    done: dict[int, list[Shard]] = {number: [] for number in numbers}
    for number, found_shards in done.items():
        while (shard := shards.get(_name(number, len(found_shards)))) and not shard.problem(directory):
            found_shards.append(shard)
    return done


def _shards(directory: Path, manifest: Manifest) -> dict[str, Shard]:
    """The shards of the manifest, and those of which an interrupted command has left an entry, by name."""
    return {shard.name: shard for shard in (*manifest.shards, *map(_entry, directory.glob(ENTRIES)))}


def _entry(path: Path) -> Shard:
    return Shard.of(json.loads(path.read_text(encoding="utf-8")))


def _differences(there: Manifest, now: Manifest) -> str:
    """What differs between two corpora, one thing a line."""
    found = ""
    for what, old, new in (("", there.settings, now.settings), ("input ", there.inputs, now.inputs)):
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                found += f"  {what}{key}: there {old.get(key)!r}, now {new.get(key)!r}\n"
    if not found and list(there.inputs) != list(now.inputs):
        return "  the inputs: in another order\n"
    return found


def _finish(directory: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of all shards, and remove the entries that it replaces."""
    shards = _shards(directory, read_manifest(directory) or manifest)
    manifest = dataclasses.replace(manifest, shards=tuple(shards[name] for name in sorted(shards)), finished=True)
    manifest.write(directory)
    for path in directory.glob(ENTRIES):
        path.unlink()
    return manifest


def _name(number: int, part: int) -> str:
    return f"{number:05d}-{part:05d}"


def write_input(
    config: PrepareConfig,
    manifest: Manifest,
    number: int,
    name: str,
    done: Sequence[Shard],
    advance: Callable[[int, str], None] = lambda count, note: None,
) -> None:
    """Write the shards of an input that are not there yet; a shard's entry is written once its files are whole.

    Args:
      manifest: that of the corpus, with its settings.
      number: the input's.
      done: its first shards, which are there.
      advance: called with the texts of each shard that is written.

    Raises:
      UserError: the input cannot be read, or holds a bad row under `stop` or no good one at all.
      OSError: a shard cannot be written.
    """
    texts, part = _texts(done), len(done)
    tokenizer = _tokenizer(config.tokenizer, manifest.settings["tokenizer"])
    with open_examples(name, config) as reader:
        # The rows that are done are read again, as compressed lines cannot be entered in the middle.
        rows = itertools.islice(reader, part * config.shard_texts, None)
        following = next(rows, None)
        while following is not None:
            path = _directory(config) / _name(number, part)
            chunk = itertools.islice(itertools.chain([following], rows), config.shard_texts)
            shard = _write_shard(path, chunk, config, manifest.settings["token_dtype"], tokenizer)
            texts += shard.texts
            following = next(rows, None)
            if following is None and not texts:
                problem = next(iter(shard.bad_row_examples), f"{name}: expected texts, found blank ones")
                raise UserError(f"{problem}; none of the rows of {name} can be read")
            entry = dataclasses.replace(shard, last=following is None)
            write_json(path.with_suffix(".json"), dataclasses.asdict(entry))
            advance(shard.texts, "")
            part += 1


def _load_tokenizer(name: str) -> Tokenizer:
    directory = pretrained_directory(name)
    if not os.path.exists(directory):
        raise UserError(f"--tokenizer: expected a directory with a tokenizer, found {nothing_at(directory)}")
    return load_tokenizer(directory)


@functools.lru_cache(maxsize=1)
def _tokenizer(name: str, fingerprint: str) -> Tokenizer:
    """The tokenizer of this name, which a worker loads once for all of its inputs."""
    return _load_tokenizer(name)


def _write_shard(
    path: Path,
    rows: Iterator[Example | Unreadable],
    config: PrepareConfig,
    token_dtype: str,
    tokenizer: Tokenizer,
) -> Shard:
    """Write the two files of a shard, which is not the last one as far as they say."""
    counts: Counter[str] = Counter()
    lengths = np.zeros(config.max_length + 1, np.int64)
    seen: set[int] = set()
    bad: list[str] = []
    paths = path.with_suffix(TOKENS), path.with_suffix(TEXTS)
    with atomic_file(paths[0], "wb") as tokens_stream, atomic_file(paths[1], "wb") as texts_stream:
        for chunk in chunks(rows, rows=CHUNK, characters=CHUNK_CHARACTERS):
            for record in chunk:
                if isinstance(record, Unreadable):
                    require_skip(record, config)
                    bad.append(f"{record.where}: {record.problem}")
            read = [record.text for record in chunk if isinstance(record, Example)]
            texts = [text for text in read if not is_blank(text)]
            encoded = tokenizer.encode(texts, max_length=config.max_length)
            token_ids = encoded.token_ids.astype(token_dtype)
            tokens_stream.write(token_ids.tobytes())
            texts_stream.write(_places(encoded, token_ids, counts["tokens"]).tobytes())
            lengths += np.bincount(encoded.lengths, minlength=len(lengths))
            before = len(seen)
            seen.update(hash(same_text(text)) for text in texts)
            counts.update(
                texts=len(texts),
                tokens=len(token_ids),
                truncated_texts=encoded.truncated_texts,
                truncated_tokens=encoded.truncated_tokens,
                blank_texts=len(read) - len(texts),
                repeated_texts=len(texts) - (len(seen) - before),
                unknown_texts=int(tokenizer.wholly_unknown(encoded).sum()),
            )
    return Shard(
        name=path.name,
        last=False,
        bad_rows=len(bad),
        bad_row_examples=tuple(bad[:BAD_ROWS_TO_NAME]),
        lengths=" ".join(map(str, np.trim_zeros(lengths, "b").tolist())),
        files={path.name: (path.stat().st_size, sha256_of(path)) for path in paths},
        **counts,
    )


def _places(encoded: Encoded, token_ids: np.ndarray, start: int) -> np.ndarray:
    """Where texts lie in a shard that holds `start` tokens before them, `TEXT_DTYPE [n]`."""
    places = np.zeros(len(encoded), TEXT_DTYPE)
    places["start"] = encoded.offsets[:-1] + start
    places["tokens"] = encoded.lengths
    if len(encoded):
        places["first"] = np.add.reduceat(encoded.token_types == 0, encoded.offsets[:-1], dtype=np.int64)
    places["crc32"] = checksums(token_ids, encoded.offsets)
    return places


def _run(
    work: Sequence[Callable[..., None]], workers: int, directory: Path, advance: Callable[[int, str], None]
) -> None:
    """Write all inputs; one input is one process's, and the shards do not depend on the processes.

    Args:
      workers: processes; 0: one for each core; 1: this one.
      advance: called with the texts that are done since the last call.

    Raises:
      UserError: a worker was killed.
      Exception: what `write_input` raises. The other workers are ended; what they wrote stays.
    """
    workers = min(workers or os.cpu_count() or 1, len(work))
    if workers <= 1:
        for write in work:
            write(advance=advance)
        return
    others = set(multiprocessing.active_children())
    threads = max((os.cpu_count() or 1) // workers, 1)
    # No fork: the tokenizer's threads would not come along.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads,))
    seen = set(directory.glob(ENTRIES))
    pending: set[Future[None]] = set()
    try:
        # The workers, which inherit what is blocked, leave Ctrl-C to the command, which ends them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pending |= {pool.submit(write) for write in work}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while pending:
            ready, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            new = set(directory.glob(ENTRIES)) - seen
            advance(_texts(map(_entry, new)), "")
            seen |= new
            for future in ready:
                future.result()
    except BrokenProcessPool:
        raise UserError(
            "A worker was killed (out of memory?). Run the same command again to continue; try fewer --workers"
        ) from None
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin_worker(threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = str(threads)


def _end_with_parent() -> None:
    """End this process when the command is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


if __name__ == "__main__":
    end_with(main)

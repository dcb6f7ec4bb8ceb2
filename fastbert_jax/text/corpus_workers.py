"""The processes that share the inputs of a corpus: one input is one worker's, and the shards do not depend on them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from fastbert_jax.errors import UserError
from fastbert_jax.text.corpus_writer import InputWork, write_input
from fastbert_jax.text.tokenizer import Tokenizer, load_tokenizer

POLL_SECONDS = 0.2
"""How often the progress of the workers is looked at."""


def write_inputs(
    todo: Sequence[InputWork], tokenizer_directory: Path, *, workers: int, advance: Callable[[int], None]
) -> None:
    """Write the shards of all inputs that are not there yet.

    Args:
      workers: processes; 0: one for each core; 1: this one.
      advance: called with the texts that are done since the last call.

    Raises:
      UserError: what `write_input` raises, or a worker was killed. The others stop at their next texts.
    """
    if not todo:
        return
    workers = min(workers or os.cpu_count() or 1, len(todo))
    if workers == 1:
        tokenizer = load_tokenizer(tokenizer_directory)
        for work in todo:
            write_input(work, tokenizer, advance)
        return
    # No fork: the tokenizer's threads would not come along.
    context = multiprocessing.get_context("spawn")
    texts, stop = context.Value("q", 0), context.Event()
    threads = max((os.cpu_count() or 1) // workers, 1)
    shown = 0
    with ProcessPoolExecutor(
        workers, context, initializer=_begin, initargs=(tokenizer_directory, threads, texts, stop)
    ) as pool:
        pending = {pool.submit(_write_input, work) for work in todo}
        try:
            while pending:
                ready, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                seen = texts.value
                advance(seen - shown)
                shown = seen
                for future in ready:
                    future.result()
        except BrokenProcessPool:
            raise UserError(
                "expected workers that live, found one that was killed, perhaps for want of memory; "
                "the same command goes on, also with fewer --workers"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class _Given:
    """What a worker process is given when it begins."""

    tokenizer: Tokenizer
    texts: Any
    stop: Any


class _Stopped(Exception):
    """Another worker has failed, or the command was stopped."""


def _begin(tokenizer_directory: Path, threads: int, texts: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which tells its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    _Given.tokenizer, _Given.texts, _Given.stop = load_tokenizer(tokenizer_directory), texts, stop


def _end_with_parent() -> None:
    """End this process when the command is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _write_input(work: InputWork) -> None:
    def advance(count: int) -> None:
        if _Given.stop.is_set():
            raise _Stopped
        with _Given.texts.get_lock():
            _Given.texts.value += count

    write_input(work, _Given.tokenizer, advance)

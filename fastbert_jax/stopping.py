"""Ctrl-C and SIGTERM: one handler keeps the request, and nothing can lose it.

Python drops an exception that a handler raises in a callback of the garbage collector, of which jax has one, or in a
finalizer; and an exception during an import can be mistaken for a failed import. There the request is only kept, and
`look` raises it: every loop over batches or rows calls it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from fastbert_jax.errors import PreemptedError

OWN_HANDLERS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""Python's own handlers of the signals that ask to stop. Only these are replaced: a caller's own ones stay."""

_received = 0
_holding = False


def received() -> int:
    """The number of the signal that has asked to stop, 0 before: for a block of `holding`, which does not raise."""
    return _received


def look() -> None:
    """Raise what a signal has asked for and nothing has raised yet.

    Raises:
      KeyboardInterrupt: after Ctrl-C.
      PreemptedError: after SIGTERM.
    """
    if _received and not _holding and threading.current_thread() is threading.main_thread():
        raise stop_by(_received)


def stop_by(number: int, *words: str) -> KeyboardInterrupt | PreemptedError:
    """The exception of a signal, with words for the user or none yet: see `explained`."""
    return KeyboardInterrupt(*words) if number == signal.SIGINT else PreemptedError(*words)


def name_of(number: int) -> str:
    """What a user calls the signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextlib.contextmanager
def stoppable(*numbers: signal.Signals) -> Iterator[None]:
    """Within the block, and as a decorator within the function, the first of each of these signals asks to stop.

    A second one does what it does in Python by itself. Python lets only the main thread handle signals: in another one,
    and where a caller has handlers of its own, nothing changes.

    Args:
      numbers: SIGINT, SIGTERM or both; none: SIGINT.

    Raises:
      KeyboardInterrupt, PreemptedError: a signal was received.
    """
    global _received
    mine = []
    if threading.current_thread() is threading.main_thread():
        wanted = numbers or (signal.SIGINT,)
        mine = [number for number in wanted if _is_free(number)]
    for number in mine:
        signal.signal(number, _receive)
    try:
        look()
        yield
        look()
    finally:
        for number in mine:
            signal.signal(number, OWN_HANDLERS[number])
        if _received in mine:
            _received = 0


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Within the block a first signal raises nothing: the work asks `received` where it can save and stop."""
    global _holding
    _holding = True
    try:
        yield
    finally:
        _holding = False


@contextlib.contextmanager
def explained(words: str) -> Iterator[None]:
    """Give a stop within the block that has no message yet one: the signal, and these words."""
    try:
        yield
    except (KeyboardInterrupt, PreemptedError) as stop:
        if not stop.args:
            number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
            stop.args = (f"stopped by {name_of(number)}{words}",)
        raise


def _receive(number: int, frame: FrameType | None) -> None:
    global _received
    signal.signal(number, OWN_HANDLERS[number])
    _received = number
    if _holding:
        words = f"{name_of(number)}: stops when the state is saved; a second one stops at once\n"
        with contextlib.suppress(OSError):
            os.write(2, words.encode())  # not `print`, which this may have interrupted
    elif not _loses_exceptions(frame):
        raise stop_by(number)


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Whether code that is under way drops or replaces an exception: garbage collection, a finalizer, an import."""
    collectors = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None:
        code = frame.f_code
        if code in collectors or code.co_name == "__del__" or code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _is_free(number: int) -> bool:
    """Whether the signal has no handler of a caller and is not ignored."""
    return signal.getsignal(number) in (OWN_HANDLERS[number], _pass, None)


def _pass(number: int, frame: FrameType | None) -> None:
    pass


def begin_command() -> None:
    """Handle Ctrl-C in a process that is a command; a second one ends it at once, with code 130, whatever it does."""
    if not _is_free(signal.SIGINT):
        return
    signal.signal(signal.SIGINT, _receive)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reader,), daemon=True).start()


def _end_at_second(reader: int) -> None:
    """Read the number of every signal: Python's handlers wait for compilers and other long calls, this does not."""
    count = 0
    while number := os.read(reader, 1):
        count += number[0] == signal.SIGINT
        if count > 1:
            os._exit(128 + signal.SIGINT)


def end_command() -> None:
    """Let Ctrl-C pass while Python itself ends, where it would print a traceback or take the exit code."""
    global _received
    _received = 0
    signal.signal(signal.SIGINT, _pass)
    # At its very end, Python gives up its handlers, but not those that ignore.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

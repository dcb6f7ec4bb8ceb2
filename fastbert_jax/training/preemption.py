"""SIGTERM: the machine is about to be taken away, so the run saves its state and ends with code 42."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastbert_jax import processes
from fastbert_jax.errors import PreemptedError
from fastbert_jax.model.sharding import sharding_of


class StopRequest:
    """Whether somebody has asked this run to stop, as one answer for all processes.

    Every process tells at every step whether it has had the signal, and reads what all told a step before: so all stop
    at the same step, whichever of them was signalled.
    """

    def __init__(self) -> None:
        self.here = False
        """Whether this process has had the signal."""
        self.heeded = False
        """Whether somebody asks `agreed`; while nobody does, the signal raises `PreemptedError` where it strikes."""
        self._told: jax.Array | None = None

    def agreed(self, mesh: Mesh) -> bool:
        """Whether to stop now. Every process calls it at the same steps."""
        if processes.count() == 1:
            return self.here
        before, shape = self._told, (mesh.devices.size,)
        flags = jax.make_array_from_callback(
            shape,
            NamedSharding(mesh, PartitionSpec(mesh.axis_names)),
            lambda index: np.full(shape, self.here)[index],
        )
        self._told = _any_of(mesh)(flags)
        return before is not None and bool(before)

    def anywhere(self) -> bool:
        """Whether any process has had the signal by now. Every process calls it."""
        return not processes.all_well(not self.here)

    def _strike(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.here = True
        if not self.heeded:
            raise PreemptedError("stopped by SIGTERM; there was nothing to save, and the same command goes on")


@functools.cache
def _any_of(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """One program for all steps."""
    return jax.jit(jax.numpy.any, out_shardings=sharding_of(mesh, ()))


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Within the block the first SIGTERM is a request; a second one ends the process at once.

    Only Python's main thread can have signals; in another one nothing asks.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request._strike)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

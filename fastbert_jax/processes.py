"""The processes of one run: how they find each other, agree, work together, and stop together on SIGTERM.

A process that is alone calls the same functions. `jax.distributed` connects the processes, before anything touches a
device.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastbert_jax.config import ProcessesConfig
from fastbert_jax.errors import PreemptedError, UserError

Result = TypeVar("Result")


def join(config: ProcessesConfig) -> None:
    """Connect to the other processes, as the settings or the launcher say; do nothing for a process that is alone.

    Raises:
      UserError: the coordinator cannot be reached, or the launcher does not say enough.
    """
    launcher = None if config.coordinator else launcher_of(os.environ)
    if (not config.coordinator and launcher is None) or jax.distributed.is_initialized():
        return
    settings: dict[str, Any] = {
        "coordinator_address": config.coordinator,
        "num_processes": config.count,
        "process_id": config.index,
        "cluster_detection_method": "deactivate",
    }
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM, as `StopRequest` does
    try:
        jax.distributed.initialize(
            **(settings if config.coordinator else {}),
            heartbeat_timeout_seconds=config.heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"processes: expected to join the others by {launcher or 'the settings'}, found: {error}\n"
            "Give --processes.coordinator HOST:PORT, --processes.count N and --processes.index I to each process."
        ) from error


def launcher_of(environment: Mapping[str, str]) -> str | None:
    """The launcher that started several processes of this command, from its environment variables; None: no launcher.

    A TPU machine counts as one of several: jax finds out by itself how many there are.
    """
    if int(environment.get("SLURM_NTASKS", 1)) > 1 and "SLURM_LOCALID" in environment:
        return "Slurm"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "Open MPI"
    platforms = environment.get("JAX_PLATFORMS", "tpu")
    if "tpu" in platforms and importlib.util.find_spec("libtpu") is not None:
        return "the TPU"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "Kubernetes"
    return None


def part() -> None:
    """Disconnect the processes: from here on each works alone with its own devices."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def all_well(well: bool) -> bool:
    """Whether `well` is true in every process; all of them must call this."""
    return well if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(well))))


def together(work: Callable[[], Result]) -> Result:
    """Call `work` in every process and return its result; when it fails in one, none waits for that one.

    Raises:
      UserError: `work` failed in another process. In the process where it failed, what it raised.
    """
    try:
        result = work()
    except BaseException:
        all_well(False)
        raise
    if not all_well(True):
        raise UserError("another process has failed; see what it printed")
    return result


def first_alone(work: Callable[[], None]) -> None:
    """Call `work`, which may write files that all processes share, in the first process while the others wait.

    Raises:
      UserError: what `together` raises.
    """
    together(lambda: work() if is_first() else None)


def check_same(facts: str) -> None:
    """Check that every process has the same settings and texts.

    Raises:
      UserError: in all of them, when one differs.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(facts.encode()).digest(), np.uint8)
    if len(np.unique(multihost_utils.process_allgather(digest), axis=0)) > 1:
        raise UserError(
            "processes: expected the same command and the same files on every host, found settings, labels or texts "
            "that differ from one process to another"
        )


class StopRequest:
    """Whether a process of this run has received SIGTERM, with one answer for all processes.

    Every process sends its own answer at every step, and reads the common one of the step before: so all stop at the
    same step, and none waits for the devices.
    """

    def __init__(self) -> None:
        self.here = False
        """Whether this process has received the signal."""
        self.heeded = False
        """Whether the run calls `agreed`; while it does not, the signal raises `PreemptedError` at once."""
        self._before: Any = None

    def agreed(self) -> bool:
        """Whether to stop now. Every process calls it at the same steps."""
        if jax.process_count() == 1:
            return self.here
        before, self._before = self._before, _in_any_process()(self.here)
        return before is not None and bool(before)

    def anywhere(self) -> bool:
        """Whether any process has received the signal by now. Every process calls it."""
        return not all_well(not self.here)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.here = True
        if not self.heeded:
            raise PreemptedError("stopped by SIGTERM with nothing to save; run the same command again to go on")


@functools.cache
def _in_any_process() -> Callable[[bool], Any]:
    """A function of each process's answer, which gives whether any of them is true: an array, perhaps not there yet."""
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
    one_each = NamedSharding(mesh, PartitionSpec("devices"))
    any_of = jax.jit(jax.numpy.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def ask(here: bool) -> Any:
        return any_of(jax.make_array_from_callback((mesh.size,), one_each, lambda index: np.full(1, here)))

    return ask


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Within the block the first SIGTERM is a request to stop; a second one ends the process at once.

    Only Python's main thread can handle signals; in another thread the request never comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request._receive)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

"""The processes of one run: how they find each other, agree, work together, and stop together.

A process that is alone calls the same functions. `jax.distributed` connects the processes, before anything touches a
device.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastbert_jax import stopping
from fastbert_jax.config import ProcessesConfig
from fastbert_jax.errors import LostProcessError, UserError
from fastbert_jax.log import say_once, status

Result = TypeVar("Result")
GREETING = "fastbert_jax"
RETRY_SECONDS, LONGEST_TRY = 1.0, 10.0
LONGEST_WORDS = 4096


def join(config: ProcessesConfig) -> None:
    """Connect to the other processes, as the settings or the launcher say; do nothing for a process that is alone.

    Raises:
      UserError: the others cannot be reached within `wait_seconds`, or the launcher does not say enough.
    """
    launcher = None if config.coordinator else launcher_of(os.environ)
    if (not config.coordinator and launcher is None) or jax.distributed.is_initialized():
        return
    settings: dict[str, Any] = {}
    if config.coordinator:
        _meet(config)
        settings = {
            "coordinator_address": config.coordinator,
            "num_processes": config.count,
            "process_id": config.index,
            "cluster_detection_method": "deactivate",
        }
    jax.config.update("jax_enable_preemption_service", False)  # `stopping` handles SIGTERM
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=config.wait_seconds,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"processes: expected to join the others by {launcher or 'the settings'}, found: {error}\n"
            "Give --processes.coordinator HOST:PORT, --processes.count N and --processes.index I to each process."
        ) from error


def _meet(config: ProcessesConfig) -> None:
    """Wait until all processes are there. jax itself would wait without a message, and then abort the process.

    Process 0 listens on the coordinator's port; the others connect, say their index and count, and get the answer when
    all are there, or something is wrong.

    Raises:
      UserError: one is missing after `wait_seconds`, two have the same index, or their counts differ.
    """
    host, _, port = config.coordinator.rpartition(":")
    deadline = time.monotonic() + config.wait_seconds
    if config.index == 0:
        with _opened(lambda: _listen(int(port)), f"port {port} of this host to be free", config, deadline) as server:
            problem = _gather(server, config, deadline)
    else:
        connect = functools.partial(socket.create_connection, (host.strip("[]"), int(port)), timeout=LONGEST_TRY)
        with _opened(connect, "process 0 to answer", config, deadline) as coordinator:
            problem = _ask(coordinator, config, deadline)
    if problem:
        raise UserError(f"processes: {problem}")


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)


def _opened(
    open_socket: Callable[[], socket.socket], wanted: str, config: ProcessesConfig, deadline: float
) -> socket.socket:
    """A socket, when it can be opened; a message says once what it waits for."""
    while True:
        try:
            return open_socket()
        except (OSError, UnicodeError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--processes.coordinator {config.coordinator}: expected {wanted} within {config.wait_seconds} s "
                    f"(--processes.wait-seconds), found: {error}"
                ) from None
            say_once(f"waiting up to {config.wait_seconds} s for {wanted}, {config.coordinator}: {error}")
            time.sleep(RETRY_SECONDS)


def _gather(server: socket.socket, config: ProcessesConfig, deadline: float) -> str:
    """Process 0: answer the others when all are there, or when something is wrong, which is returned."""
    problem = ""
    others: list[socket.socket] = []
    missing = set(range(1, config.count))
    with contextlib.ExitStack() as open_sockets:
        while missing and not problem:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                other = open_sockets.enter_context(server.accept()[0])
                other.settimeout(LONGEST_TRY)
                greeting, *numbers = other.recv(LONGEST_WORDS).decode().split()
                index, count = map(int, numbers if greeting == GREETING else ())
            except (OSError, ValueError):  # none has come, or one that has gone or is a program of another kind
                if time.monotonic() > deadline:
                    problem = (
                        f"expected {config.count} processes within {config.wait_seconds} s (--processes.wait-seconds), "
                        f"found none with --processes.index {', '.join(map(str, sorted(missing)))}"
                    )
                continue
            if count != config.count:
                problem = f"expected one --processes.count in all, found {config.count} and {count}"
            elif index not in missing:
                problem = f"expected another --processes.index for each, found {index} twice"
            others.append(other)
            missing.discard(index)
        for other in others:
            with contextlib.suppress(OSError):
                other.sendall(f"{GREETING} {problem}".encode())
    return problem


def _ask(coordinator: socket.socket, config: ProcessesConfig, deadline: float) -> str:
    """What process 0 finds wrong; empty when all are there."""
    try:
        coordinator.sendall(f"{GREETING} {config.index} {config.count}".encode())
        coordinator.settimeout(max(deadline - time.monotonic(), LONGEST_TRY))
        greeting, _, answer = coordinator.recv(LONGEST_WORDS).decode().partition(" ")
    except (OSError, ValueError) as error:
        greeting, answer = "", str(error)
    if greeting == GREETING:
        return answer
    return (
        f"expected process 0 to wait at {config.coordinator}, found that it has ended, a run that is under way or "
        f"another program: {answer or 'no answer'}"
    )


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


@contextlib.contextmanager
def needing_all() -> Iterator[None]:
    """Say in one sentence that another process is lost, where work within the block fails because of that.

    Raises:
      LostProcessError: a computation of several processes failed.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        raise LostProcessError(
            "expected all processes to go on, found that one has ended or cannot be reached; see what it printed. The "
            f"same command on every host goes on from what is saved. ({reason})"
        ) from error


def part() -> None:
    """Disconnect the processes: from here on each works alone with its own devices."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def say(words: str) -> None:
    """Print a message of the run, in the first process alone."""
    if is_first():
        status(words)


def all_well(well: bool) -> bool:
    """Whether `well` is true in every process; all of them must call this."""
    return bool(_of_all(well).all())


def _of_all(value: Any) -> np.ndarray:
    """The value that each process gives, one after the other."""
    own = np.asarray(value)
    return own[None] if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(own))


def whole(array: jax.Array) -> np.ndarray:
    """An array whose parts may be on the devices of several processes; every process calls it."""
    return np.asarray(array if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True))


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
    digest = np.frombuffer(hashlib.sha256(facts.encode()).digest(), np.uint8)
    if len(np.unique(_of_all(digest), axis=0)) > 1:
        raise UserError(
            "processes: expected the same command and the same files on every host, found settings, labels or texts "
            "that differ from one process to another"
        )


class StopRequest:
    """Whether a process of this run is asked to stop, by Ctrl-C or SIGTERM, with one answer for all processes.

    Every process sends its own answer at every step, and reads the common one of the step before: so all stop at the
    same step, and none waits for the devices.
    """

    def __init__(self) -> None:
        self._before: Any = None

    def agreed(self) -> int:
        """The signal that all stop for now; 0: none. Every process calls it at the same steps."""
        if jax.process_count() == 1:
            return stopping.received()
        before, self._before = self._before, _largest_of_all()(stopping.received())
        return 0 if before is None else int(before)

    def anywhere(self) -> int:
        """The signal that any process has received by now; 0: none. Every process calls it."""
        return int(_of_all(stopping.received()).max())


@functools.cache
def _largest_of_all() -> Callable[[int], Any]:
    """A function of each process's number, which gives the largest of them: an array, perhaps not there yet."""
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
    one_each = NamedSharding(mesh, PartitionSpec("devices"))
    largest_of = jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def ask(here: int) -> Any:
        values = jax.make_array_from_callback((mesh.size,), one_each, lambda index: np.full(1, here, np.int32))
        return largest_of(values)

    return ask

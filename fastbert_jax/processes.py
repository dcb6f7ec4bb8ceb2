"""The processes that work together: how they find each other, and the few things they must do as one.

A process that is alone goes through the same functions. `jax.distributed` does the work; it must be joined before
anything touches a device.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastbert_jax.config import ProcessesConfig
from fastbert_jax.errors import UserError

Result = TypeVar("Result")


def join(config: ProcessesConfig) -> None:
    """Find the other processes, as the settings or the launcher tell; alone, do nothing.

    Raises:
      UserError: the coordinator cannot be reached, or the launcher does not tell enough.
    """
    import jax

    launcher = None if config.coordinator else launcher_of(os.environ)
    if (not config.coordinator and launcher is None) or jax.distributed.is_initialized():
        return
    told: dict[str, Any] = {
        "coordinator_address": config.coordinator,
        "num_processes": config.count,
        "process_id": config.index,
        "cluster_detection_method": "deactivate",
    }
    # It would take SIGTERM for itself; `training/preemption.py` heeds it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **(told if config.coordinator else {}),
            heartbeat_timeout_seconds=config.heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"processes: expected to join the others as {launcher or 'the settings'} told, found: {error}\n"
            "Give --processes.coordinator HOST:PORT, --processes.count N and --processes.index I to each process."
        ) from error


def launcher_of(environment: Mapping[str, str]) -> str | None:
    """What has started several processes of this command, by the variables that it sets; None when nothing has.

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


def count() -> int:
    """How many processes there are."""
    import jax

    return jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    import jax

    return jax.process_index() == 0


def part() -> None:
    """Let the processes go their own ways: from here on each is alone with its own devices."""
    import jax

    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def all_well(well: bool) -> bool:
    """Whether every process says so; all of them must ask."""
    import numpy as np
    from jax.experimental import multihost_utils

    return well if count() == 1 else bool(np.all(multihost_utils.process_allgather(np.array(well))))


def together(work: Callable[[], Result]) -> Result:
    """What `work` gives, in every process; where it fails in one, none goes on to wait for it for ever.

    Raises:
      UserError: in the processes where nothing failed, that something did elsewhere. Where it did, what `work` raised.
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
    """Let the first process do `work`, which may touch files that all share, while the others wait.

    Raises:
      UserError: what `together` raises.
    """
    together(lambda: work() if is_first() else None)


def check_same(facts: str) -> None:
    """See that every process has the same settings and texts.

    Raises:
      UserError: in all of them, when one differs.
    """
    import numpy as np
    from jax.experimental import multihost_utils

    if count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(facts.encode()).digest(), np.uint8)
    if len(np.unique(multihost_utils.process_allgather(digest), axis=0)) > 1:
        raise UserError(
            "processes: expected the same command and the same files on every host, found settings, labels or texts "
            "that differ from one process to another"
        )

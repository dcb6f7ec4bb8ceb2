"""The processes that work together: how they find each other, and the few things they must do as one.

A process that is alone goes through the same functions. `jax.distributed` does the work; it must be joined before
anything touches a device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

from fastbert_jax.config import ProcessesConfig
from fastbert_jax.errors import UserError

SHUTDOWN_SECONDS = 24 * 3600
"""How long the others wait at the end, while the first process measures the model."""


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
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
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


def first_alone(work: Callable[[], None]) -> None:
    """Let the first process do `work`, which may touch files that all share, while the others wait.

    Raises:
      UserError: what `work` raised, in the first process; in the others, that it did.
    """
    import numpy as np
    from jax.experimental import multihost_utils

    failure: UserError | None = None
    if is_first():
        try:
            work()
        except UserError as error:
            failure = error
    well = failure is None
    if count() > 1:
        well = bool(multihost_utils.broadcast_one_to_all(np.array(well)))
    if not well:
        raise failure or UserError("the first process has found a mistake; see what it printed")

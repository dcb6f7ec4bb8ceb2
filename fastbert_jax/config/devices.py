"""Settings of the devices and processes that share the work."""

from __future__ import annotations

import dataclasses
import math

from fastbert_jax.config.checks import require
from fastbert_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices of all processes are laid out; one of the three may be -1: all that are left."""

    data: int = -1
    """Devices, or groups of them, that hold the parameters and share the texts of each batch: 1 or more, or -1."""
    fsdp: int = 1
    """Devices that share the parameters and the optimizer state, and in training each batch too: 1 or more, or -1."""
    tensor: int = 1
    """Devices that share the heads and the feed-forward width of each layer: 1 or more, or -1."""

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(size >= 1 or size == -1 for size in sizes), "mesh", "sizes of 1 or more, or -1", sizes)
        require(sizes.count(-1) <= 1, "mesh", "-1 for one axis at most", sizes)

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The sizes of the axes on so many devices.

        Raises:
          UserError: they do not make up the number of devices.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(devices // known if size == -1 else size for size in sizes)
        if math.prod(resolved) != devices:
            raise UserError(
                f"mesh: expected data x fsdp x tensor = {devices}, the number of devices, found "
                f"{' x '.join(map(str, sizes))}; set one of them to -1 to take what is left"
            )
        return resolved[0], resolved[1], resolved[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """The processes that train together; each runs the same command. TPU pods, Slurm, Kubernetes and Open MPI tell."""

    coordinator: str = ""
    """HOST:PORT where process 0 can be reached; empty: as the launcher tells, else this process is alone."""
    count: int = 0
    """How many processes there are; 0: as the launcher tells."""
    index: int = -1
    """Which of them this is, from 0; -1: as the launcher tells."""
    heartbeat_seconds: int = 100
    """A process that is silent for so many seconds, 1 or more, is taken for dead, and the others end."""

    def __post_init__(self) -> None:
        given = (bool(self.coordinator), self.count > 0, self.index >= 0)
        expected = "coordinator, count and index together, or none of them"
        require(len(set(given)) == 1, "processes", expected, (self.coordinator, self.count, self.index))
        require(self.count == 0 or self.index < self.count, "processes.index", f"below {self.count}", self.index)
        require(self.heartbeat_seconds >= 1, "processes.heartbeat_seconds", "1 or more", self.heartbeat_seconds)

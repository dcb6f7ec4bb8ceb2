"""Which axis of which array lies along which axis of the mesh.

One table, `MESH_AXES`, holds for parameters and activations. `data` and `fsdp` share a batch; `fsdp` also holds the
hidden width of the parameters (and of their optimizer state) in pieces, which XLA gathers layer by layer; `tensor`
holds the heads and the feed-forward width of each layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastbert_jax.config import MeshConfig, PhaseConfig, as_option
from fastbert_jax.errors import UserError
from fastbert_jax.model.network import Network, Params

MESH = ("data", "fsdp", "tensor")
"""The axes of every mesh."""
MESH_AXES: dict[str, tuple[str, ...]] = {
    "layers": (),
    "vocabulary": (),  # BERT's 30,522 = 2 x 3 x 5087 cannot be shared out
    "positions": (),
    "token_types": (),
    "hidden": ("fsdp",),
    "heads": ("tensor",),
    "feed_forward": ("tensor",),
    "exit": (),
    "classes": (),
    "batch": ("data", "fsdp"),
    "rows": ("data",),
    "sequence": (),
    "features": (),
}
"""From an axis's name to the mesh's axes that share it. `hidden` is the width of parameters, `features` of activations,
which are whole on each device that has their rows; `rows` are a batch's where `fsdp` has something else to share."""
LIMITS = {"hidden": "the backbone's width", "heads": "the heads' joint width", "feed_forward": "the feed-forward width"}
"""Axes that a mesh can fail to divide, in words."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices of all processes, or of those given.

    Raises:
      UserError: the sizes asked for do not make up their number.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.sizes(len(devices))
    return jax.make_mesh(sizes, MESH, axis_types=(AxisType.Auto,) * len(MESH), devices=devices)


def copies_of(mesh: Mesh) -> list[Mesh]:
    """The mesh cut along `data`: the devices of each piece hold one copy of the parameters between them."""
    return [
        Mesh(mesh.devices[place : place + 1], MESH, axis_types=mesh.axis_types) for place in range(len(mesh.devices))
    ]


def partition(axes: Sequence[str]) -> PartitionSpec:
    """How an array with these axes is shared out; jax refuses two of them on one of the mesh.

    Raises:
      KeyError: an axis that the table lacks.
    """
    return PartitionSpec(*(MESH_AXES[axis] or None for axis in axes))


def sharding_of(mesh: Mesh, axes: Sequence[str]) -> NamedSharding:
    """The sharding of an array with these axes; none stands for one number, or a copy on every device."""
    return NamedSharding(mesh, partition(axes))


def param_shardings(mesh: Mesh, network: Network) -> Params:
    """The shardings of a network's parameters, in their tree.

    Raises:
      UserError: a size of the model that the mesh does not divide, with both numbers.
    """
    for leaf in network.leaves:
        for axis, size in zip(leaf.tree_axes, leaf.tree_shape, strict=True):
            _check_divides(mesh, axis, size, f"{LIMITS.get(axis, axis)} {size}")
    for axis, (count, words) in network.indivisible.items():
        _check_divides(mesh, axis, count, f"the {count} {words}")
    flat = {leaf.path: sharding_of(mesh, leaf.tree_axes) for leaf in network.leaves}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def check_batch(mesh: Mesh, settings: PhaseConfig) -> None:
    """Refuse a phase's batch of which the devices would not all have the same number of rows.

    Raises:
      UserError: with the option, the numbers and the nearest sizes that work.
    """
    size, parts = settings.batch_size, settings.accumulate
    options, devices = _options_and_sizes(mesh, "batch")
    step = shares_of(mesh, "batch") * parts
    if size % step:
        below = size // step * step
        option, accumulate = (as_option(f"{settings.SECTION}.{key}") for key in ("batch_size", "accumulate"))
        product = f"{devices} x {parts}, {options} x {accumulate}" if parts > 1 else f"{devices}, {options}"
        works = f"{below} or {below + step}" if below else step
        raise UserError(f"{option}: expected a multiple of {step} ({product}), found {size}; try {works}")


def _check_divides(mesh: Mesh, axis: str, size: int, words: str) -> None:
    if size % shares_of(mesh, axis):
        options, found = _options_and_sizes(mesh, axis)
        raise UserError(f"{options}: expected a divisor of {words}, found {found}")


def _options_and_sizes(mesh: Mesh, axis: str) -> tuple[str, str]:
    """The options of the mesh's axes that share an axis, and their sizes, as products."""
    names = MESH_AXES[axis]
    return " x ".join(f"--mesh.{name}" for name in names), " x ".join(str(mesh.shape[name]) for name in names)


def shares_of(mesh: Mesh, axis: str) -> int:
    """Into how many pieces the mesh cuts an axis."""
    return math.prod(mesh.shape[name] for name in MESH_AXES[axis])


def local_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """The rows of a batch that this process's devices hold, int64, rising."""
    places = sharding_of(mesh, ("batch",)).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[place] for place in places if place is not None]))


def share_batch(mesh: Mesh, batch: Any, rows: int) -> Any:
    """A tree of host arrays that hold this process's rows of a batch of `rows`, as arrays over the whole mesh."""
    sharding = sharding_of(mesh, ("batch",))
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array, (rows, *array.shape[1:])), batch
    )


def keep_sharded(array: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Hold an activation to its place on the mesh that is set; without one, the array as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.axis_names != MESH:
        return array
    return jax.lax.with_sharding_constraint(array, partition(axes))

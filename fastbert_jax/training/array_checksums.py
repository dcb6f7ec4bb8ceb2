"""Checksums of arrays on any mesh: Orbax restores a flipped bit without a word, so a checkpoint carries its own.

The bits of an array are uint32 words `b_i` at flat positions `i`. Two sums modulo 2^32 stand for it: of `b_i w_i` with
odd weights `w_i = mix(i) | 1`, which every change of a single word changes, as an odd number has an inverse; and of
`mix(b_i + mix(~i))`, which changes at random. Sums modulo 2^32 do not depend on their order, so they are the same
however the array is sharded, and every device sums its own part.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
"""Unsigned integers by their bytes."""


def leaf_names(tree: Any) -> list[str]:
    """The leaves' places, `0/trained/model/backbone/...`, in the order of `jax.tree.leaves`."""
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def leaf_checksums(tree: Any) -> dict[str, str]:
    """16 hexadecimal digits for each leaf, by its place; a collective where the leaves span several processes.

    Leaves are arrays of 1, 2 or 4 bytes an element, on one mesh if on any.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return {}
    sharding = leaves[0].sharding
    whole = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    sums = jax.device_get(jax.jit(_all_sums, out_shardings=whole)(leaves))
    return {
        name: "".join(f"{int(part):08x}" for part in pair) for name, pair in zip(leaf_names(tree), sums, strict=True)
    }


def _all_sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sums(leaf) for leaf in leaves]


def _sums(array: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(array, WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    # Not by a flat iota: reshaping a sharded array would gather it.
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis in range(array.ndim):
        place = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        stride = math.prod(array.shape[axis + 1 :]) % 2**32
        position += place * jnp.full(array.shape, stride, jnp.uint32)
    one = jnp.ones(array.shape, jnp.uint32)
    first = words * (_mix(position) | one)
    second = _mix(words + _mix(~position))
    return jnp.stack([jnp.sum(part, dtype=jnp.uint32) for part in (first, second)])


def _mix(words: jax.Array) -> jax.Array:
    """A permutation of the 32-bit words that scatters neighbours: the finalizer of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        words = words ^ (words >> jnp.full(words.shape, shift, jnp.uint32))
        words = words * jnp.full(words.shape, factor, jnp.uint32)
    return words

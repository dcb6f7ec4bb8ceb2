"""Properties of checksums: the same on any mesh, another for any change of a bit, a place or a shape's order."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fastbert_jax.training.array_checksums import leaf_checksums

VALUES = np.random.default_rng(0).standard_normal((8, 16, 4)).astype(np.float32)


def test_the_mesh_does_not_matter_and_nothing_is_gathered():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    whole = leaf_checksums({"x": jnp.asarray(VALUES)})
    for spec in (PartitionSpec("a"), PartitionSpec("b", "a"), PartitionSpec(None, ("a", "b")), PartitionSpec()):
        assert leaf_checksums({"x": jax.device_put(VALUES, NamedSharding(mesh, spec))}) == whole


@given(st.integers(0, VALUES.size - 1), st.integers(0, 31))
def test_any_flipped_bit_changes_the_sum_that_is_sure_to(place, bit):
    changed = VALUES.copy()
    changed.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
    before, after = (leaf_checksums([jnp.asarray(values)])["0"] for values in (VALUES, changed))
    assert before[:8] != after[:8]


def test_order_names_and_narrow_types_count():
    assert leaf_checksums([jnp.asarray(VALUES)]) != leaf_checksums([jnp.asarray(VALUES[::-1])])
    assert leaf_checksums([jnp.zeros((3, 4))]) == leaf_checksums([jnp.zeros((3, 4), jnp.int32)])
    sums = leaf_checksums({"a": (jnp.bfloat16(1.5), {"b": jnp.int8(3)}), "c": jnp.ones((5,), jnp.bfloat16)})
    assert sums.keys() == {"a/0", "a/1/b", "c"} and len(set(sums.values())) == 3
    assert leaf_checksums({}) == {}

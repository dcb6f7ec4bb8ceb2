"""Properties of dropout: as many zeros as asked, the mean kept, one mask per key, on any sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fastbert_jax.model.layers import Dropout


def drop(inputs: jax.Array, seed: int = 0, rate: float = 0.1) -> jax.Array:
    return Dropout(rate).apply({}, inputs, deterministic=False, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("shape", [(500, 200), (500, 4, 51)])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_zeros_is_the_rate_everywhere_and_the_mean_stays(shape, rate):
    dropped = np.asarray(drop(jnp.ones(shape), rate=rate)).reshape(500, -1)
    error = (rate * (1 - rate) / dropped.size) ** 0.5
    assert abs((dropped == 0).mean() - rate) < 4 * error
    assert abs(dropped.mean() - 1) < 4 * error / (1 - rate)
    columns = (dropped == 0).mean(0)  # no place is special
    assert abs(columns - rate).max() < 6 * (rate * (1 - rate) / 500) ** 0.5
    halves = (dropped == 0)[:, : dropped.shape[1] // 2 * 2].reshape(500, 2, -1).astype(float)
    assert abs(np.corrcoef(halves[:, 0].ravel(), halves[:, 1].ravel())[0, 1]) < 0.02


def test_a_key_is_a_mask_however_the_array_is_sharded():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    inputs = jnp.ones((8, 6, 10))
    shared = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("a", "b")))
    np.testing.assert_array_equal(jax.jit(drop)(shared), jax.jit(drop)(inputs))
    assert (drop(inputs) != drop(inputs, seed=1)).any()


def test_no_rate_and_deterministic_change_nothing_and_dtypes_stay():
    inputs = jnp.arange(6, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(drop(inputs, rate=0.0), inputs)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, inputs, deterministic=True), inputs)
    assert drop(inputs).dtype == jnp.bfloat16

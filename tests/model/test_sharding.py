"""Properties of the mesh's table: every leaf has a place, no axis twice, sizes that do not divide are named."""

import dataclasses

import flax.traverse_util
import jax
import numpy as np
import pytest

from fastbert_jax.config import DistilConfig, MeshConfig
from fastbert_jax.errors import UserError
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import check_batch, local_rows, make_mesh, param_shardings, sharding_of, share_batch
from tests.training import tiny

CONFIG = dataclasses.replace(tiny.CONFIG, num_heads=4, feed_forward_size=32)


def test_every_leaf_of_the_tree_has_a_sharding_and_none_holds_more_than_its_part():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shapes = jax.eval_shape(lambda: Bert(CONFIG).init(jax.random.key(0)))
    flat, shardings = (
        flax.traverse_util.flatten_dict(tree, sep="/") for tree in (shapes, param_shardings(mesh, Bert(CONFIG)))
    )
    assert flat.keys() == shardings.keys()
    parts = {path: leaf.size // np.prod(shardings[path].shard_shape(leaf.shape)) for path, leaf in flat.items()}
    assert parts["backbone/layers/query/kernel"] == parts["backbone/layers/output/kernel"] == 4
    assert parts["backbone/layers/intermediate/bias"] == 2 and parts["backbone/embeddings/token/embedding"] == 2
    assert parts["lower_exits/narrow/kernel"] == 2 and parts["last_exit/classifier/kernel"] == 1


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"fsdp": 8}, None),
        ({"tensor": 8}, r"--mesh.tensor: expected a divisor of the 4 heads, found 8"),
        ({"data": 3}, r"mesh: expected data x fsdp x tensor = 8, the number of devices, found 3 x 1 x 1"),
        ({"fsdp": 3}, r"mesh: expected data x fsdp x tensor = 8"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_axis_and_numbers(sizes, words):
    config = MeshConfig(**({"data": -1} | sizes))
    if words is None:
        param_shardings(make_mesh(config), Bert(CONFIG))
        return
    with pytest.raises(UserError, match=words):
        param_shardings(make_mesh(config), Bert(CONFIG))


def test_a_width_that_the_mesh_does_not_divide_is_named():
    narrow = dataclasses.replace(CONFIG, hidden_size=20, num_heads=4)
    with pytest.raises(UserError, match=r"--mesh.fsdp: expected a divisor of the backbone's width 20, found 8"):
        param_shardings(make_mesh(MeshConfig(fsdp=8)), Bert(narrow))


def test_a_batch_that_the_mesh_does_not_divide_is_named_with_sizes_that_work():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    of_mesh = r"--mesh.data x --mesh.fsdp"
    for size, parts, message in (
        (16, 2, None),
        (24, 1, None),
        (12, 1, rf"a multiple of 8 \(4 x 2, {of_mesh}\), found 12; try 8 or 16$"),
        (6, 1, rf"a multiple of 8 \(4 x 2, {of_mesh}\), found 6; try 8$"),
        (24, 2, rf"a multiple of 16 \(4 x 2 x 2, {of_mesh} x --distil.accumulate\), found 24; try 16 or 32$"),
    ):
        settings = DistilConfig(batch_size=size, accumulate=parts)
        if message is None:
            check_batch(mesh, settings)
            continue
        with pytest.raises(UserError, match=f"^--distil.batch-size: expected {message}"):
            check_batch(mesh, settings)


def test_two_axes_on_one_of_the_mesh_and_unknown_axes_raise():
    with pytest.raises(Exception, match="duplicate entries for `fsdp`"):
        sharding_of(make_mesh(MeshConfig(fsdp=2)), ("hidden", "hidden"))
    with pytest.raises(KeyError):
        sharding_of(make_mesh(MeshConfig()), ("width",))


def test_two_axes_may_not_both_take_what_is_left():
    with pytest.raises(UserError, match="--mesh.tensor: expected -1 for one of them at most"):
        MeshConfig(data=-1, fsdp=-1)


def test_the_rows_of_all_devices_are_the_batch():
    mesh = make_mesh(MeshConfig(data=4, fsdp=1, tensor=2))
    rows = local_rows(mesh, 8)
    np.testing.assert_array_equal(rows, np.arange(8))
    values = np.arange(24).reshape(8, 3)
    shared = share_batch(mesh, {"a": values}, 8)["a"]
    np.testing.assert_array_equal(shared, values)
    assert shared.sharding.shard_shape(shared.shape) == (2, 3)

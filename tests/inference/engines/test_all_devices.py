"""Several devices: every engine answers as on one, in order, and no device waits for another inside the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from fastbert_jax.config import MeshConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines.auto import ENGINES, AllDevices, make_engines
from fastbert_jax.inference.engines.engine import Masked, Results
from fastbert_jax.inference.engines.graph_cascade import GraphCascade
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import copies_of, make_mesh
from fastbert_jax.text.batches import Batch
from tests.inference.models import batch_of, random_texts, tiny_config, tiny_params, tiny_runtime

LENGTH = 16
DEVICES = 3


@pytest.fixture(scope="module")
def runtimes() -> list[Runtime]:
    return placed(MeshConfig(), DEVICES)


@pytest.fixture(scope="module")
def sharing() -> list[Runtime]:
    """Two copies of the parameters, each on four devices."""
    return placed(MeshConfig(data=2, fsdp=2, tensor=2), 8)


def placed(mesh: MeshConfig, devices: int) -> list[Runtime]:
    config = tiny_config(2)
    copies = copies_of(make_mesh(mesh, jax.local_devices()[:devices]))
    return [Runtime(tiny_params(config), Bert(config), mesh=copy) for copy in copies]


def batches() -> Iterator[Batch]:
    for seed, rows in enumerate([4, 4, 3, 1, 4, 4, 2]):
        yield batch_of(random_texts(rows, longest=LENGTH, seed=seed), batch_size=4, length=LENGTH)


def rows_of(answers: Iterator[Results]) -> list[np.ndarray]:
    valid = [batch.valid_BxK[:, 0] for batch in batches()]
    return [
        np.concatenate([array[valid_B] for array, valid_B in zip(arrays, valid, strict=True)])
        for arrays in zip(*answers, strict=True)
    ]


@pytest.mark.parametrize(
    ("devices", "mode"),
    [
        ("sharing", Mode.CASCADE),
        *(pytest.param("sharing", mode, marks=pytest.mark.slow) for mode in ENGINES if mode is not Mode.CASCADE),
        *(pytest.param("runtimes", mode, marks=pytest.mark.slow) for mode in ENGINES),
    ],
)
def test_several_devices_answer_as_one_does(devices: str, mode: Mode, request: pytest.FixtureRequest) -> None:
    engine = make_engines(request.getfixturevalue(devices))[mode]
    for speed in (0.5, 0.0):
        expected = rows_of(Masked(tiny_runtime(2)).run(batches(), speed))
        found = rows_of(engine.run(batches(), speed))
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
        assert len(set(expected[1])) > 2 or speed == 0


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.BUCKETED, Mode.GRAPH_CASCADE])
def test_every_device_works_at_full_depth(mode: Mode, runtimes: list[Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for number, runtime in enumerate(runtimes):

        def full_depth(batch: Batch, number: int = number, run: Callable = runtime.full_depth) -> object:
            used.append(number)
            return run(batch)

        monkeypatch.setattr(runtime, "full_depth", full_depth)
    assert len(list(make_engines(runtimes)[mode].run(batches(), 0.0))) == len(list(batches()))
    assert used == [0, 1, 2, 0, 1, 2, 0]


def test_the_loop_in_the_graph_is_one_program_on_devices_that_hold_all_the_parameters(
    runtimes: list[Runtime], sharing: list[Runtime]
) -> None:
    assert isinstance(make_engines(runtimes)[Mode.GRAPH_CASCADE], GraphCascade)
    assert isinstance(make_engines(sharing)[Mode.GRAPH_CASCADE], AllDevices)


def test_each_device_holds_its_share_of_the_parameters(sharing: list[Runtime]) -> None:
    held = sharing[1].params["backbone"]["layers"], sharing[1].parts
    for tree in held:
        kernels = [leaf for leaf in jax.tree.leaves(tree) if leaf.shape[-2:] == (16, 32)]  # the feed-forward part's
        assert len(kernels) > 0
        for kernel in kernels:
            assert {shard.device for shard in kernel.addressable_shards} == set(jax.local_devices()[4:])
            assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // 4}


def test_a_model_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="--mesh.tensor: expected a divisor of the 2 heads, found 4"):
        placed(MeshConfig(data=1, tensor=4), 4)


def test_the_sharded_loop_has_no_collective_and_runs_on_every_device(runtimes: list[Runtime]) -> None:
    engine = GraphCascade(*runtimes)
    calls = []
    program, engine.program = (
        engine.program,
        lambda *arguments, **keywords: calls.append((arguments, keywords)) or program(*arguments, **keywords),
    )
    list(engine.run(batches(), 0.5))
    (arguments, keywords), *_ = calls
    assert len(program(*arguments, **keywords)[0].exit_layer_B.sharding.device_set) == DEVICES
    compiled = program.lower(*arguments, **keywords).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in compiled
    assert list(arguments[2]) == [8, 7, 7]


def test_a_failure_on_one_device_reaches_the_caller_and_no_thread_is_left(runtimes: list[Runtime]) -> None:
    engine = AllDevices([Masked(runtime) for runtime in runtimes])

    def broken() -> Iterator[Batch]:
        yield from batches()
        raise OSError("the input broke off")

    with pytest.raises(OSError, match="the input broke off"):
        list(engine.run(broken(), 0.5))


def test_a_reader_that_has_enough_stops_the_devices(runtimes: list[Runtime]) -> None:
    taken = []

    def endless() -> Iterator[Batch]:
        for batch in batches():
            while True:
                taken.append(1)
                yield batch

    answers = AllDevices([Masked(runtime) for runtime in runtimes]).run(endless(), 0.5)
    next(answers)
    answers.close()
    so_far = len(taken)
    assert len(taken) == so_far < 1000

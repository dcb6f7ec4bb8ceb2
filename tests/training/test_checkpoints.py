"""Properties of checkpoints: bit-exact, newest and best kept, loud when damaged, whole when killed."""

import contextlib
import gc
import os
import re
import resource
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.atomic_files import changed_files
from fastbert_jax.errors import UserError
from fastbert_jax.training.checkpoints import Checkpoints, Position

# Orbax forgets coroutines when a read or a write fails, and Python complains of them whenever it finds them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)


@pytest.fixture(autouse=True)
def _forgotten_coroutines_are_found_here():
    yield
    gc.collect()


def _position(step: int) -> Position:
    return Position(phase="fine_tune", phase_step=step, best_step=None, best_score=None)


def _tree(step: int):
    return {"weights": jnp.full((16, 8), step, jnp.float32), "step": jnp.int32(step)}


def test_a_round_trip_is_bit_exact_and_knows_its_position(tmp_path, capsys):
    tree = {"a": jax.random.normal(jax.random.key(0), (5, 3)), "b": (jnp.int32(7), {"c": jnp.bfloat16(1.5)})}
    position = Position(phase="distil", phase_step=3, best_step=12, best_score=0.75)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(15, tree, position, rank=None)
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints")
    restored = again.newest(lambda found: jax.tree.map(jnp.zeros_like, tree))
    assert capsys.readouterr().out == ""
    assert again.latest() == restored.step == 15 and restored.position == position
    jax.tree.map(np.testing.assert_array_equal, restored.tree, tree)


def test_no_checkpoint_is_no_step(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints").latest() is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, score in [(1, 0.5), (2, 0.9), (3, 0.7), (4, 0.8), (5, None), (6, None)]:
        checkpoints.save(step, _tree(step), _position(step), rank=None if score is None else (0, score))
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]
    assert Checkpoints(tmp_path / "checkpoints").load(2, _tree(0))["step"] == 2


def test_the_best_of_a_later_phase_counts_whatever_earlier_phases_scored(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, rank in [(1, (0, 0.9)), (2, (1, 0.3)), (3, (1, 0.2)), (4, (1, 0.1))]:
        checkpoints.save(step, _tree(step), _position(step), rank=rank)
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 3, 4]


def test_an_equal_score_keeps_the_later_step(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, score in [(1, 0.9), (2, 0.9), (3, 0.1)]:
        checkpoints.save(step, _tree(step), _position(step), rank=None if score is None else (0, score))
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 3]


@pytest.mark.parametrize(("step", "words"), [(2, "2 already exists"), (1, "expected a step above 2, found 1")])
def test_a_step_that_is_not_new_is_refused(tmp_path, step, words):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(2, _tree(2), _position(2), rank=None)
    with pytest.raises(UserError, match=words):
        checkpoints.save(step, _tree(step), _position(step), rank=None)
    assert checkpoints.load(2, _tree(0))["step"] == 2


def test_another_models_checkpoint_is_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, _tree(1), _position(1), rank=None)
    with pytest.raises(UserError, match=r"checkpoints/1: expected a checkpoint of this model"):
        checkpoints.load(1, {"weights": jnp.zeros((16, 9)), "step": jnp.int32(0)})


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"weights": jax.random.normal(jax.random.key(0), (256, 256))}, _position(1), rank=None)
    checkpoints.close()
    largest = max((p for p in (tmp_path / "checkpoints").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    again = Checkpoints(tmp_path / "checkpoints")
    assert re.search(r"checkpoints/1/.*: expected the file that was saved, found other bytes", capsys.readouterr().out)
    with pytest.raises(UserError, match="checkpoints/1: expected a checkpoint, found none"):
        again.load(1, {"weights": jnp.zeros((256, 256))})


def _flip(path, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def _saved(directory, steps) -> Checkpoints:
    checkpoints = Checkpoints(directory)
    for step in steps:
        tree = {"weights": jax.random.normal(jax.random.key(step), (64, 32)), "step": jnp.int32(step)}
        checkpoints.save(step, tree, _position(step), rank=None)
    checkpoints.wait()
    return checkpoints


def test_every_one_of_a_hundred_flipped_bits_is_found_by_name(tmp_path):
    _saved(tmp_path / "checkpoints", [1]).close()
    directory = tmp_path / "checkpoints" / "1"
    assert changed_files(directory) == []
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.cumsum([0, *(8 * path.stat().st_size for path in files)])
    generator = np.random.default_rng(0)
    for bit in generator.integers(0, sizes[-1], 100):
        number = int(np.searchsorted(sizes, bit, "right")) - 1
        _flip(files[number], int(bit - sizes[number]))
        (problem,) = changed_files(directory)
        assert str(files[number]) in problem
        _flip(files[number], int(bit - sizes[number]))
    assert changed_files(directory) == []


def test_a_flipped_bit_that_orbax_restores_is_refused_and_the_checkpoint_before_is_taken(tmp_path, capsys):
    _saved(tmp_path / "checkpoints", [1, 2]).close()
    largest = max((tmp_path / "checkpoints" / "2").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    _flip(largest, 4 * largest.stat().st_size)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    like = {"weights": jnp.zeros((64, 32)), "step": jnp.int32(0)}
    restored = checkpoints.newest(lambda position: like)
    assert restored.step == 1 and restored.position.phase_step == 1 and restored.tree["step"] == 1
    printed = capsys.readouterr().out
    assert printed.count("expected the file that was saved, found other bytes") == 1 and "checkpoints/2" in printed
    assert (tmp_path / "checkpoints.refused" / "2").is_dir() and checkpoints.steps() == [1]
    checkpoints.save(2, like, _position(2), rank=None)  # its place is free again
    checkpoints.wait()
    assert checkpoints.steps() == [2, 1]


def test_a_file_that_is_gone_or_new_is_found_by_name(tmp_path):
    checkpoints = _saved(tmp_path / "checkpoints", [1])
    (tmp_path / "checkpoints" / "1" / "odd.txt").write_text("x")
    with pytest.raises(UserError, match=r"checkpoints/1/odd.txt: .* found a new file"):
        checkpoints.load(1, _tree(0))


def test_a_kill_before_the_checksums_are_written_costs_that_checkpoint_unless_it_is_the_only_one(tmp_path, capsys):
    like = {"weights": jnp.zeros((64, 32)), "step": jnp.int32(0)}
    for steps, expected in (([1, 2], 1), ([2], 2)):
        directory = tmp_path / str(len(steps))
        _saved(directory / "checkpoints", steps).close()
        (directory / "checkpoints" / "2" / "files.json").unlink()
        checkpoints = Checkpoints(directory / "checkpoints")
        assert checkpoints.newest(lambda position: like).step == expected
        words = capsys.readouterr().out
        assert words.count("checkpoints/2: it has no files.json") == 1 and "before the checksums" in words
        # What could not be checked is not called whole.
        assert (directory / "checkpoints" / str(expected) / "files.json").exists() == (expected == 1)


def test_only_damaged_checkpoints_end_the_run(tmp_path):
    _saved(tmp_path / "checkpoints", [1]).close()
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file() and "METADATA" not in path.name.upper():
            path.write_bytes(b"")
    with pytest.raises(UserError, match="found only damaged ones; begin a new --run"):
        Checkpoints(tmp_path / "checkpoints").newest(
            lambda position: {"weights": jnp.zeros((64, 32)), "step": jnp.int32(0)}
        )


@contextlib.contextmanager
def room_for(size: int):
    """No file of more than `size` bytes can be written: what a full disk does, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_loud_and_leaves_the_checkpoint_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, _tree(1), _position(1), rank=None)
    large = {"weights": jax.random.normal(jax.random.key(0), (500, 500)), "step": jnp.int32(2)}
    with room_for(100_000), pytest.raises(UserError, match=r"checkpoints/2: cannot write the checkpoint: "):
        checkpoints.save(2, large, _position(2), rank=None)
        checkpoints.wait()
    checkpoints.close()

    again = Checkpoints(tmp_path / "checkpoints")
    assert again.latest() == 1
    assert again.load(1, _tree(0))["step"] == 1
    again.save(2, large, _position(2), rank=None)
    again.wait()
    assert again.latest() == 2


SAVE_FOR_EVER = """
import sys, itertools, pathlib, jax.numpy as jnp
from fastbert_jax.training.checkpoints import Checkpoints, Position
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
for step in itertools.count((checkpoints.latest() or 0) + 1):
    tree = {"weights": jnp.full((512, 1024), step, jnp.float32), "step": jnp.int32(step)}
    checkpoints.save(step, tree, Position("fine_tune", step, None, None), rank=None)
    checkpoints.wait()
    print(step, flush=True)
"""


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path):
    directory = tmp_path / "checkpoints"
    like = {"weights": jnp.zeros((512, 1024)), "step": jnp.int32(0)}
    finished = 0
    for delay in (0.0, 0.03, 0.06):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            finished = int(process.stdout.readline())
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            finished = max([finished, *map(int, process.stdout.read().split())])
        checkpoints = Checkpoints(directory)
        latest = checkpoints.latest()
        assert latest >= finished
        tree = checkpoints.load(latest, like)
        checkpoints.close()
        assert tree["step"] == latest and (tree["weights"] == latest).all()

"""Properties of kept values: they train the same students, they are read, and no stop or damage shows."""

from __future__ import annotations

import functools
import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fastbert_jax import processes
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.model.flops import distillation_flops
from fastbert_jax.processes import StopRequest
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.performance import Meter
from fastbert_jax.training.streams import KeptValues, tree_sha256
from tests.training import tiny
from tests.training.tiny_run import TEXTS, Stop, distil_batches, run, same

EPOCHS, EPOCH = 3, 3
"""Epochs of a run that distils alone, and steps of an epoch where no row is packed."""
distil = functools.partial(run, epochs=EPOCHS, fine_tune_epochs=0)


class _Strike(StopRequest):
    """SIGTERM or a kill after so many steps of the run."""

    def __init__(self, after: int, *, kills: bool) -> None:
        super().__init__()
        self._left, self._kills = after, kills

    def agreed(self) -> int:
        self._left -= 1
        if self._kills and not self._left:
            raise Stop
        return 0 if self._left else signal.SIGTERM


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory and the parameters of a run with the cache that is never stopped."""
    directory = tmp_path_factory.mktemp("whole")
    params, _ = distil(directory, cache=True)
    return directory, params


def _journal(directory) -> str:
    return (directory / "metrics.jsonl").read_text()


def _losses(directory) -> list[float]:
    events = [json.loads(line) for line in _journal(directory).splitlines()]
    return [event["loss"] for event in events if event["event"] == "distil"]


def _assert_trained_alike(directory, params, expected_directory, expected_params):
    np.testing.assert_allclose(_losses(directory), _losses(expected_directory), rtol=1e-5)
    for part, tolerance in (("lower_exits", 1e-5), ("backbone", 0), ("last_exit", 0)):
        found, expected = params["model"][part], expected_params["model"][part]
        _assert_close(found, expected, tolerance)


def _assert_close(found, expected, tolerance):
    for name in expected:
        if isinstance(expected[name], dict):
            _assert_close(found[name], expected[name], tolerance)
        else:
            np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_students_and_losses_are_those_without_the_cache(tmp_path, pack, monkeypatch):
    plain, _ = distil(tmp_path / "plain", pack=pack)
    asked = []
    view = KeptValues.view

    def watched(self, step):
        asked.append(view(self, step) is not None)
        return view(self, step)

    monkeypatch.setattr(KeptValues, "view", watched)
    cached, _ = distil(tmp_path / "cached", pack=pack, cache=True)
    _assert_trained_alike(tmp_path / "cached", cached, tmp_path / "plain", plain)
    epoch = distil_batches(epochs=1, pack=pack).batches_per_epoch
    assert asked == [False] * epoch + [True] * (EPOCHS - 1) * epoch


@pytest.mark.slow
def test_the_flops_that_are_counted_are_those_that_are_run(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(Meter, "count", lambda self, *, flops, **others: counted.append(flops))
    distil(tmp_path, cache=True)
    whole, known = (8 * distillation_flops(tiny.model(), 12, targets_known=known) for known in (False, True))
    assert counted == [whole] * EPOCH + [known] * (EPOCHS - 1) * EPOCH


@pytest.mark.slow
def test_what_is_read_is_what_teaches(tmp_path, whole, monkeypatch):
    view = KeptValues.view

    def changed(self, step):
        values = view(self, step)
        return None if values is None else values + np.float32([1, 0])

    monkeypatch.setattr(KeptValues, "view", changed)
    distil(tmp_path, cache=True)
    found, expected = _losses(tmp_path), _losses(whole[0])
    assert found[: EPOCH + 1] != expected[: EPOCH + 1] and found[:EPOCH] == expected[:EPOCH]


def test_the_values_on_disk_are_the_teachers(whole):
    directory, _ = whole
    values = np.load(directory / "kept" / "values.npy")
    assert values.shape == (TEXTS, 2) and values.dtype == np.float32 and np.isfinite(values).all()
    assert len(np.unique(values[:, 0])) == TEXTS


@pytest.mark.parametrize(
    ("after", "kills"),
    [
        (EPOCH + 2, True),
        *(
            pytest.param(after, kills, marks=pytest.mark.slow)
            for after, kills in ((2, False), (2, True), (EPOCH, True), (EPOCH + 2, False))
        ),
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, whole, after, kills):
    with pytest.raises(Stop if kills else PreemptedError):
        distil(tmp_path, cache=True, save_every=1, stop=_Strike(after, kills=kills))
    params, _ = distil(tmp_path, cache=True)
    assert same(params, whole[1]) and _journal(tmp_path) == _journal(whole[0])


def test_a_kill_between_the_last_answer_and_its_checkpoint_changes_no_bit(tmp_path, whole, monkeypatch):
    save = Checkpoints.save

    def killed(self, step, *args, **kwargs):
        if step == EPOCH:
            raise Stop
        save(self, step, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Checkpoints, "save", killed)
        distil(tmp_path, cache=True, save_every=1)
    assert (tmp_path / "kept" / "files.json").exists()
    params, _ = distil(tmp_path, cache=True)
    assert same(params, whole[1]) and _journal(tmp_path) == _journal(whole[0])


@pytest.mark.slow
def test_a_file_that_was_cut_short_is_named_and_the_run_trains_the_same(tmp_path, whole, capsys):
    with pytest.raises(PreemptedError):
        distil(tmp_path, cache=True, stop=_Strike(EPOCH + 1, kills=False))
    path = tmp_path / "kept" / "values.npy"
    path.write_bytes(path.read_bytes()[:-5])
    params, _ = distil(tmp_path, cache=True)
    printed = capsys.readouterr().out
    assert f"{path.parent}: expected kept values, found a damaged file: " in printed
    assert "The kept values are not used; they are computed again." in printed
    # Two of this epoch's three batches were left, so a third epoch runs whole; it finds all of them.
    assert "values of 8 texts are missing; another epoch computes them" in printed
    assert (path.parent / "files.json").exists()
    _assert_trained_alike(tmp_path, params, *whole)


FROZEN = {"model": {"last_exit": jnp.arange(6.0)}}
ANSWERS = np.random.default_rng(0).normal(size=(TEXTS, 2)).astype(np.float32)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the run says."""
    words: list[str] = []
    monkeypatch.setattr(processes, "say", words.append)
    return words


class _Files:
    """A cache alone, filled by hand."""

    def __init__(self, directory, *, pack=False, local_rows=None):
        self.directory = directory
        self.batches = distil_batches(epochs=2, pack=pack, local_rows=local_rows)

    def opened(self, frozen=FROZEN, *, done=0, corpus="texts", classes=2) -> KeptValues:
        cache = KeptValues(self.directory, self.batches, corpus=corpus, classes=classes)
        cache.open(frozen, done=done)
        return cache

    def fill(self, cache, steps=None):
        """Keep the answers of an epoch, and settle after each step."""
        for step in range(self.batches.batches_per_epoch) if steps is None else steps:
            kept = ANSWERS[self.batches.texts_at(step, local=False)]
            cache.keep(step, jnp.asarray(kept))
            cache.settle(step + 1)

    @property
    def epoch(self) -> int:
        return self.batches.batches_per_epoch


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("local_rows", [None, (3, 1)])
def test_every_row_gets_its_own_texts_answers(tmp_path, pack, local_rows, said):
    files = _Files(tmp_path, pack=pack, local_rows=local_rows)
    cache = files.opened()
    assert cache.view(0) is None
    files.fill(cache)
    for again in (cache, files.opened(done=files.epoch)):
        for step in range(files.epoch, 2 * files.epoch):
            found, numbers = again.view(step), files.batches.texts_at(step)
            expected = np.where((numbers >= 0)[..., None], ANSWERS[numbers], np.float32(0))
            np.testing.assert_array_equal(found, expected, strict=True)
    assert said == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"frozen": {"model": {"last_exit": jnp.arange(6.0) + 1}}}, "parameters"),
        ({"corpus": "other texts"}, "corpus"),
        ({"classes": 3}, "classes"),
    ],
)
def test_answers_of_another_teacher_or_corpus_are_not_used(tmp_path, changes, named, said):
    files = _Files(tmp_path)
    files.fill(files.opened())
    cache = files.opened(done=files.epoch, **changes)
    assert cache.view(files.epoch) is None
    (words,) = said
    assert f"{tmp_path}: expected values that this run kept, found other {named}\n" in words
    assert np.isnan(np.load(tmp_path / "values.npy")).all()


def _flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda directory: _flip(directory / "values.npy"),
            "values.npy: expected the file that was saved, found other",
        ),
        (lambda directory: _flip(directory / "values.npy", 8), "found a damaged file"),
        (lambda directory: (directory / "values.npy").unlink(), "found a damaged file: .*No such file"),
        (lambda directory: (directory / "values.npy").write_bytes(b""), "found a damaged file"),
        (lambda directory: (directory / "about.json").write_text("{"), "found a damaged file"),
        (lambda directory: (directory / "about.json").write_text("[]"), "found a damaged file"),
        (lambda directory: (directory / "files.json").write_text("{}"), "files.json: expected checksums of files"),
    ],
)
def test_damaged_answers_are_named_and_not_used(tmp_path, damage, words, said):
    files = _Files(tmp_path)
    files.fill(files.opened())
    damage(tmp_path)
    cache = files.opened(done=files.epoch)
    assert cache.view(files.epoch) is None
    assert re.search(words, said[0])
    files.fill(cache, range(files.epoch, 2 * files.epoch))
    assert cache.view(files.epoch) is not None


def test_answers_that_are_not_all_there_are_not_used(tmp_path, said):
    files = _Files(tmp_path)
    cache = files.opened()
    files.fill(cache, [0, 2])
    assert cache.view(files.epoch) is None
    assert said == [f"{tmp_path}: values of 8 texts are missing; another epoch computes them"]
    assert files.opened(done=files.epoch).view(files.epoch) is None


def test_the_first_epoch_runs_whole_even_where_its_answers_are_there(tmp_path, said):
    files = _Files(tmp_path)
    files.fill(files.opened())
    cache = files.opened(done=files.epoch - 1)
    assert cache.view(files.epoch - 1) is None
    files.fill(cache, [files.epoch - 1])
    assert cache.view(files.epoch) is not None and said == []


def test_an_epoch_that_found_lost_answers_again_runs_whole_to_its_end(tmp_path, said):
    files = _Files(tmp_path)
    files.fill(files.opened(done=files.epoch), range(files.epoch, 2 * files.epoch))
    assert said == [f"{tmp_path}: kept values are missing; they are computed again"]
    last = 2 * files.epoch - 1
    assert files.opened(done=last + 1).view(last) is not None
    # The checkpoint at the end of the epoch was lost.
    assert files.opened(done=last).view(last) is None


def test_a_begin_that_was_cut_short_is_begun_again(tmp_path, said):
    files = _Files(tmp_path)
    files.opened()
    (tmp_path / "about.json").unlink()
    (tmp_path / ".values.npy.1.unfinished").write_bytes(b"half")
    files.fill(files.opened())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["about.json", "files.json", "values.npy"]
    assert said == []


def test_a_directory_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: cannot read and write the kept values.*: File exists\nMake room"):
        _Files(tmp_path / "taken").opened()


def test_the_digest_of_parameters_does_not_depend_on_the_mesh_but_on_each_bit_and_name():
    values = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    whole = tree_sha256({"a": jnp.asarray(values)})
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    for spec in (PartitionSpec("a"), PartitionSpec("b", "a"), PartitionSpec(None, ("a", "b"))):
        assert tree_sha256({"a": jax.device_put(values, NamedSharding(mesh, spec))}) == whole
    changed = values.copy()
    changed.view(np.uint32)[3, 5] ^= 1
    others = [{"a": jnp.asarray(changed)}, {"b": jnp.asarray(values)}, {"a": jnp.asarray(values.T)}]
    assert len({whole, *map(tree_sha256, others)}) == 4

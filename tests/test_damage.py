"""Damaged checkpoints, journals and small files: a run goes on from the newest good step, or says what is wrong."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from fastbert_jax.config_yaml import from_yaml
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.model import sharding
from fastbert_jax.recipes import fastbert, train
from fastbert_jax.training import loop, run, run_directory
from fastbert_jax.training.journal import Journal
from tests.training.launched import write_settings

# Orbax forgets coroutines when a read fails, and Python complains of them whenever it finds them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)
PHASES = """
fine_tune: {epochs: 2, batch_size: 8, learning_rate: 0.01}
distil: {epochs: 4, batch_size: 8, learning_rate: 0.01, cache_teacher: true}
checkpoints: {every: 1, keep: 3}
"""
STOPPED_AT = 14
"""Of 18 steps, in the second epoch of six that distils."""
CASES = 500


class Resumed(Exception):
    """The run is where it would do its next step."""


class Hanging(BaseException):
    """A run that does not go on."""


def resumed_at(settings: fastbert.Settings, directory: Path) -> int:
    """The step from which a run goes on."""

    def stop(self: loop._PhaseRun) -> None:
        self._stream.open(self._frozen, done=int(self._state.step))
        raise Resumed(self._first_step + int(self._state.step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._PhaseRun, "finish", stop)
        with pytest.raises(Resumed) as found:
            train(dataclasses.replace(settings, run=str(directory)))
    return int(str(found.value))


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, one_device) -> tuple[fastbert.Settings, Path]:
    """The settings and the directory of a run that was stopped."""
    directory = tmp_path_factory.mktemp("damage")
    path = write_settings(directory, texts=24, phases=PHASES)
    settings = dataclasses.replace(from_yaml(fastbert.Settings, path), run=str(directory / "run"))
    log = Journal.log

    def strike(self: Journal, event: str, **arguments: object) -> None:
        log(self, event, **arguments)
        if arguments["step"] == STOPPED_AT - 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr(Journal, "log", strike)
        train(settings)
    (directory / "run" / "loggers.json").write_text('{"tensorboard": ""}')
    assert resumed_at(settings, directory / "run") == STOPPED_AT
    return settings, directory / "run"


def damage(path: Path, kind: str, generator: random.Random) -> None:
    content = path.read_bytes() if path.is_file() else b""
    at = generator.randrange(max(len(content), 1))
    if path.exists() and (kind in ("delete", "pipe", "directory") or not path.is_file()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    match kind:
        case "truncate":
            path.write_bytes(content[:at])
        case "empty":
            path.write_bytes(b"")
        case "flip" if content:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << generator.randrange(8)]) + content[at + 1 :])
        case "no UTF-8":
            path.write_bytes(content[:at] + b"\xff\xfe" + content[at:])
        case "other JSON":
            path.write_bytes(generator.choice([b"5\n", b"null", b'["a"]', b"{}", b"[" * 100_000, b'"\\ud800"']))
        case "lines gone":
            lines = content.splitlines(keepends=True)
            path.write_bytes(b"".join(line for line in lines if generator.random() < 0.8))
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()


KINDS = ("truncate", "empty", "flip", "no UTF-8", "other JSON", "lines gone", "delete", "pipe", "directory")
OF_THE_RUN = ("config.yaml", "labels.json", "data.json")
"""Without these, or with another value in them, a run may be refused."""


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(settings: fastbert.Settings, original: Path, directory: Path, seed: int) -> str:
    """Damage one to three files of a copy of the run and resume it; how that went, in a word."""
    generator = random.Random(seed)
    shutil.copytree(original, directory)
    small = [path for path in directory.iterdir() if path.is_file()]
    within = [path for name in ("checkpoints", "teacher_answers") for path in (directory / name).rglob("*")]
    files = {path for path in within if path.is_file()}
    damaged = {}
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        path = generator.choice(sorted(generator.choice([small, files, files])))
        if path.parent.is_dir():
            kind, before = generator.choice(KINDS), path.read_bytes() if path.is_file() else None
            damage(path, kind, generator)
            if not path.is_file() or path.read_bytes() != before:  # else chance has changed nothing
                damaged[path.relative_to(directory)] = kind
    whole = {
        int(path.name)
        for path in (original / "checkpoints").iterdir()
        if path.name.isdecimal() and not any(name.parts[:2] == ("checkpoints", path.name) for name in damaged)
    }
    try:
        step = resumed_at(settings, directory)
    except UserError as error:
        assert not whole or any(name.name in OF_THE_RUN for name in damaged), (seed, damaged, error)
        return "refused"
    unchecked = {
        int(name.parts[1]) for name in damaged if name.parts[0] == "checkpoints" and "files.json" in name.parts
    }
    assert step == max(whole) or step in unchecked or not whole, (seed, damaged, step)
    return "resumed at the newest" if step == STOPPED_AT else "resumed before"


def outcomes(stopped: tuple[fastbert.Settings, Path], place: Path, seeds: range) -> collections.Counter[str]:
    found: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        with no_hang():
            found[outcome(*stopped, place / str(seed), seed)] += 1
        shutil.rmtree(place / str(seed))
    return found


def test_fifteen_damaged_runs_go_on_or_are_refused_in_words(stopped, tmp_path) -> None:
    found = outcomes(stopped, tmp_path, range(15))
    assert found.total() == 15 and found["refused"] < 6 and found["resumed before"] > 0, found


@pytest.mark.slow
def test_five_hundred_damaged_runs_go_on_or_are_refused_in_words(stopped, tmp_path) -> None:
    found = outcomes(stopped, tmp_path, range(15, 15 + CASES))
    print(dict(found))
    assert found.total() == CASES


def copied(stopped: tuple[fastbert.Settings, Path], tmp_path: Path) -> tuple[fastbert.Settings, Path]:
    settings, original = stopped
    return settings, Path(shutil.copytree(original, tmp_path / "run"))


def test_an_empty_metrics_file_of_orbax_costs_its_step_alone(stopped, tmp_path, capsys) -> None:
    settings, directory = copied(stopped, tmp_path)
    newest = directory / "checkpoints" / str(STOPPED_AT - 1)
    metrics = [path for path in directory.glob("checkpoints/*/metrics/*") if path.is_file()]
    assert metrics  # of the steps at which dev was measured
    for path in (*metrics, newest / "_CHECKPOINT_METADATA"):
        path.write_bytes(b"")
    assert resumed_at(settings, directory) == STOPPED_AT
    printed = capsys.readouterr().out
    lost = sorted({path.parent.parent.name for path in metrics} | {newest.name})
    assert sorted(path.name for path in (directory / "checkpoints.refused").iterdir()) == lost
    for name in lost:
        assert f"checkpoints/{name}/" in printed and f"It is now {directory}/checkpoints.refused/{name}" in printed


def test_missing_checksums_are_said_and_never_called_whole(stopped, tmp_path, capsys) -> None:
    settings, directory = copied(stopped, tmp_path)
    for path in directory.glob("checkpoints/*/files.json"):
        path.unlink()
    assert resumed_at(settings, directory) == STOPPED_AT
    assert f"checkpoints/{STOPPED_AT}: it has no files.json, so a change of its files cannot be found" in (
        capsys.readouterr().out
    )
    words = run_directory.verify_run(directory)
    assert words.count("cannot be checked, it has no files.json") == len(list(directory.glob("checkpoints/*")))
    assert words.endswith("whole: teacher's answers")


def test_a_damaged_journal_keeps_what_can_be_read(stopped, tmp_path, capsys) -> None:
    settings, directory = copied(stopped, tmp_path)
    journal = directory / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], lines[3][:20] + b"\n", b"\xff\xfe\n", *lines[5:]]))
    assert resumed_at(settings, directory) == STOPPED_AT
    assert re.search(
        r"metrics.jsonl: 2 lines cannot be read, .*\nIt is now metrics.jsonl.damaged; what can be",
        capsys.readouterr().out,
    )
    assert journal.read_bytes() == b"".join([*lines[:3], *lines[5:]])
    journal.write_bytes(journal.read_bytes() + b'{"event": "distil", "st')  # as a kill leaves it: nothing is lost
    (directory / "metrics.jsonl.damaged").unlink()
    journal.write_bytes(b"".join(lines) + b'{"event": "distil", "st')
    assert resumed_at(settings, directory) == STOPPED_AT
    assert "damaged" not in capsys.readouterr().out and journal.read_bytes() == b"".join(lines)


def test_settings_that_cannot_be_read_are_taken_from_the_command(stopped, tmp_path, capsys) -> None:
    settings, directory = copied(stopped, tmp_path)
    (directory / "config.yaml").write_bytes(b"")
    (directory / "labels.json").write_bytes(b"[")
    assert resumed_at(settings, directory) == STOPPED_AT
    printed = capsys.readouterr().out
    then = "what this command gives is taken for what the run began with"
    assert "config.yaml: cannot be read: " in printed and f"It is now config.yaml.damaged; {then}\n" in printed
    assert "labels.json: cannot be read: " in printed and f"It is now labels.json.damaged; {then}\n" in printed
    assert (directory / "labels.json").read_text() == (stopped[1] / "labels.json").read_text()
    assert from_yaml(fastbert.Settings, directory / "config.yaml").seed == settings.seed


def test_a_directory_that_cannot_be_written_is_said(stopped, tmp_path, monkeypatch) -> None:
    settings, directory = copied(stopped, tmp_path)
    builtin_open = open

    def read_only(path, mode="r", *arguments, **settings):  # tests may run as root, whom no permission stops
        if Path(str(path)).parent == directory and mode != "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return builtin_open(path, mode, *arguments, **settings)

    monkeypatch.setattr("builtins.open", read_only)
    with pytest.raises(UserError, match=r"--run .*: cannot write there: Permission denied"):
        train(dataclasses.replace(settings, run=str(directory)))

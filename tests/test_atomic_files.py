"""Whole files: all of it or what was there before, and nothing beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastbert_jax.atomic_files import atomic_directory, atomic_file, is_unfinished, write_json, write_text


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for text in ("one", "zwölf"):
        write_text(tmp_path / "out.txt", text)
        assert (tmp_path / "out.txt").read_text(encoding="utf-8") == text
    write_json(tmp_path / "out.json", {"a": ["ü"]})
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {"a": ["ü"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.txt"]


def test_what_goes_wrong_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "out.txt", "before")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "out.txt") as stream:
        stream.write("half of")
        raise RuntimeError
    with pytest.raises(TypeError):
        write_json(tmp_path / "out.txt", {"a": object()})
    assert (tmp_path / "out.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_a_directory_is_there_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty one may stand there
    for path in (tmp_path / "out", tmp_path / "new" / "out"):
        with atomic_directory(path) as unfinished:
            (unfinished / "file").write_text("all of it")
            assert not (path / "file").exists() and is_unfinished(unfinished)
        assert [child.name for child in path.iterdir()] == ["file"]
    with pytest.raises(OSError), atomic_directory(tmp_path / "out") as unfinished:
        (unfinished / "file").write_text("something else")
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "never"):
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]


def test_a_kill_leaves_what_was_there_and_a_file_that_is_known(tmp_path: Path) -> None:
    write_text(tmp_path / "out.txt", "before")
    source = (
        "import sys, time, pathlib\nfrom fastbert_jax.atomic_files import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as stream:\n"
        "    stream.write('half of'); stream.flush(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", source, str(tmp_path / "out.txt")]) as process:
        while len(os.listdir(tmp_path)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "out.txt").read_text() == "before"
    assert sorted(is_unfinished(path) for path in tmp_path.iterdir()) == [False, True]

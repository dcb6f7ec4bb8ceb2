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

from fastbert_jax.atomic_files import (
    atomic_directory,
    atomic_file,
    check_place,
    is_unfinished,
    unless_refused,
    user_path,
    write_json,
    write_text,
)
from fastbert_jax.errors import UserError


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


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "target"
    link.symlink_to(target)
    for text in ("first", "second"):
        check_place(link)
        write_text(link, text)
        assert link.is_symlink() and target.read_text() == text and not target.is_symlink()
    assert sorted(tmp_path.rglob("*")) == sorted([link, tmp_path / "there", target])


def test_a_place_is_checked_without_a_trace(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "directory" / "file")
    assert list((tmp_path / "new" / "directory").iterdir()) == []
    (tmp_path / "file").write_text("kept")
    check_place(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("new", "it is a directory"),
        ("pipe", "no regular file"),
        ("file/below", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        ("a\0b/below", "null"),
    ):
        with (
            pytest.raises(UserError, match=f"cannot write the answers: .*{problem}.*; name another$"),
            unless_refused(tmp_path / name, "write the answers", remedy="; name another"),
        ):
            check_place(tmp_path / name)


def test_a_home_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/runs") == Path("/somewhere/runs") and user_path("a~b") == Path("a~b")
    with pytest.raises(UserError, match=r"~nobody-here/x: expected a path, found a ~ that stands for no home"):
        user_path("~nobody-here/x")

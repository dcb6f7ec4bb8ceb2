"""The commit that results are kept with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fastbert_jax import version


def git(*words: str, directory: Path) -> None:
    person = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *person, *words], cwd=directory, check=True, capture_output=True)


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "version.py"
    monkeypatch.setattr(version, "__file__", str(source))
    assert version.commit() == ""
    git("init", directory=tmp_path)
    (tmp_path / "other.py").write_text("")
    git("add", "other.py", directory=tmp_path)
    git("commit", "-m", "One", directory=tmp_path)
    source.write_text("")
    assert version.commit() == "", "installed into somebody's repository"
    git("add", "version.py", directory=tmp_path)
    git("commit", "-m", "Two", directory=tmp_path)
    clean = version.commit()
    assert len(clean) == 40 and set(clean) <= set("0123456789abcdef")
    source.write_text("VERSION = 2")
    assert version.commit() == f"{clean}-dirty"


def test_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert version.commit() == ""

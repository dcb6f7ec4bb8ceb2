"""Places: local files and those behind a scheme, by one set of functions."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.registry import _registry

from fastbert_jax.errors import UserError
from fastbert_jax.text.filesystem import (
    expand,
    is_file,
    local_copy,
    open_bytes,
    place_of,
    size_of,
)
from tests.text.corpora import open_only, values_of


@pytest.fixture(params=["local", "file", "memory"])
def folder(request, tmp_path):
    """The name of a folder with a.txt and b.txt."""
    names = {"local": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory:///{tmp_path.name}"}
    for name in ("a.txt", "b.txt"):
        with fsspec.open(f"{names[request.param]}/{name}", "wb") as stream:
            stream.write(name.encode())
    return names[request.param]


def test_files_are_the_same_wherever_they_are(folder):
    place = place_of(f"{folder}/a.txt")
    assert is_file(place) and size_of(place) == 5
    assert not is_file(place_of(folder)) and not is_file(place_of(f"{folder}/c"))
    with open_bytes(place) as stream:
        assert stream.read() == b"a.txt"
    with local_copy(place) as path:
        assert path.read_bytes() == b"a.txt"
    assert values_of(f"{folder}/a.txt") == [("a.txt",)]


def test_patterns_are_sorted_and_each_file_comes_once(folder):
    assert expand((f"{folder}/*.txt",), key="input") == [f"{folder}/a.txt", f"{folder}/b.txt"]
    assert expand((f"{folder}/b.txt", f"{folder}/[a]*"), key="input") == [f"{folder}/b.txt", f"{folder}/a.txt"]
    with pytest.raises(UserError, match="input: expected each file once, found .*a.txt twice"):
        expand((f"{folder}/a.txt", f"{folder}/*"), key="input")
    with pytest.raises(UserError, match=r"input: expected files, found none that match .*\*.csv"):
        expand((f"{folder}/*.csv",), key="input")


def test_files_that_are_not_there_are_named(folder):
    with pytest.raises(UserError, match="expected a file, found nothing at .*none.txt"):
        open_only(f"{folder}/none.txt")
    with pytest.raises(UserError, match="expected a file, found a directory at"):
        place = place_of(f"{folder}/d.txt/e")
        with fsspec.open(str(place), "wb", auto_mkdir=True) as stream:
            stream.write(b"")
        open_only(f"{folder}/d.txt")


def test_schemes_that_nothing_reads_are_named():
    with pytest.raises(
        UserError, match=r"nope://a.txt: expected a scheme:// that fsspec can read here, found: Protocol"
    ):
        open_only("nope://a.txt")


class Unreachable(fsspec.AbstractFileSystem):
    """A file system whose own error says that it cannot be reached."""

    protocol = "unreachable"

    def info(self, path, **settings):
        raise RuntimeError("no credentials")


def test_a_file_system_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setitem(_registry, "unreachable", Unreachable)
    for ask in (size_of, open_only):
        with pytest.raises(
            UserError, match="unreachable://a.csv: expected a file system .* RuntimeError: no credentials"
        ):
            ask("unreachable://a.csv")

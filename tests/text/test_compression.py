"""Compressed files: read like plain ones, whole from any number of members, and damage is an error."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pyarrow as pa
import pytest

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Example
from fastbert_jax.text.filesystem import CODECS, codec_of, compressed, open_bytes, without_compression
from fastbert_jax.text.readers import open_table
from fastbert_jax.text.sources import open_examples, read_examples
from tests.text.corpora import open_only, values_of

ENDINGS = sorted(CODECS)
CONTENTS = {
    ".tsv": "text\tlabel\na\tx\nb\ty\n",
    ".csv": 'text;label\n"a, or\nso";x\nb;y\n',
    ".jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n',
    ".txt": "a\nb\n",
}


def write(path: Path, *pieces: bytes) -> Path:
    codec = codec_of(path)
    assert codec is not None
    path.write_bytes(b"".join(compressed(piece, codec) for piece in pieces))
    return path


@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.parametrize("compression", ENDINGS)
def test_a_compressed_file_reads_as_the_plain_one(tmp_path: Path, ending: str, compression: str) -> None:
    plain = tmp_path / f"a{ending}"
    plain.write_text(CONTENTS[ending])
    packed = write(tmp_path / f"a{ending.upper()}{compression}", CONTENTS[ending].encode())
    assert values_of(packed) == values_of(plain)
    with open_examples(str(packed), DataConfig()) as reader:
        records = list(reader)
    assert len(records) == 2 and all(isinstance(record, Example) for record in records)
    if ending != ".txt":
        loaded = read_examples(str(packed), DataConfig(), need_label=True)
        assert [example.label for example in loaded.examples] == ["x", "y"]


@pytest.mark.parametrize("compression", ENDINGS)
def test_all_members_and_frames_are_read_wherever_they_end(tmp_path: Path, compression: str) -> None:
    generator = random.Random(0)
    sizes = [0, 1, 3, *(2**16 + offset for offset in range(-40, 40, 8)), 2**17, 0]
    pieces = [generator.randbytes(size) for size in sizes]  # random bytes keep their length when compressed
    path = write(tmp_path / f"a{compression}", *pieces)
    with open_bytes(path) as stream:
        assert stream.read() == b"".join(pieces)


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n", mtime=1))
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as writer:  # a frame that does not tell its length
        writer.write(b"a\n")
    skippable = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"  # as parallel zstd writes
    (tmp_path / "a.txt.zst").write_bytes(
        skippable + stream.getvalue().to_pybytes() + skippable + compressed(b"b", "zstd")
    )
    assert values_of(tmp_path / "a.txt.gz") == values_of(tmp_path / "a.txt.zst") == [("a",), ("b",)]
    assert gzip.decompress(compressed(b"text", "gzip")) == b"text"


@pytest.mark.parametrize("compression", ENDINGS)
def test_a_damaged_file_is_named(tmp_path: Path, compression: str) -> None:
    lines = "".join(f"text number {number}\n" for number in range(20_000)).encode()
    path = write(tmp_path / f"a.txt{compression}", lines)
    whole = path.read_bytes()
    cut, spoilt = whole[: len(whole) // 2], whole[:2000] + bytes(64) + whole[2064:]
    for content in (cut, spoilt, whole + b"more", whole[:3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.txt{compression}: expected a (gzip|zstd) file, found a damaged one"):
            values_of(path)
    path.write_bytes(b"plain text\n")
    with pytest.raises(UserError, match=r"expected a (gzip|zstd) file, found a damaged one .*; copy it again"):
        values_of(path)


@pytest.mark.parametrize("compression", ENDINGS)
def test_what_is_wrong_inside_is_told_as_of_plain_files(tmp_path: Path, compression: str) -> None:
    (tmp_path / f"none.txt{compression}").write_bytes(b"")
    for path in (tmp_path / f"none.txt{compression}", write(tmp_path / f"a.txt{compression}", b"")):
        with pytest.raises(UserError, match="expected rows, found none"):
            read_examples(str(path), DataConfig(), need_label=False)
    with pytest.raises(UserError, match="expected UTF-8, found UTF-16 without a byte order mark"):
        open_only(write(tmp_path / f"a.tsv{compression}", "text\na\n".encode("utf-16-be")))
    for ending in ("", ".parquet"):  # which compresses its own content
        with pytest.raises(UserError, match=r"expected a file ending in .* or \.gz or \.zst after a text file"):
            open_only(write(tmp_path / f"a{ending}{compression}", b"PAR1\n"))
    plain = tmp_path / "a.txt"
    plain.write_bytes(compressed(b"a\n", CODECS[compression]))
    with pytest.raises(UserError, match=r"expected UTF-8, found compressed bytes .* let its name end in \.gz or \.zst"):
        values_of(plain)


def test_endings_in_any_case() -> None:
    assert (codec_of("A.CSV.GZ"), codec_of("a.zst"), codec_of("a.csv")) == ("gzip", "zstd", None)
    assert str(without_compression("d.gz/A.CSV.GZ")) == "d.gz/A.CSV" and str(without_compression("a.csv")) == "a.csv"


def test_a_compressed_file_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    """The first row comes before the rest is decompressed, or its damage would show."""
    lines = "".join(f"{random.Random(number).random()}\n" for number in range(50_000)).encode()
    path = write(tmp_path / "a.txt.zst", lines[: len(lines) // 2], lines[len(lines) // 2 :])
    path.write_bytes(path.read_bytes()[:-100])
    with open_table(path) as table:
        rows = table.rows(("text",))
        assert next(rows).values == {"text": lines.split(b"\n")[0].decode()}
        with pytest.raises(UserError, match="damaged"):
            list(rows)


def test_an_error_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, *arguments: object) -> bytes:
            raise OSError(5, "Input/output error")

    path = write(tmp_path / "a.txt.gz", b"a\n")
    monkeypatch.setattr("builtins.open", lambda *arguments: Broken())
    with pytest.raises(UserError, match=r"a\.txt\.gz: expected a readable file, found Input/output error"):
        values_of(path)

"""Whatever a file or a SPEC holds: as many rows come out as went in, with their values, or a `UserError` says why."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbert_jax.config import BadRow, DataConfig, Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Example, Unreadable
from fastbert_jax.text.sources import open_examples, read_examples

ENDINGS = [".txt", ".tsv", ".csv", ".jsonl", ".json", ".parquet", ".arrayrecord", ".csv.gz", ".txt.zst"]
fixed = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
UNICODE = st.characters(exclude_categories=("Cs",))
TEXTS = st.text(st.one_of(UNICODE, st.sampled_from(" \t\n\r\"',;|{}[]#\\\x00\x0b\x1c\x85\u2028\ufeff"))).filter(
    lambda text: not text.startswith("\ufeff") and (not text or text.strip("\x00"))
)
LINES = TEXTS.map(lambda text: text.replace("\n", " ").replace("\r", " "))
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from(["pos", "neg"])), min_size=1, max_size=20)


def examples_of(path, need_label=True, **config):
    loaded = read_examples(str(path), DataConfig(**config), need_label=need_label)
    assert loaded.rejected == ()
    return [(example.text, example.label) for example in loaded.examples]


@fixed
@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_csv_files(tmp_path, rows, delimiter, quoting):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, quoting=quoting).writerows([("text", "label"), *rows])
    (tmp_path / "a.csv").write_text(stream.getvalue(), encoding="utf-8", newline="")
    named = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}[delimiter]
    assert examples_of(tmp_path / "a.csv", delimiter=Delimiter(named)) == rows


@fixed
@given(rows=st.lists(st.tuples(LINES, st.sampled_from(["pos", "neg"])), min_size=1))
def test_tsv_files(tmp_path, rows):
    rows = [(text.replace("\t", " ").replace('"', "'"), label) for text, label in rows]
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    (tmp_path / "a.tsv").write_text(content, encoding="utf-8", newline="")
    assert examples_of(tmp_path / "a.tsv") == rows


@fixed
@given(rows=ROWS)
def test_files_of_json_and_parquet(tmp_path, rows):
    objects = [{"text": text, "label": label} for text, label in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    (tmp_path / "a.json").write_text(json.dumps(objects, ensure_ascii=False, indent=1), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    for ending in (".jsonl", ".json", ".parquet"):
        assert examples_of(tmp_path / f"a{ending}") == rows


@fixed
@given(
    texts=st.lists(LINES, min_size=1), end=st.sampled_from(["\n", "\r\n"]), codec=st.sampled_from(["utf-8", "utf-16"])
)
def test_txt_files(tmp_path, texts, end, codec):
    (tmp_path / "a.txt").write_bytes("".join(f"{text}{end}" for text in texts).encode(codec))
    with open_examples(str(tmp_path / "a.txt"), DataConfig()) as reader:
        assert [row.text for row in reader] == texts


def damaged(content, seed):
    """The content with some bytes changed, left out, or put elsewhere."""
    generator = random.Random(seed)
    content = bytearray(content)
    for _ in range(generator.randrange(4)):
        start, size = generator.randrange(len(content) + 1), generator.randrange(8)
        piece = generator.choice(
            [b"", b"\x00", b'"', b"\n", b"\r", b",", b"\t", b"[" * 3000, generator.randbytes(size)]
        )
        content[start : start + size] = piece
    return bytes(content)


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_files_and_files_of_other_endings_raise_no_other_error(tmp_path, ending):
    whole = [
        b"text,label\na fine film,1\npoor plot,2\n",
        b'"text"\t"label"\n"a ""fine"" film"\t1\n',
        b'{"text": "a", "label": 1e400}\n{"text": 5, "label": [1]}\n',
        b'[{"text": "a"}, {"text": null}]',
        "text;label\nä;1\n".encode("utf-16"),
        "text\nä\n".encode("utf-32-le"),
        b"sep=;\n#\n\n",
        b"",
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, 2], "x": [[1.0], None]}), path)
    whole.append(path.read_bytes())
    for seed in range(300):
        path = tmp_path / f"b{ending}"
        path.write_bytes(damaged(whole[seed % len(whole)], seed))
        for config in (DataConfig(), DataConfig(on_bad_row=BadRow.SKIP, encoding="utf-16")):
            for need_label in (False, True):
                try:
                    with open_examples(str(path), config, need_label=need_label) as reader:
                        assert all(isinstance(row, Example | Unreadable) for row in reader)
                except UserError:
                    pass


@fixed
@given(content=st.binary())
def test_bytes_as_lines_are_as_many_rows_as_lines(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    try:
        with open_examples(str(path), DataConfig()) as reader:
            rows = list(reader)
    except UserError:
        return
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert b"\r" in content or len(rows) == len(lines) - (not lines[-1])


@fixed
@given(
    scheme=st.sampled_from(
        ["", "~", "builtin:", "prepared:", "stream:", "nope://", "file://", "memory://", "s3://", "/"]
    ),
    name=st.one_of(st.text(max_size=40), st.just("x" * 300), st.just("a\x00b")),
    ending=st.sampled_from(["", *ENDINGS, "#train", "#"]),
)
def test_any_spec_raises_no_other_error(monkeypatch, scheme, name, ending):
    monkeypatch.chdir(tempfile.gettempdir())
    spec = f"{scheme}{name}{ending}"
    if spec != "-" and "**" not in spec:  # standard input, and all files there are
        try:
            read_examples(spec, DataConfig(), need_label=True)
        except UserError as error:
            assert str(error)


def test_a_home_that_nobody_has(tmp_path, monkeypatch):
    for spec in ("~nobody-has-this-name/a.csv", "~nobody-has-this-name"):
        with pytest.raises(UserError, match="expected a path, found a ~ that stands for no home"):
            read_examples(spec, DataConfig(), need_label=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="no home"):
        read_examples("~/a.csv", DataConfig(), need_label=False)

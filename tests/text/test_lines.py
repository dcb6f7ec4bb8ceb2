"""Text files as they come: encodings, ends of lines, and files that are no text or have other names than their content.

Each gives one answer a row, or an error that says what was found.
"""

from __future__ import annotations

import gzip
import io
import sys
import types

import pytest

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.sources import open_examples, read_examples
from tests.text.corpora import open_only, values_of


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.fixture(autouse=True)
def _nothing_said_before():
    say_once.cache_clear()


@pytest.mark.parametrize("ending", [".txt", ".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\r\r\n", "\n"])
def test_every_end_of_lines(tmp_path, ending, end):
    texts = ["a fine film", "poor \u2028 plot", "fine \x0b cast"]
    lines = {".txt": texts, ".jsonl": [f'{{"text": "{text}"}}' for text in texts]}.get(ending, ["text", *texts])
    if ending == ".jsonl":
        lines = [line.replace("\x0b", "\\u000b") for line in lines]
    if ending == ".csv" and end == "\r\r\n":
        pytest.skip("an empty line after each, which a .csv file may have")
    for last in (end, ""):
        path = write(tmp_path / f"a{ending}", end.join(lines) + last)
        assert values_of(path, "text") == [(text,) for text in texts]


def test_two_kinds_of_line_ends_are_told(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "a\rb\r" + "c" * 2**17 + "\nd\n")
    assert [text[:1] for (text,) in values_of(path)] == ["a", "b", "c", "d"]
    assert f"{path}: some lines end in a carriage return (\\r), others in a line feed" in capsys.readouterr().err


def test_a_carriage_return_inside_a_line_is_told_once(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "a\rb\nc\nd\re\n")
    for _ in range(2):
        assert values_of(path) == [("a\rb",), ("c",), ("d\re",)]
    assert (
        capsys.readouterr().err.count(f"{path}:1: the line holds a carriage return (\\r) inside; each such line") == 1
    )


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("ending", [".txt", ".tsv", ".csv"])
def test_unicode_with_a_mark_is_read_and_without_one_is_named(tmp_path, codec, ending):
    content = "the film wäs fine\n中文 poor plot\n"
    path = write(tmp_path / f"a{ending}", (content if ending == ".txt" else f"text\n{content}").encode(codec))
    expected = [("the film wäs fine",), ("中文 poor plot",)]
    if codec[-2:] in ("le", "be"):
        found = rf"expected UTF-8, found {codec[:6].upper()} without a byte order mark; name it: --encoding {codec} "
        with pytest.raises(UserError, match=found):
            values_of(path)
        assert values_of(path, encoding=codec) == expected
    else:
        assert values_of(path) == values_of(path, encoding="latin-1") == expected


@pytest.mark.parametrize("codec", ["latin-1", "cp1252", "gb18030", "shift_jis", "utf-8"])
def test_a_named_encoding(tmp_path, capsys, codec):
    text = {"gb18030": "电影很好", "shift_jis": "映画"}.get(codec, "schöner Film")
    path = write(tmp_path / "a.csv", f"text,label\n{text},a\nx,b\n".encode(codec))
    loaded = read_examples(str(path), DataConfig(encoding=codec), need_label=True)
    assert [example.text for example in loaded.examples] == [text, "x"]
    said = f"{path}: read as latin-1, as --encoding says, but its bytes look like UTF-8"
    capsys.readouterr()
    values_of(path, encoding="latin-1")
    assert (said in capsys.readouterr().err) == (codec == "utf-8")
    if codec != "utf-8":
        with pytest.raises(UserError, match=r"a\.csv:2: expected UTF-8, .*such as --encoding latin-1 \(train: --data"):
            read_examples(str(path), DataConfig(), need_label=True)


def test_an_encoding_that_python_does_not_know_or_that_does_not_fit(tmp_path):
    path = write(tmp_path / "a.txt", "a\n")
    for name in ("nope", "rot13", "a\x00", ""):
        with pytest.raises(UserError, match=r"--encoding \(train: --data\.encoding\): expected one that Python knows"):
            values_of(path, encoding=name)
    with pytest.raises(UserError, match=r"a\.txt: expected utf-16, found other bytes .*truncated"):
        values_of(write(path, "å\nb\n".encode("utf-16")[:-1]))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ".arrayrecord"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "Git LFS pointer .*git lfs pull"),
        (b"PK\x03\x04\x14\x00\x06\x00" + bytes(40), "a zip archive or an Excel file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40), "an old Excel"),
        (gzip.compress(b"text\na\n", mtime=0), "compressed bytes"),
        (b"a.csv".ljust(257, b"\0") + b"ustar\x0000" + bytes(200), "archive"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
        (b"SQLite format 3\x00" + bytes(40), "SQLite"),
        (b"\n<!DOCTYPE html>\n<html lang='en'>\n", "a web page"),
    ],
)
def test_files_whose_names_promise_something_else(tmp_path, ending, content, found):
    if ending == ".txt" and found == "a web page":
        assert len(values_of(write(tmp_path / "a.txt", content))) == 3  # lines of HTML may be texts
        return
    with pytest.raises(UserError, match=rf"a{ending}: expected .*, found .*{found}"):
        values_of(write(tmp_path / f"a{ending}", content))


@pytest.mark.parametrize(
    "content", ["PK is a name\n", "PAR1 is here\n", "BZhang wrote\n", "%PDF is a format\n", "version 2\n", "a\0b\n"]
)
def test_texts_that_begin_like_other_files_are_texts(tmp_path, content):
    assert values_of(write(tmp_path / "a.txt", content)) == [(content[:-1],)]


STREAMS = {
    '{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n': ["a", "b"],
    "id,text\n1,a\n2,b\n": ["a", "b"],
    'text;label\n"a; b";1\nc;2\n': ["a; b", "c"],
    "text\tlabel\na\t1\nb\t2\n": ["a", "b"],
    "one, two\nthree\n": ["one, two", "three"],
    "I read the text, twice\nno, never\n": ["I read the text, twice", "no, never"],
    '{"a": \nno JSON\n': ['{"a": ', "no JSON"],
    "\n\n": ["", ""],
    "text\na\n": ["text", "a"],
}


def test_lines_with_columns_and_no_names_of_them_are_told(tmp_path, capsys):
    for content, count in (("a\tb\nc\td\n", 1), ("a\tb\nc\n", 0), ("a\tb\n", 0), ("a\nb\n", 0)):
        say_once.cache_clear()
        values_of(write(tmp_path / "a.txt", content))
        assert capsys.readouterr().err.count("each line is a text, with the tabs in it; to read columns") == count


@pytest.mark.parametrize("content", STREAMS)
@pytest.mark.parametrize("where", ["stdin", "file"])
def test_json_and_tables_on_standard_input_and_in_txt_files(tmp_path, monkeypatch, capsys, content, where):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content.encode())))
    spec = "-" if where == "stdin" else str(write(tmp_path / "a.txt", content))
    with open_examples(spec, DataConfig()) as reader:
        assert [example.text for example in reader] == STREAMS[content]
    told = "each line is a text, the first one 'text' too; if that is the name of a column, remove it"
    assert (told in capsys.readouterr().err) == (content == "text\na\n")


def test_a_list_of_json_objects(tmp_path):
    path = write(tmp_path / "a.json", ' \n[{"text": "a",\n"label": 1}, {"text": "b", "label": "c"}, 3]\n')
    assert open_only(path).columns == ("text", "label")
    with pytest.raises(UserError, match=r"a\.json\[2\]: expected a JSON object, found '3'"):
        read_examples(str(path), DataConfig(), need_label=True)
    path = write(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n')
    assert values_of(path) == [("a",), ("b",)]
    for content in ('[{"text": "a"}, ', "[" * 100_000):
        with pytest.raises(UserError, match=r"a\.json: expected a list of JSON objects, found .*; .* jq -c '\.\[\]'"):
            open_only(write(path, content))
    with pytest.raises(UserError, match=r"a\.json\[0\]: expected a JSON object, found 'a'; .* may hold a list of them"):
        open_only(write(path, '["a"]'))

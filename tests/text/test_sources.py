"""From a SPEC to examples: labels, bad rows, streaming."""

from __future__ import annotations

import io
import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastbert_jax.config import BadRow, DataConfig, Delimiter, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import (
    MOST_CHARACTERS,
    Example,
    Unreadable,
    is_too_long,
    label_name,
    text_problem,
)
from fastbert_jax.text.filesystem import codec_of, compressed
from fastbert_jax.text.labelled_data import read_labelled_data
from fastbert_jax.text.sources import COLLECTIONS, Collection, open_examples, own_split, read_examples
from fastbert_jax.text.tables import Row, Table

SKIP = DataConfig(on_bad_row=BadRow.SKIP)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def records_of(spec, data=None):
    with open_examples(spec, data or DataConfig()) as reader:
        return list(reader)


def jsonl(path, *rows):
    return write(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def test_examples_carry_text_label_and_place(tmp_path):
    spec = write(tmp_path / "a.tsv", "label\tpremise\thypothesis\n yes \t一 个\ttwo\n")
    (example,) = read_examples(spec, DataConfig(), need_label=True).examples
    assert example == Example(("一 个", "two"), "yes", f"{spec}:2")


def test_empty_and_blank_texts_are_texts(tmp_path):
    spec = write(tmp_path / "a.tsv", "label\ttext\n1\t\n0\t  \n1\ta\x00b\n")
    assert [e.text for e in read_examples(spec, DataConfig(), need_label=True).examples] == ["", "  ", "a\x00b"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"1\tb\xffd", "expected UTF-8, found the byte 0xff at character 2 of the text"),
        (b"1\t\x00\x00", "expected a text, found nothing but NUL bytes, as a damaged disk leaves them"),
        (b"\t\xe4\xb8\xad", "expected a label, found none"),
        (b" \ta", "expected a label, found none"),
        (b"b\xfe\ta", "expected UTF-8, found the byte 0xfe at character 2 of the label"),
        (b"1\ta\tb", "expected 2 columns, found 3"),
        (b"1", "expected 2 columns, found 1"),
    ],
)
def test_a_bad_row_stops_with_its_line_or_is_counted(tmp_path, row, problem):
    spec = write(tmp_path / "a.tsv", b"label\ttext\n0\tgood\n" + row + b"\n1\talso good\n")
    with pytest.raises(UserError) as error:
        read_examples(spec, DataConfig(), need_label=True)
    skip = "--on-bad-row skip (train: --data.on-bad-row skip)"
    encoding = "name the file's encoding, such as --encoding latin-1 (train: --data.encoding latin-1), "
    hint = encoding if "UTF-8" in problem else ""
    assert str(error.value) == f"{spec}:3: {problem}; {hint}fix the row, or skip such rows: {skip}"
    loaded = read_examples(spec, SKIP, need_label=True)
    assert [e.text for e in loaded.examples] == ["good", "also good"]
    assert len(loaded.rejected) == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"label": 1}, "expected a text, found none"),
        ({"text": None, "label": 1}, "expected a text, found none"),
        ({"text": 5, "label": 1}, "expected a text, found the int '5'"),
        ({"text": ["a", "b"], "label": 1}, "expected a text, found the list"),
        ({"text": "b"}, "expected a label, found none"),
        ({"text": "b", "label": None}, "expected a label, found none"),
        ({"text": "b", "label": ""}, "expected a label, found none"),
        ({"text": "b", "label": float("nan")}, "expected a label, found none"),
        ({"text": "b", "label": [1, 2]}, "expected a label, found the list '[1, 2]'"),
        ('{"text": "a\\ud800", "label": 1}', "expected Unicode, found half a surrogate pair (U+D800) at character 2"),
        ('{"text": "a", "label": "\\udc00"}', "expected Unicode, found half a surrogate pair (U+DC00) at character 1"),
        ('{"text": "a", ', "expected a JSON object"),
    ],
)
def test_bad_json_rows(tmp_path, row, problem):
    spec = jsonl(tmp_path / "a.jsonl", {"text": "a", "label": 0}, row)
    with pytest.raises(UserError) as error:
        read_examples(spec, DataConfig(), need_label=True)
    assert str(error.value).startswith(f"{spec}:2: {problem}")
    assert len(read_examples(spec, SKIP, need_label=True).rejected) == 1


def test_a_stream_holds_one_record_for_every_row(tmp_path):
    spec = jsonl(tmp_path / "a.jsonl", {"text": "a"}, "{", {"text": None}, {"text": "b", "label": 1})
    first, broken, null, last = records_of(spec)
    assert (first.text, first.label) == ("a", None)
    assert (last.text, last.label) == ("b", "1")
    assert isinstance(broken, Unreadable) and broken.where == f"{spec}:2"
    assert null == Unreadable(f"{spec}:3", "expected a text, found none (null)")


def test_missing_columns_are_told_at_the_call_and_not_at_the_first_row(tmp_path):
    with pytest.raises(UserError, match="found nothing at"):
        records_of(str(tmp_path / "no.txt"), DataConfig())
    with pytest.raises(UserError, match="expected a column 'body'"):
        records_of(write(tmp_path / "a.tsv", "text\na\n"), DataConfig(text_column="body"))


def test_lines_of_text_and_standard_input(tmp_path, monkeypatch):
    spec = write(tmp_path / "a.txt", "one\n\ntwo")
    assert [e.text for e in records_of(spec, DataConfig(text_column="body"))] == ["one", "", "two"]
    with pytest.raises(UserError, match=r"a\.txt: expected texts with labels, found lines of text alone"):
        read_examples(spec, DataConfig(), need_label=True)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO("a\n中\n".encode())))
    assert [(e.text, e.where) for e in records_of("-")] == [("a", "stdin:1"), ("中", "stdin:2")]


def test_sources_without_a_good_row(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv: expected rows, found none"):
        read_examples(write(tmp_path / "a.tsv", "label\ttext\n"), DataConfig(), need_label=True)
    for content in (b"", b"\xef\xbb\xbf"):
        with pytest.raises(UserError, match=r"a\.txt: expected rows, found none"):
            records_of(write(tmp_path / "a.txt", content))
    with pytest.raises(UserError, match=r"b\.csv: expected rows, found none"):
        records_of(write(tmp_path / "b.csv", "label,text\n\n"))
    spec = write(tmp_path / "c.tsv", "label\ttext\n1\n2\n")
    with pytest.raises(UserError, match=r"c\.tsv:2: expected 2 columns, found 1; none of the 2 rows of .* can be read"):
        read_examples(spec, SKIP, need_label=True)


@pytest.mark.parametrize(
    ("value", "name"),
    [("pos ", "pos"), (3, "3"), (True, "true"), (False, "false"), (2.0, "2"), (0.5, "0.5"), ("1.0", "1.0")]
    + [(value, None) for value in (None, float("nan"), float("inf"), float("-inf"), "", " ", [1], {"a": 1})],
)
def test_names_of_labels(value, name):
    assert label_name(value) == name


def test_what_is_a_text():
    assert text_problem("") is None and text_problem(("a", "中")) is None
    assert "found the int '5'" in text_problem(5)
    assert "found 3 of them" in text_problem(("a", "b", "c"))
    assert "found none" in text_problem(("a", None))


def test_own_splits_of_files_and_built_in_sets():
    assert own_split("a.tsv", "dev", DataConfig()) is None
    assert own_split("builtin:reuters_r8", "dev", DataConfig()) == "builtin:reuters_r8#dev"
    assert own_split("builtin:reuters_r8#train", "test", DataConfig()) == "builtin:reuters_r8#test"
    assert own_split("builtin:reuters_r8#test", "test", DataConfig()) is None
    assert own_split("elsewhere:reuters_r8", "test", DataConfig()) is None
    assert own_split("tfds", "test", DataConfig()) is None


def test_a_collection_of_the_user_is_read_by_its_scheme(monkeypatch):
    parts = {"train": ("good", "bad"), "valid": ("bad",), "heldout": ("good",)}

    def open_part(name, split):
        rows = [Row(f"{name}:{number}", {"text": label, "label": label}) for number, label in enumerate(parts[split])]
        return Table(f"{name}#{split}", ("text", "label"), lambda columns: iter(rows), text_columns=("text",))

    monkeypatch.setitem(COLLECTIONS, "mine", Collection(open_part, lambda name: tuple(parts)))
    assert own_split("mine:set", "dev", DataConfig()) == "mine:set#valid"
    assert own_split("mine:set", "test", DataConfig()) is None
    data = read_labelled_data(DataConfig(train="mine:set", test="mine:set#heldout"))
    assert [[example.where for example in part] for part in (data.train, data.dev, data.test)] == [
        ["set:0", "set:1"],
        ["set:0"],
        ["set:0"],
    ]
    assert len(read_examples("mine:set", DataConfig(), need_label=True, role="test").examples) == 1  # dev's
    monkeypatch.setitem(COLLECTIONS, "mine", Collection(open_part, lambda name: ("heldout",)))
    with pytest.raises(
        UserError, match=r"mine:set: expected a test split, found \['heldout'\]; name one: mine:set#SPLIT"
    ):
        read_examples("mine:set", DataConfig(), need_label=True, role="test")


@pytest.fixture(scope="module")
def opened():
    """The names of all files that Python opens, to be cleared."""
    watching = True

    def hook(event, arguments):  # cannot be removed
        if watching and event == "open":
            names.append(str(arguments[0]))

    names: list[str] = []
    sys.addaudithook(hook)
    yield names
    watching = False


COLUMNS = {"aussage": [f"ein recht langer Satz, Nummer {i}" for i in range(3000)], "urteil": ["gut", "schlecht"] * 1500}


def write_table(path):
    rows = list(zip(*COLUMNS.values(), strict=True))
    match path.name.partition(".")[2].removesuffix(".gz").removesuffix(".zst"):
        case "parquet":
            return pq.write_table(pa.table(COLUMNS), path)
        case "csv":
            lines = ["aussage;urteil", *(f'"{text}";{label}' for text, label in rows)]
        case "tsv":
            lines = ["aussage\turteil", *("\t".join(row) for row in rows)]
        case "jsonl":
            lines = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows]
        case _:
            lines = [text for text, _ in rows]
    content = "".join(f"{line}\n" for line in lines).encode()
    codec = codec_of(path)
    path.write_bytes(compressed(content, codec) if codec else content)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.zst", ".tsv", ".jsonl", ".jsonl.gz", ".txt", ".parquet"])
def test_a_file_is_opened_once(tmp_path, opened, ending):
    """Delimiter, columns, guesses from contents and all rows come from one pass over the file."""
    path = tmp_path / f"a{ending}"
    write_table(path)
    opened.clear()
    with open_examples(str(path), DataConfig(), need_label=not ending.startswith(".txt")) as reader:
        assert reader.columns.guessed == (() if ending == ".txt" else ("aussage", "urteil"))
        assert [example.text for example in reader] == COLUMNS["aussage"]
    assert opened.count(str(path)) == 1


def test_a_pattern_is_all_of_its_files_in_order(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.csv", f"text,label\n{name} one,x\n{name} two,y\n")
    loaded = read_examples(f"{tmp_path}/*.csv", DataConfig(), need_label=True)
    assert [example.text for example in loaded.examples] == ["a one", "a two", "b one", "b two"]
    assert loaded.examples[2].where == f"{tmp_path}/b.csv:2"
    assert loaded.note.endswith(f"{tmp_path}/*.csv is 2 files: {tmp_path}/a.csv, {tmp_path}/b.csv.")
    write(tmp_path / "c.csv", "sentence,label\nc,x\n")
    with pytest.raises(
        UserError, match=r"c\.csv: expected the columns of .*a\.csv \(text in 'text', label in 'label'\)"
    ):
        read_examples(f"{tmp_path}/*.csv", DataConfig(), need_label=True)
    with pytest.raises(UserError, match=r"expected files, found none that match '.*\*\.tsv'; check the path"):
        read_examples(f"{tmp_path}/*.tsv", DataConfig(), need_label=True)


def test_a_directory_says_how_to_name_its_files(tmp_path):
    write(tmp_path / "a.csv", "text,label\na,x\n")
    with pytest.raises(UserError, match=r"found a directory at .*; name its files, such as '.*/\*\.csv'"):
        read_examples(str(tmp_path), DataConfig(), need_label=True)


def test_a_key_that_comes_late(tmp_path):
    rows = [{"text": f"text {n}"} for n in range(120)] + [{"text": f"text {n}", "label": n % 2} for n in range(40)]
    loaded = read_examples(jsonl(tmp_path / "a.jsonl", *rows), SKIP, need_label=True)
    assert (len(loaded.examples), len(loaded.rejected)) == (40, 120)
    spec = jsonl(tmp_path / "b.jsonl", *[{"text": "a"}] * 1000, {"text": "a", "label": 1})
    with pytest.raises(UserError, match=r"b\.jsonl \(by its first 1,000 rows\): expected a label column"):
        read_examples(spec, SKIP, need_label=True)


def test_names_of_classes_that_datasets_wrote_into_parquet(tmp_path):
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": ["a", "b", "c", "d"], "label": [1, 0, 1, -1]})
    for content, labels, order in [
        ({"info": {"features": features}}, ["pos", "neg", "pos"], ("neg", "pos")),
        ({"info": {"features": features | {"label": {"dtype": "int64", "_type": "Value"}}}}, ["1", "0", "1"], ()),
        ({"info": None}, ["1", "0", "1"], ()),
        ([], ["1", "0", "1"], ()),
    ]:
        path = tmp_path / "a.parquet"
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(content)}), path)
        loaded = read_examples(str(path), SKIP, need_label=True)
        assert [example.label for example in loaded.examples][:3] == labels
        assert loaded.class_names == order
        assert [row.problem for row in loaded.rejected] == (["expected a label, found none"] if order else [])


def test_a_text_beyond_any_length_is_cut_when_it_is_read(tmp_path):
    spec = jsonl(tmp_path / "a.jsonl", {"text_a": "ab " * 10**6, "text_b": "c"}, {"text_a": "d", "text_b": "e"})
    long, short = records_of(spec)
    assert long.text == (("ab " * 10**6)[: MOST_CHARACTERS + 1], "c") and is_too_long(long.text)
    assert short.text == ("d", "e") and not is_too_long(short.text)


def note_of(spec, trained, data=None, *, need_label=False):
    with open_examples(spec, data or ReadingConfig(), need_label=need_label, trained=trained) as reader:
        return reader.note.removeprefix(reader.table.name), [row.text for row in reader]


def test_the_columns_of_training_are_read_and_named(tmp_path):
    trained = ReadingConfig(text_column="opinion", pair_column="none", label_column="verdict")
    spec = write(tmp_path / "a.csv", "title,opinion\nt1,o1\nt2,o2\n")
    assert note_of(spec, trained) == (": text in 'opinion', as in training.", ["o1", "o2"])
    assert note_of(spec, None) == (": text in 'title'.", ["t1", "t2"])
    assert note_of(spec, trained, ReadingConfig(text_column="title")) == (": text in 'title'.", ["t1", "t2"])
    spec = write(tmp_path / "b.jsonl", '{"title": "t1"}\n')
    missing = ". The model was trained on text in 'opinion': not all of these are there."
    assert note_of(spec, trained) == (f": text in 'title'{missing}", ["t1"])
    spec = write(tmp_path / "c.txt", "o1\n")
    assert note_of(spec, trained) == ("", ["o1"])
    pairs = ReadingConfig(text_column="a", pair_column="b", label_column="c")
    assert "one text a line. The model was trained on pairs in 'a' and 'b': not all" in note_of(spec, pairs)[0]
    spec = write(tmp_path / "d.csv", "opinion,label\no1,1\n")
    assert "text in 'opinion', label in 'label'. The model was" in note_of(spec, trained, need_label=True)[0]


ROWS = [
    {"id": "1", "subject": "Rechnung", "message": "Wo ist sie?", "label": "a"},
    {"id": "2", "subject": " ", "message": "only this", "label": "b"},
    {"id": "3", "subject": "only that", "message": None, "label": "a"},
    {"id": "4", "subject": None, "message": "", "label": "b"},
]
JOINED = ["Rechnung\nWo ist sie?", "only this", "only that", ""]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_several_columns_are_one_text_without_blank_ones(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif ending == "jsonl":
        jsonl(path, *ROWS)
    else:
        between = "," if ending == "csv" else "\t"
        lines = [list(ROWS[0]), *([value or "" for value in row.values()] for row in ROWS)]
        write(path, "\n".join(map(between.join, lines)))
    data = DataConfig(text_column=("subject", "message"))
    with open_examples(str(path), data, need_label=True, keep=("id",)) as reader:
        assert reader.note.endswith("text in 'subject' + 'message', label in 'label'.")
        records = list(reader)
    assert [(one.text, one.label, one.kept) for one in records] == list(
        zip(JOINED, "abab", [("1",), ("2",), ("3",), ("4",)], strict=True)
    )


def test_several_columns_are_those_of_training_if_all_are_there_and_may_have_a_second_text(tmp_path):
    trained = ReadingConfig(text_column=("subject", "message"), pair_column="none", label_column="label")
    spec = jsonl(tmp_path / "a.jsonl", *({key.title(): value for key, value in row.items()} for row in ROWS))
    assert note_of(spec, trained) == (": text in 'Subject' + 'Message', as in training.", JOINED)
    missing = "The model was trained on text in 'subject' + 'message': not all of these are there."
    spec = jsonl(tmp_path / "b.jsonl", {"message": "m", "text": "t"})
    assert note_of(spec, trained) == (f": text in 'text'. {missing}", ["t"])
    assert note_of(write(tmp_path / "c.txt", "one\n"), trained) == (f": one text a line. {missing}", ["one"])
    spec = jsonl(tmp_path / "d.jsonl", {"subject": "s", "message": "m", "reply": "r", "text_a": "a", "text_b": "b"})
    both = ("subject", "message")
    for data, text in (
        (DataConfig(text_column=both, pair_column="reply"), ("s\nm", "r")),
        (DataConfig(text_column=both), "s\nm"),
        (DataConfig(text_column=both[::-1]), "m\ns"),
        (DataConfig(text_column=("text_a", "text_b")), "a\nb"),
    ):
        assert records_of(spec, data)[0].text == text
    spec = jsonl(tmp_path / "e.jsonl", {"subject": "s", "message": 5}, {"subject": float("nan"), "message": "m"})
    number, text = records_of(spec, DataConfig(text_column=both))
    assert number.problem == "expected a text, found the int '5'" and text.text == "m"
    with pytest.raises(UserError, match=r"a column 'mesage', as --text-column .* did you mean 'message'"):
        records_of(spec, DataConfig(text_column=("subject", "mesage")))
    with pytest.raises(UserError, match=r"--text-column: expected each column once, found \('a', 'a'\)"):
        DataConfig(text_column=("a", "a"))


def test_the_delimiter_of_training_is_used_where_it_gives_the_columns(tmp_path):
    trained = ReadingConfig(text_column="a;b", pair_column="none", label_column="c", delimiter=Delimiter.COMMA)
    spec = write(tmp_path / "a.csv", "a;b,c\n1;2,3\n4;5,6\n")
    with pytest.raises(UserError, match="comma and semicolon fit the first lines equally well"):
        note_of(spec, None)
    assert note_of(spec, trained)[1] == ["1;2", "4;5"]
    semicolons = ReadingConfig(text_column="text", pair_column="none", delimiter=Delimiter.SEMICOLON)
    assert note_of(write(tmp_path / "b.csv", "id,text\n1,a;b\n"), semicolons)[1] == ["a;b"]

"""Which character separates the columns is seen in the first lines; two that both fit are an error."""

from __future__ import annotations

import pytest

from fastbert_jax.config import BadRow, DataConfig, Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.text import delimited, lines
from fastbert_jax.text.sources import read_examples
from tests.text.corpora import open_only, values_of

CHARACTERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(("name", "character"), CHARACTERS.items())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_of_any_delimiter(tmp_path, name, character, end):
    """Quotes hold delimiters and line ends, other texts hold all other delimiters, the header is no plain English."""
    others = " ".join(set(CHARACTERS.values()) - {character})
    rows = [('"Größe"', "Käufer urteilt"), (f'"a {character} ""b""{end}c"', "gut"), (f"x {others} y", "schlecht")]
    content = "".join(character.join(row) + end for row in rows)
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbf" + content.encode())
    assert open_only(path).columns == ("Größe", "Käufer urteilt")
    assert values_of(path) == [(f'a {character} "b"{end}c', "gut"), (f"x {others} y", "schlecht")]
    assert open_only(path).name == (str(path) if name == "comma" else f"{path} ({name}s between its columns)")


def test_rows_count_more_than_the_header(tmp_path):
    path = write(tmp_path / "a.csv", "Text, oder was, oder wie;Label\ngut;1\nschlecht;0\nnoch;zu;viel\n")
    assert open_only(path).columns == ("Text, oder was, oder wie", "Label")


def test_a_coin_toss_is_refused_and_can_be_settled(tmp_path):
    path = write(tmp_path / "a.csv", "text,label;more\na,1;x\n")
    with pytest.raises(
        UserError, match=r"a\.csv:1: expected one character .*, found that comma and semicolon fit .*; "
    ):
        open_only(path)
    with pytest.raises(UserError, match=r"name it: --delimiter comma \(train: --data\.delimiter comma\)"):
        open_only(path)
    assert values_of(path, delimiter=Delimiter.SEMICOLON) == [("a,1", "x")]
    loaded = read_examples(str(path), DataConfig(delimiter=Delimiter.COMMA, label_column="label;more"), need_label=True)
    assert [(example.text, example.label) for example in loaded.examples] == [("a", "1;x")]


def test_a_quote_that_is_open_in_the_first_lines_is_told_by_reading(tmp_path):
    path = write(tmp_path / "a.csv", 'text;label\na;1\n"b;1\nc;2\n')
    with pytest.raises(UserError, match=r"a\.csv:3: expected a closing quote, found none .* close the quote"):
        values_of(path, delimiter=Delimiter.AUTO)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "K\xe4ufer;Urteil".encode("latin-1"),
            r"a\.csv:1: expected UTF-8, found the byte 0xe4 at .* a column's name; save .* encoding",
        ),
        (b'"a"b,c', r"a\.csv:1: expected a line with the names .*: expected quotes around whole fields, found"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        open_only(write(tmp_path / "a.csv", header + b"\na;b\n"))


LONG = "ab " * (10 * 2**20 // 3)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_a_line_of_ten_megabytes_and_a_nul_are_text(tmp_path, ending):
    texts = [LONG, "a\x00b"]
    made = {
        ".tsv": "text\n{}\n{}\n",
        ".csv": 'text\n"{}"\n{}\n',
        ".jsonl": '{{"text": "{}"}}\n{{"text": "{}"}}\n',
        ".txt": "{}\n{}\n",
    }
    escaped = [LONG, "a\\u0000b" if ending == ".jsonl" else "a\x00b"]
    path = write(tmp_path / f"a{ending}", made[ending].format(*escaped))
    assert [row for (row,) in values_of(path)] == texts


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_a_line_without_an_end_is_refused_and_not_held(tmp_path, ending, monkeypatch):
    """Such a file, compressed, may be of a few bytes."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    first = '{"text": "a"}\n' if ending == ".jsonl" else "text\n"
    path = write(tmp_path / f"a{ending}", first + "a" * 101 + "\n")
    with pytest.raises(
        UserError, match=r"a\.[a-z]+:2: expected lines of at most 100 characters, found a longer one; cut it"
    ):
        values_of(path)


def test_a_field_of_many_lines_is_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_LINE", 100)
    path = write(tmp_path / "a.csv", 'text,label\n"' + "aaa\n" * 26 + '",1\nb,2\n')
    with pytest.raises(
        UserError, match=r"a\.csv:2: expected fields of at most 100 characters, found a longer one; look"
    ):
        values_of(path)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".csv", "sep=;\ntext;label\nfine, film;1\npoor;2\n"),
        (".csv", '"sep=;"\r\n"text";"label"\r\n"fine, film";1\r\npoor;2\r\n'),
        (".csv", "SEP=|\ntext|label\nfine, film|1\npoor|2\n"),
        (".tsv", "sep=\t\ntext\tlabel\nfine, film\t1\npoor\t2\n"),
        (".csv", "# made by hand\n# twice\ntext;label\nfine, film;1\npoor;2\n"),
        (".tsv", "# made by hand\ntext\tlabel\nfine, film\t1\npoor\t2\n"),
        (".csv", 'text, label\n"fine, film", "1"\n"poor", "2"\n'),
        (".csv", 'text,label\n  "fine, film",1\npoor, "2"\n'),
        (".csv", '#,text,label\n1,"fine, film",1\n2,poor,2\n'),
        (".tsv", '"text"\t"label"\n"fine, film"\t"1"\n"poor"\t"2"\n'),
        (".tsv", '"text"\t"label"\nfine, film\t1\npoor\t2\n'),
        (".tsv", 'text\tlabel\n"fine, film"\t1\n"poor"\t2\n'),
    ],
)
def test_what_programs_write_around_columns_and_fields(tmp_path, ending, content):
    path = write(tmp_path / f"a{ending}", content)
    loaded = read_examples(str(path), DataConfig(), need_label=True)
    assert [(example.text, example.label) for example in loaded.examples] == [("fine, film", "1"), ("poor", "2")]
    line = next(n for n, line in enumerate(content.splitlines(), 1) if "fine" in line)
    assert loaded.examples[0].where == f"{path}:{line}"


@pytest.mark.parametrize(
    "texts",
    [
        ['"hello" he said', 'the "best" film'],
        ['"a whole quotation"', 'the "best" film'],
        ['"never closed', "b"],
        ['" ""', 'it is 5" long'],
    ],
)
def test_quotes_of_a_plain_tsv_file_stay(tmp_path, texts):
    path = write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{text}\tx\n" for text in texts))
    assert [text for text, _ in values_of(path)] == texts


def test_a_tsv_file_that_doubles_quotes_inside_fields_is_quoted(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"he said ""no"""\tx\nplain\ty\n"a\ttab"\tx\n"two\nlines"\ty\n')
    assert values_of(path) == [('he said "no"', "x"), ("plain", "y"), ("a\ttab", "x"), ("two\nlines", "y")]
    assert open_only(path).name == f"{path} (with quoted columns)"


def test_a_blank_before_a_quotation_that_is_only_a_part_stays(tmp_path):
    path = write(tmp_path / "a.csv", 'label,text\nx, "hello" he said\ny,b\n')
    assert values_of(path) == [("x", ' "hello" he said'), ("y", "b")]


@pytest.mark.parametrize("first", ["# made by me, 2020\ntext,label", "# text,label", "#text"])
def test_a_comment_in_the_place_of_the_names_is_no_name(tmp_path, first):
    path = write(tmp_path / "a.csv", f"{first}\n" + ("a,1\nb,2\n" if "," in first else "a\nb\n"))
    with pytest.raises(UserError, match=r"a\.csv: expected .*, found .*# ?(made|text)"):
        read_examples(str(path), DataConfig(), need_label=False)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("content", ['{"text": "a"}\n{"text": "b"}\n', '[{"text": "a"},\n{"text": "b"}]\n'])
def test_json_in_a_file_of_columns(tmp_path, ending, content):
    with pytest.raises(UserError, match=r"expected a line with the names of the columns, found JSON; .* \.jsonl"):
        open_only(write(tmp_path / f"a{ending}", content))


def swallowing(character, end="\n"):
    """40 rows, of which a quote at the beginning of row 3 and one at the end of row 32 make 10."""
    rows = [f"text number {n}{character}{('neg', 'pos')[n % 2]}" for n in range(1, 41)]
    rows[2] = '"' + rows[2]
    rows[31] = rows[31].replace(character, f'"{character}')
    return end.join([f"text{character}label", *rows, ""])


@pytest.mark.parametrize(("character", "end"), [(",", "\n"), (";", "\n"), ("|", "\r\n"), (",", "\r")])
def test_rows_that_a_stray_quote_swallows_are_named(tmp_path, character, end):
    path = write(tmp_path / "a.csv", swallowing(character, end))
    found = r"a\.csv:4: expected one row, found a field of 30 lines \(\d+ characters\) that look like rows of their own"
    with pytest.raises(UserError, match=found):
        read_examples(str(path), DataConfig(), need_label=True)
    loaded = read_examples(str(path), DataConfig(on_bad_row=BadRow.SKIP), need_label=True)
    assert (len(loaded.examples), len(loaded.rejected)) == (10, 1)


def test_two_rows_that_a_stray_quote_joins(tmp_path):
    rows = "".join(f"text number {n},{('neg', 'pos')[n % 2]}\n" for n in range(8))
    path = write(tmp_path / "a.csv", f'text,label\n{rows}"a fine start,pos\nof a poor film",neg\n')
    with pytest.raises(UserError, match=r"a\.csv:10: expected one row, found a field of 2 lines"):
        read_examples(str(path), DataConfig(), need_label=True)


def test_a_quote_that_ends_inside_a_later_row_names_both_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"good start,pos\nb,neg\nc "best" d,pos\ne,neg\n')
    with pytest.raises(UserError, match=r"a\.csv:2: expected quotes around .* in line 4: the row goes on to there"):
        read_examples(str(path), DataConfig(), need_label=True)


@pytest.mark.parametrize(
    "text",
    [
        "I liked it, yes\nbut not, all\nreally, no",
        "Dear all, hello\n\nBest, me\n",
        "a\nb\nc\nd\ne",
        "one, two\nthree, four\nfive, six\nseven, eight\n",
        "name,neg or pos\nfilm,pos or neg",
    ],
)
@pytest.mark.parametrize("label_first", [False, True])
def test_texts_of_several_lines_are_texts(tmp_path, text, label_first, capsys):
    rows = [[f"text {n}", ("neg", "pos")[n % 2]] for n in range(8)] + [[text, "pos"]]
    order = -1 if label_first else 1
    content = "".join(",".join([f'"{row[0]}"', row[1]][::order]) + "\n" for row in [["text", "label"], *rows])
    loaded = read_examples(str(write(tmp_path / "a.csv", content)), DataConfig(), need_label=True)
    assert [example.text for example in loaded.examples] == [row[0] for row in rows]
    assert capsys.readouterr().err == ""


def test_a_single_column_with_one_text_of_many_lines_is_told(tmp_path, capsys):
    lines = "".join(f"line {n}\n" for n in range(9))
    path = write(tmp_path / "a.csv", f'text\na\n"start\n{lines}end"\n' + "b\n" * 20)
    assert len(values_of(path)) == 22
    assert (
        f"{path}:3: the text has 11 lines (72 characters), while nearly all of the first rows have one; look for a"
        in capsys.readouterr().err
    )

"""A task: order of labels, cut of dev, and labels that train never had."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fastbert_jax.config import BadRow, DataConfig, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.columns import Columns
from fastbert_jax.text.examples import Example, Unreadable
from fastbert_jax.text.labelled_data import (
    MOST_GROUPS,
    grouped,
    known_examples,
    label_ids,
    label_order,
    read_labelled_data,
    without_labels,
)
from fastbert_jax.text.sources import Loaded, read_examples


def write(path, rows, header=("label", "text")):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in (header, *rows)), encoding="utf-8")
    return str(path)


def rows(labels, count=4):
    return [(label, f"text {label} {i}") for i in range(count) for label in labels]


def task(path, classes, **settings):
    return read_labelled_data(DataConfig(train=write(path / "train.tsv", rows(classes)), **settings))


def test_labels_are_sorted_as_text_or_as_numbers(tmp_path):
    assert task(tmp_path, ["pos", "neg", "Meh"]).labels == ("Meh", "neg", "pos")
    assert task(tmp_path, [10, 9, -1]).labels == ("-1", "9", "10")
    assert task(tmp_path, ["pos", "neg"], labels=("pos", "neg", "none")).labels == ("pos", "neg", "none")


def test_labels_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"expected two classes or more in train, found only 'a' in all of its 4 rows"):
        task(tmp_path, ["a"])
    with pytest.raises(UserError, match=r"train\.tsv:3: expected a class, found the number 0\.5; .*--data\.labels"):
        task(tmp_path, ["1", "0.5"])
    assert task(tmp_path, ["1", "0.5"], labels=("0.5", "1")).labels == ("0.5", "1")
    assert task(tmp_path, ["1.0", "2.0"]).labels == ("1.0", "2.0")
    with pytest.raises(
        UserError, match=r"expected label one of \['a', 'b'\], found 'c' at .*train\.tsv:4 \(4 of 10 .*\['c'\]\); fix"
    ):
        task(tmp_path, ["a", "b", "c"], labels=("a", "b"))
    with pytest.raises(UserError, match=r"--data\.train: expected a SPEC of labelled texts, found nothing"):
        read_labelled_data(DataConfig())


@pytest.mark.parametrize("part", ["dev", "test"])
def test_a_label_that_train_never_had_is_named_with_its_line(tmp_path, part):
    other = write(tmp_path / "other.tsv", [("neg", "a"), ("positive", "b")])
    with pytest.raises(UserError) as error:
        task(tmp_path, ["neg", "pos"], **{part: other})
    assert str(error.value).startswith(f"expected label one of ['neg', 'pos'], found 'positive' at {other}:3; fix")


def test_rows_of_excluded_labels_are_left_out_of_all_parts_and_counted(tmp_path):
    test = write(tmp_path / "test.tsv", [("pos", "t1"), ("spam", "t2"), ("rare", "t3"), ("neg", "t4")])
    made = task(tmp_path, ["neg", "pos", "spam"], test=test, exclude_labels=("spam", "rare"))
    assert made.labels == ("neg", "pos") and made.unlabelled is made.train
    assert {e.label for e in (*made.train, *made.dev, *made.test)} == {"neg", "pos"}
    assert (len(made.train) + len(made.dev), len(made.test)) == (8, 2)
    for part, count, labels in (
        ("train", "4 of 12 (33.3 %)", "'spam (4)'"),
        ("test", "2 of 4 (50.0 %)", "'spam (1)', 'rare (1)'"),
    ):
        words = f"{count} {part} rows have excluded labels and are left out: [{labels}] (--data.exclude-labels)."
        assert words in made.notes
    assert task(tmp_path, [1, 2, 3], exclude_labels=("3",)).labels == ("1", "2")


def test_labels_that_cannot_be_excluded(tmp_path):
    for excluded, message in (
        (("spma",), r"--data\.exclude-labels: expected labels of the rows, found 'spma'; did you mean 'spam'"),
        (
            ("spam", "pos"),
            r"two classes or more in train, found only 'neg' .* check --data\.exclude-labels or --data\.label",
        ),
        (("spam", "pos", "neg"), r"12 of 12 .* train rows have excluded labels .*; expected rows with other labels"),
    ):
        with pytest.raises(UserError, match=message):
            task(tmp_path, ["neg", "pos", "spam"], exclude_labels=excluded)
    test = write(tmp_path / "test.tsv", [("spam", "t1")])
    with pytest.raises(UserError, match=r"1 of 1 .* test rows have excluded labels"):
        task(tmp_path, ["neg", "pos", "spam"], test=test, exclude_labels=("spam",))
    with pytest.raises(UserError, match=r"--data\.exclude-labels: expected none of --data\.labels, found \['a'\]"):
        DataConfig(labels=("a", "b"), exclude_labels=("a", "c"))
    read = Loaded(
        [Example("a", label, "f:1") for label in "xyz"], (), Columns(("text",), None, "label"), ("z", "y", "x"), ""
    )
    read, _ = without_labels(read, ("y",))
    assert label_order(read, DataConfig(exclude_labels=("y",))) == ("z", "x")


def test_label_ids_are_places_in_the_order():
    ids = label_ids([Example("a", "y", "f:1"), Example("b", "x", "f:2")], ("x", "y"))
    assert ids.dtype == np.int32 and ids.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"found None at f:1"):
        label_ids([Example("a", None, "f:1")], ("x", "y"))


def test_dev_and_test_are_cut_from_train(tmp_path):
    made = task(tmp_path, ["a", "b"], dev_fraction=0.5, test_fraction=0.25)
    for part, size in ((made.train, 1), (made.dev, 2), (made.test, 1)):
        assert Counter(e.label for e in part) == {"a": size, "b": size}
    assert len({e.where for e in (*made.train, *made.dev, *made.test)}) == 8
    assert made.unlabelled is made.train
    assert made.notes[0].endswith("train.tsv: text in 'text', label in 'label'.")
    for part, count in (("dev", 4), ("test", 2)):
        words = f"(--data.{part} names one, --data.{part}-fraction their share)."
        assert f"There is no {part} set: {count} of 8 training rows were cut off as {part} {words}" in made.notes
    assert made == task(tmp_path, ["a", "b"], dev_fraction=0.5, test_fraction=0.25)


def test_dev_stands_in_for_test_where_that_is_asked(tmp_path):
    made = task(tmp_path, ["a", "b"], dev_fraction=0.25, test_fraction=0.0)
    assert made.test is made.dev and len(made.train) == 6
    assert "There is no labelled test set: dev is used instead." in made.notes


def test_named_parts_are_read_and_nothing_is_noted_about_them(tmp_path):
    dev = write(tmp_path / "dev.tsv", [("a", "d")])
    test = write(tmp_path / "test.tsv", [("b", "t")])
    (tmp_path / "more.txt").write_text("x\ny\n", encoding="utf-8")
    settings = {"text_column": "text", "label_column": "label", "pair_column": "none"}
    train = write(tmp_path / "train.tsv", rows(["a", "b"], count=5))
    made = read_labelled_data(
        DataConfig(train=train, dev=dev, test=test, unlabelled=str(tmp_path / "more.txt"), **settings)
    )
    assert (len(made.train), len(made.dev), len(made.test), made.notes) == (10, 1, 1, ())
    assert [(e.text, e.label) for e in made.unlabelled] == [("x", None), ("y", None)]


def test_labels_of_unlabelled_texts_are_ignored(tmp_path):
    more = write(tmp_path / "more.tsv", [("never seen", "x"), ("", "y")])
    assert [e.label for e in task(tmp_path, ["a", "b"], unlabelled=more).unlabelled] == [None, None]


def test_two_rows_make_a_task(tmp_path):
    made = read_labelled_data(DataConfig(train=write(tmp_path / "train.tsv", [("a", "x"), ("b", "y")])))
    assert made.train == made.dev == made.test
    assert any("too few to cut" in note for note in made.notes)


def test_built_in_sets_bring_their_own_splits():
    made = read_labelled_data(DataConfig(train="builtin:reuters_r8"))
    assert (len(made.train), len(made.dev), len(made.test)) == (4938, 547, 2189)
    assert made.labels == ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
    known, known_test, conflicts, sizes = made.notes
    assert known.startswith("7 of 547 (1.3 %) dev texts are in train too")
    assert known_test.startswith("4 of 2189 (0.2 %) test texts are in train too")
    assert conflicts.startswith("3 train texts have more than one label") and "has 2559 train texts" in sizes


def test_columns_that_were_guessed_of_train_are_those_of_the_others(tmp_path):
    header = ("Urteil", "Aussage")
    train = write(tmp_path / "train.tsv", [(c, f"ein recht langer Satz {i}") for i in range(9) for c in "ab"], header)
    one = write(tmp_path / "one.tsv", [("a", "kurz")], header)  # one row does not decide it
    made = read_labelled_data(DataConfig(train=train, dev=one, test=one))
    assert made.dev[0].text == made.test[0].text == "kurz" and made.dev[0].label == "a"
    assert (
        "Guessed from the contents of 'Aussage' and 'Urteil'; name others with --text-column or --label-column (train"
        in made.notes[0]
    )
    other = write(tmp_path / "other.tsv", [("a", "kurz")], ("Urteil", "text"))
    with pytest.raises(UserError, match=r"other\.tsv: expected a column 'Aussage', .* found the columns"):
        read_labelled_data(DataConfig(train=train, dev=other))


def test_rows_that_are_left_out_are_kept_by_place_of_every_source(tmp_path):
    train = write(tmp_path / "train.tsv", [*rows(["a", "b"]), ("a",)])
    more = write(tmp_path / "more.tsv", [("", "x"), ("", "y", "z")])
    made = read_labelled_data(DataConfig(train=train, unlabelled=more, on_bad_row=BadRow.SKIP))
    assert made.rejected == (
        Unreadable(f"{train}:10", "expected 2 columns, found 1"),
        Unreadable(f"{more}:3", "expected 2 columns, found 3"),
    )


def test_labels_that_are_all_unknown_are_shown_beside_those_of_the_model():
    rows = [Example("a", label, f"a.csv:{line}") for line, label in enumerate("0101", start=2)]
    with pytest.raises(
        UserError,
        match=r"expected label one of \['neg', 'pos'\], found '0' at a\.csv:2 \(4 of 4 \(100\.0 %\) rows have other "
        r"labels: \['0', '1'\]\); no row has one of these labels: check --label-column .*, or fix it",
    ):
        label_ids(rows, ("neg", "pos"), remedy="fix it")


def test_rows_of_unknown_labels_are_left_out_and_counted_where_bad_rows_are_skipped(capsys):
    rows = [Example("a", label, f"a.csv:{line}") for line, label in enumerate("nnxnyx", start=2)]
    read = Loaded(rows, (), Columns(("text",), None, "label"), (), "")
    skip = ReadingConfig(on_bad_row=BadRow.SKIP)
    assert known_examples(read, ("n", "m"), ReadingConfig()) == rows and capsys.readouterr().err == ""
    assert known_examples(read, ("n", "m"), skip) == [rows[0], rows[1], rows[3]]
    assert capsys.readouterr().err == (
        "3 of 6 (50.0 %) rows have labels that the model does not know and were left out: ['x (2)', 'y (1)']\n"
    )
    assert known_examples(read, ("m",), skip) == rows  # not one is known: an error follows


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_values_of_a_column_are_grouped_the_same_in_every_format(tmp_path, form):
    languages = ["en", "de", " en ", ""] * 2
    found = [{"text": f"text {i}", "label": "ab"[i % 2], "Sprache ä": one} for i, one in enumerate(languages)]
    path = tmp_path / f"test.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), path)
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, found)))
    else:
        between = {"csv": ",", "tsv": "\t"}[form]
        path.write_text("\n".join(between.join(row) for row in (found[0], *(one.values() for one in found))))
    read = read_examples(str(path), ReadingConfig(), need_label=True, keep=("Sprache ä",), option="--by")
    values = grouped(read.examples, ["Sprache ä"], option="--by")["Sprache ä"]
    assert values == ["en", "de", "en", "(empty)"] * 2
    with pytest.raises(UserError, match=r"--by: expected a column 'sprache', found .*; (did you mean|known)"):
        read_examples(str(path), ReadingConfig(), need_label=True, keep=("sprache",), option="--by")


def of_values(*values):
    return [Example("a", "b", "c:1", kept=(value,)) for value in values]


def test_values_of_any_type_are_text_and_what_is_missing_is_empty():
    values = [1, 1.0, True, None, float("nan"), " ", ["a"], "a\nb", "\udcff"]
    found = grouped(of_values(*values), ["x"], option="--by")["x"]
    assert found == ["1", "1", "true", "(empty)", "(empty)", "(empty)", "['a']", "a b", "?"]


def test_rare_values_are_taken_together_and_an_id_is_refused(capsys):
    values = [number for number in range(40) for _ in range(41 - number)]
    found = Counter(grouped(of_values(*values), ["x"], option="--by")["x"])
    assert len(found) == MOST_GROUPS and found["0"] == 41 and found["21 others"] == sum(range(2, 23))
    assert "--by x: 40 different values; the rarest are shown together as '21 others'" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match=r"--by x: expected a column whose values repeat.*found 30 .* in 50 rows"):
        grouped(of_values(*range(30), *[0] * 20), ["x"], option="--by")
    assert len(set(grouped(of_values(*range(MOST_GROUPS)), ["x"], option="--by")["x"])) == MOST_GROUPS


@pytest.mark.parametrize("source", ["test", "dev", "train"])
def test_the_column_must_be_where_the_test_texts_come_from_and_nowhere_else(tmp_path, source):
    header = ("label", "text", "day")
    files = {
        role: [(label, f"{role} {label} {i}", i % 3) for i in range(8) for label in "ab"]
        for role in ("train", "dev", "test")
    }
    paths = {
        role: write(
            tmp_path / f"{role}.tsv",
            rows if role == source else [row[:2] for row in rows],
            header[: 2 + (role == source)],
        )
        for role, rows in files.items()
    }
    if source != "test":
        del paths["test"]
    settings = DataConfig(**paths, test_fraction=0 if source == "dev" else 0.25)
    found = read_labelled_data(settings, by=("day",))
    assert len(found.test) > 1 and {example.kept[0] for example in found.test} <= {"0", "1", "2"}
    with pytest.raises(
        UserError, match=rf"{source}\.tsv: --evaluate\.by: expected a column 'dya', .*did you mean 'day'"
    ):
        read_labelled_data(settings, by=("dya",))

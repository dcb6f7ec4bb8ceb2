"""A task: order of labels, cut of dev, and labels that train never had."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Example
from fastbert_jax.text.tasks import cut_dev, label_ids, load_task


def write(path, rows, header=("label", "text")):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in (header, *rows)), encoding="utf-8")
    return str(path)


def rows(labels, count=4):
    return [(label, f"text {label} {i}") for i in range(count) for label in labels]


def task(path, classes, **settings):
    return load_task(DataConfig(train=write(path / "train.tsv", rows(classes)), **settings))


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
    with pytest.raises(UserError, match=r"expected label one of \['a', 'b'\], found 'c' at .*train\.tsv:4; fix"):
        task(tmp_path, ["a", "b", "c"], labels=("a", "b"))
    with pytest.raises(UserError, match=r"data\.train: expected a SPEC of training texts, found none"):
        load_task(DataConfig())


@pytest.mark.parametrize("part", ["dev", "test"])
def test_a_label_that_train_never_had_is_named_with_its_line(tmp_path, part):
    other = write(tmp_path / "other.tsv", [("neg", "a"), ("positive", "b")])
    with pytest.raises(UserError) as error:
        task(tmp_path, ["neg", "pos"], **{part: other})
    assert str(error.value).startswith(f"expected label one of ['neg', 'pos'], found 'positive' at {other}:3; fix")


def test_label_ids_are_places_in_the_order():
    ids = label_ids([Example("a", "y", "f:1"), Example("b", "x", "f:2")], ("x", "y"))
    assert ids.dtype == np.int32 and ids.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"found None at f:1"):
        label_ids([Example("a", None, "f:1")], ("x", "y"))


def test_dev_is_cut_from_train_and_test_falls_back_to_dev(tmp_path):
    made = task(tmp_path, ["a", "b"], dev_fraction=0.25)
    assert Counter(e.label for e in made.dev) == {"a": 1, "b": 1}
    assert len(made.train) == 6 and made.test is made.dev and made.unlabelled is made.train
    assert made.notes[0].endswith("train.tsv: text in 'text', label in 'label'.")
    assert "There is no dev set: 2 of 8 training rows were cut off as dev." in made.notes
    assert "There is no labelled test set: dev stands in for it." in made.notes
    assert made == task(tmp_path, ["a", "b"], dev_fraction=0.25)


def test_named_parts_are_read_and_nothing_is_noted_about_them(tmp_path):
    dev = write(tmp_path / "dev.tsv", [("a", "d")])
    test = write(tmp_path / "test.tsv", [("b", "t")])
    (tmp_path / "more.txt").write_text("x\ny\n", encoding="utf-8")
    settings = {"text_column": "text", "label_column": "label", "pair_column": "none"}
    made = task(tmp_path, ["a", "b"], dev=dev, test=test, unlabelled=str(tmp_path / "more.txt"), **settings)
    assert (len(made.train), len(made.dev), len(made.test), made.notes) == (8, 1, 1, ())
    assert [(e.text, e.label) for e in made.unlabelled] == [("x", None), ("y", None)]


def test_labels_of_unlabelled_texts_are_ignored(tmp_path):
    more = write(tmp_path / "more.tsv", [("never seen", "x"), ("", "y")])
    assert [e.label for e in task(tmp_path, ["a", "b"], unlabelled=more).unlabelled] == [None, None]


def test_two_rows_make_a_task(tmp_path):
    made = load_task(DataConfig(train=write(tmp_path / "train.tsv", [("a", "x"), ("b", "y")])))
    assert made.train == made.dev == made.test
    assert any("too few to cut" in note for note in made.notes)


def test_built_in_sets_bring_their_own_splits():
    made = load_task(DataConfig(train="builtin:reuters_r8"))
    assert (len(made.train), len(made.dev), len(made.test)) == (4938, 547, 2189)
    assert made.labels == ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
    assert made.notes == ()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.02, 0.5))
def test_the_cut_keeps_every_row_and_class_and_is_stratified(labels, fraction):
    examples = [Example(f"text {i}", str(label), f"f:{i}") for i, label in enumerate(labels)]
    train, dev = cut_dev(examples, fraction)
    sizes = Counter(e.label for e in examples)
    if all(size == 1 for size in sizes.values()):
        assert train == dev == examples
        return
    assert sorted(train + dev, key=examples.index) == examples
    assert {e.label for e in train} == set(sizes)
    assert len(dev) >= 1
    for label, size in sizes.items():
        assert abs(sum(e.label == label for e in dev) - size * fraction) <= 1
    assert (train, dev) == cut_dev(examples, fraction)


def test_texts_that_occur_twice_stay_in_train():
    examples = [Example(f"text {i // 2 if i < 60 else i}", "ab"[i % 2], f"f:{i}") for i in range(100)]
    train, dev = cut_dev(examples, 0.1)
    assert len(dev) == 10
    assert not {e.text for e in train} & {e.text for e in dev}

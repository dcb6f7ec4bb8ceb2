"""Each oddity of the texts gives one warning with its numbers and what to do; clean texts give none."""

from __future__ import annotations

import pytest

from fastbert_jax.text.data_warnings import data_warnings
from fastbert_jax.text.examples import Example


def examples(*rows: tuple[str, object], name: str = "train.csv") -> list[Example]:
    return [Example(text, label, f"{name}:{number}") for number, (label, text) in enumerate(rows, start=2)]


TRAIN = examples(*[(label, f"text {label} {i}") for i in range(5) for label in "ab"])
DEV = examples(("a", "dev text"), name="dev.csv")
TEST = examples(("b", "test text"), name="test.csv")


def told(train=TRAIN, dev=DEV, test=TEST, labels=("a", "b")) -> list[str]:
    return data_warnings({"train": train, "dev": dev, "test": test}, labels)


def test_nothing_is_said_of_texts_that_are_in_order():
    assert told() == []
    assert told(dev=TRAIN, test=TRAIN) == []


def test_texts_that_train_knows():
    test = examples(("a", "new"), ("b", " TEXT  b 0\n"), ("a", "Text a 4"), ("b", "other"), name="test.csv")
    (note,) = told(test=test)
    assert note == (
        "2 of 4 (50.0 %) test texts are in train too, blanks and case aside; the first: test.csv:3 and train.csv:3. "
        "The model is measured on texts it has seen: remove them from one of the two"
    )
    assert [note[:28] for note in told(dev=test, test=test)] == ["2 of 4 (50.0 %) dev texts ar"]
    pair = examples(("a", ("One", "two")))
    assert "1 of 1 (100.0 %) dev texts are in train" in told(TRAIN + pair, dev=examples(("b", ("one", "two ")))[:1])[0]


def test_one_text_with_two_labels():
    twice = TRAIN + examples(("b", "Text a 0"), ("b", "text a 0"), name="more.csv")
    assert told(twice) == [
        "1 train text has more than one label; the first is 'a' at train.csv:2 and 'b' at more.csv:2. No model can "
        "give both: keep the right one"
    ]


def test_empty_texts_of_every_part():
    dev = examples(("a", " \t"), ("b", "x"), ("a", ("", " ")), name="dev.csv")
    assert told(dev=dev) == [
        "2 of 3 (66.7 %) dev texts are empty; the first: dev.csv:2. They all get one answer: remove them, or check "
        "--data.text-column"
    ]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"a": 49, "b": 5}, ["90.7 %) train texts are 'a'"]),
        ({"a": 44, "b": 5}, []),
        ({"a": 50, "b": 5, "c": 30}, ["'a', has 50 train texts, the smallest, 'b', 5. Accuracy"]),
        ({"a": 6, "b": 4, "c": 3}, ["2 of 3 classes have fewer than 5 train texts: 'c' (3), 'b' (4). They"]),
        ({"a": 5, "b": 5, "c": 0}, ["1 of 3 classes have fewer than 5 train texts: 'c' (0). They"]),
        (dict.fromkeys("abcdefghij", 1), [", ".join(f"{label!r} (1)" for label in "abcdefgh") + " and 2 more. They"]),
    ],
)
def test_sizes_of_classes(sizes, words):
    train = examples(*[(label, f"{label} {i}") for label, size in sizes.items() for i in range(size)])
    notes = told(train, labels=tuple(sizes))
    assert len(notes) == len(words)
    for note, expected in zip(notes, words, strict=True):
        assert expected in note and ": " in note

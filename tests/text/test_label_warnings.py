"""Labels that look alike, that mean none, or that are several in one, give one warning each; all others give none."""

from __future__ import annotations

from collections import Counter

import pytest

from fastbert_jax.text.data_warnings import folded, label_warnings


def told(*labels):
    return list(label_warnings(Counter(dict.fromkeys(labels, 5))))


@pytest.mark.parametrize(
    "labels",
    [
        ("pos", "Pos", "neg"),
        ("pos", "pos\u200b", "neg"),
        ("very good", "very  good", "bad"),
        ("very good", "very\u00a0good", "bad"),
        ("caf\u00e9", "cafe\u0301", "bar"),
        ("\uff10", "0", "1"),
        ("0", "0.0", "1"),
        ("1", "+1", "2"),
        ("1", "01", "2"),
        ('"pos"', "pos", "neg"),
        ("true", "True", "false"),
    ],
)
def test_labels_that_look_alike(labels):
    (note,) = told(*labels)
    assert note.startswith(
        "Some labels differ only in case, blanks, unseen characters or the form of a number: "
        f"{labels[0]!r} (5) and {labels[1]!r} (5). Each is a class of its own"
    )


@pytest.mark.parametrize("none", ["-", "--", "-1", "nan", "NaN", "NULL", "None", "n/a", "N/A", "<NA>", "?", "\u200b"])
@pytest.mark.parametrize("others", [("pos", "neg"), ("0", "1"), ("0", "1", "2")])
def test_labels_that_mean_none(none, others):
    (note,) = told(*others, none)
    assert note.startswith(f"Some labels usually stand for no label: {none!r} (5). Each is a class like any other")


@pytest.mark.parametrize(
    "labels",
    [
        ("a", "b", "a;b"),
        ("joy|fear", "fear|anger", "joy|anger"),
        ("a", "b", "a, b"),
        ('["a", "b"]', "c"),
        ("['a']", "c"),
    ],
)
def test_several_labels_in_one(labels):
    (note,) = told(*labels)
    assert note.startswith("Some labels look like several in one: ")


@pytest.mark.parametrize(
    "labels",
    [
        ("0", "1"),
        ("-1", "1"),
        ("-", "+"),
        ("--", "-", "0", "+", "++"),
        ("-2", "-1", "0", "1", "2"),
        ("1.0", "2.0"),
        ("0.5", "1.5"),
        ("C", "C++", "C#"),
        ("pos", "neg", "neutral"),
        ("Paris, France", "Lyon, France"),
        ("rock|pop", "jazz"),
        ("[spam]", "[ham]"),
        ("a", "b", "a+b"),
        ("no", "not"),
        ("电影", "音乐"),
        ("sport", "sports"),
        ("1", "10", "100"),
        ("B-PER", "I-PER", "O"),
        ("9" * 5000, "1"),
        ("9" * 400, "1"),
    ],
)
def test_nothing_is_said_of_other_labels(labels):
    assert told(*labels) == []


def test_many_labels_are_not_all_named():
    labels = [f"{letter}{case}" for letter in "abcdefghijkl" for case in ("x", "X")]
    (note,) = told(*labels)
    assert note.count("(5)") == 16 and len(note) < 500


def test_folding_keeps_what_tells_labels_apart():
    assert folded("C++") == "c++" and folded("-1") == "-1" and folded("1.5") == "1.5" and folded("") == ""

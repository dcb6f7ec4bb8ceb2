"""Columns are found by their names, or named; a name that is not there is refused."""

from __future__ import annotations

import pytest

from fastbert_jax.config import DataConfig, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.columns import Columns, as_trained, find_columns
from fastbert_jax.text.tables import Table


def find(*columns, need_label=True, **settings):
    table = Table("a.tsv", columns, lambda wanted: iter(()), text_columns=columns)
    return find_columns(table, DataConfig(**settings), need_label=need_label)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("label", "text"), Columns(("text",), None, "label")),
        (("Sentence", "LABEL"), Columns(("Sentence",), None, "LABEL")),
        (("label", "text_a"), Columns(("text_a",), None, "label")),
        (("label", "text_a", "text_b"), Columns(("text_a",), "text_b", "label")),
        (("hypothesis", "idx", "label", "premise"), Columns(("premise",), "hypothesis", "label")),
        (("idx", "label", "question", "sentence"), Columns(("question",), "sentence", "label")),
        (("idx", "label", "question1", "question2"), Columns(("question1",), "question2", "label")),
        (("id", "sentence1", "sentence2", "gold_label"), Columns(("sentence1",), "sentence2", "gold_label")),
        (("", "words of it", "Sentiment"), Columns(("words of it",), None, "Sentiment")),
        (("review", "category"), Columns(("review",), None, "category")),
        (("title", "description", "label"), Columns(("description",), None, "label")),
    ],
)
def test_columns_are_found_by_their_names(columns, found):
    assert find(*columns) == found


def test_named_columns_come_first():
    columns = ("label", "text", "summary", "class")
    assert find(*columns, text_column="summary", label_column="class") == Columns(("summary",), None, "class")
    assert find(*columns, pair_column="summary") == Columns(("text",), "summary", "label")
    assert find("premise", "hypothesis", "label", pair_column="none") == Columns(("premise",), None, "label")
    assert find("premise", "hypothesis", "label", text_column="hypothesis") == Columns(("hypothesis",), None, "label")


def test_texts_alone_need_no_label():
    assert find("text", need_label=False) == Columns(("text",), None, None)
    assert find("text", need_label=False, label_column="class") == Columns(("text",), None, None)
    assert find("text", "label", need_label=False) == Columns(("text",), None, "label")
    assert find("anything", need_label=False) == Columns(("anything",), None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"text_column": "txt"},
            r"a\.tsv: expected a column 'txt', as --text-column \(train: --data\.text-column\) says, "
            r"found the columns 'text', 'label'; "
            r"did you mean 'text'\?",
        ),
        (
            {"pair_column": "second"},
            r"expected a column 'second', as --pair-column \(train: --data\.pair-column\) says",
        ),
        (
            {"label_column": "Label"},
            r"expected a column 'Label', as --label-column \(train: --data\.label-column\) says",
        ),
        ({"text_column": "text", "label_column": "text"}, r"expected a column of its own for each part"),
        (
            {"text_column": "text", "pair_column": "text"},
            r"--text-column or --pair-column or --label-column \(train: --data\.text-column or .*\)",
        ),
    ],
)
def test_named_columns_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        find("text", "label", **settings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ("text", "y"),
            r"a\.tsv: expected a label column, found the columns 'text', 'y'; name it: --label-column \(train",
        ),
        (
            ("label", "a", "b"),
            r"expected a text column, .* name it: --text-column \(train: --data\.text-column\) ",
        ),
        (("1", "a great film"), r"needs a first line with the names of its columns"),
        (("label",), r"expected a text column, found one column 'label'"),
    ],
)
def test_columns_that_are_not_found(columns, message):
    with pytest.raises(UserError, match=message):
        find(*columns)


TRAINED = ReadingConfig(text_column="opinion", pair_column="none", label_column="verdict")
PAIRED = ReadingConfig(text_column="question", pair_column="reply", label_column="label")


def find_as_trained(trained, *columns, **settings):
    table = Table("a.tsv", columns, lambda wanted: iter(()), text_columns=columns)
    need_label = settings.pop("need_label", False)
    return find_columns(table, as_trained(table, ReadingConfig(**settings), trained), need_label=need_label)


@pytest.mark.parametrize(
    ("trained", "columns", "settings", "found"),
    [
        (TRAINED, ("title", "opinion"), {}, Columns(("opinion",), None, None)),
        (TRAINED, ("title", "Opinion ", "label"), {}, Columns(("Opinion ",), None, "label")),
        (TRAINED, ("label", "opinion", "verdict"), {"need_label": True}, Columns(("opinion",), None, "verdict")),
        (TRAINED, ("label", "opinion"), {"need_label": True}, Columns(("opinion",), None, "label")),
        (TRAINED, ("text", "opinion", "title"), {"text_column": "title"}, Columns(("title",), None, None)),
        (TRAINED, ("text_a", "text_b"), {"text_column": "text_a"}, Columns(("text_a",), None, None)),
        (TRAINED, ("opinion", "verdict"), {"text_column": "verdict"}, Columns(("verdict",), None, None)),
        (TRAINED, ("opinion", "title"), {"pair_column": "title"}, Columns(("opinion",), "title", None)),
        (TRAINED, ("title", "text"), {}, Columns(("text",), None, None)),  # the usual choice
        (TRAINED, ("text_a", "text_b", "verdict"), {}, Columns(("text_a",), "text_b", "verdict")),
        (PAIRED, ("reply", "question", "answer"), {}, Columns(("question",), "reply", None)),
        (PAIRED, ("question", "text"), {}, Columns(("question",), None, None)),
        (PAIRED, ("reply", "text"), {}, Columns(("text",), None, None)),
        (PAIRED, ("question", "reply"), {"pair_column": "none"}, Columns(("question",), None, None)),
        (PAIRED, ("question", "reply"), {"text_column": "reply"}, Columns(("reply",), None, None)),
    ],
)
def test_columns_of_training_are_read_where_they_are_there_and_no_other_is_named(trained, columns, settings, found):
    assert find_as_trained(trained, *columns, **settings) == found


def test_columns_are_saved_by_their_names_and_a_single_text_as_such():
    data = DataConfig(text_column="opinion")
    assert Columns(("opinion",), None, "verdict").reading(data) == TRAINED
    assert Columns.of_training(PAIRED, need_label=True) == Columns(("question",), "reply", "label")
    assert Columns.of_training(TRAINED, need_label=False) == Columns(("opinion",), None, None)

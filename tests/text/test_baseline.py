"""The TF-IDF baseline learns what words, characters and pairs can tell."""

from __future__ import annotations

from fastbert_jax.text.examples import Example
from fastbert_jax.text.labelled_data import tfidf_svm_right


def examples(*rows):
    return [Example(text, label, f"f:{i}") for i, (text, label) in enumerate(rows)]


def test_it_learns_words_and_counts_its_mistakes():
    train = examples(("a good film", "pos"), ("very good", "pos"), ("a bad film", "neg"), ("so bad", "neg"))
    test = examples(("good", "pos"), ("bad", "neg"), ("bad bad", "pos"), ("quite good", "pos"))
    assert tfidf_svm_right(train, test).tolist() == [True, True, False, True]


def test_it_learns_chinese_without_blanks():
    train = examples(("这本书很好看", "1"), ("真的好看啊", "1"), ("这本书很无聊", "0"), ("真的无聊啊", "0")) * 3
    assert tfidf_svm_right(train, examples(("很好看", "1"), ("太无聊了", "0"))).all()


def test_it_learns_pairs():
    train = examples((("a cat", "an animal"), "yes"), (("a cat", "a car"), "no"))
    assert tfidf_svm_right(train, train).all()


def test_texts_without_a_word_do_not_stop_it():
    train = examples(("", "a"), (" ", "a"), ("", "b"))
    assert tfidf_svm_right(train, examples(("", "a"), ("x", "a"))).all()

"""What is cut off as dev and test: a share of every class, and no text on both sides."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.text.examples import Example, same_text
from fastbert_jax.text.labelled_data import cut_off


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.02, 0.5))
def test_the_cut_keeps_every_row_and_class_and_is_stratified(labels, fraction):
    examples = [Example(f"text {i}", str(label), f"f:{i}") for i, label in enumerate(labels)]
    train, dev = cut_off(examples, fraction)
    sizes = Counter(e.label for e in examples)
    if all(size == 1 for size in sizes.values()):
        assert (train, dev) == (examples, [])
        return
    assert sorted(train + dev, key=examples.index) == examples
    assert {e.label for e in train} == set(sizes)
    assert len(dev) >= 1
    for label, size in sizes.items():
        assert abs(sum(e.label == label for e in dev) - size * fraction) <= 1
    assert (train, dev) == cut_off(examples, fraction)


def test_texts_that_occur_once_go_first():
    examples = [Example(f"text {i // 2 if i < 60 else i}", "ab"[i // 2 % 2], f"f:{i}") for i in range(100)]
    _, dev = cut_off(examples, 0.1)
    assert len(dev) == 10 and all(int(e.where[2:]) >= 60 for e in dev)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("aab")), min_size=2, max_size=60), st.floats(0.02, 0.5))
def test_no_text_is_on_both_sides_whatever_its_blanks_and_case(rows, fraction):
    forms = ("Good {}", " good  {}\t", "GOOD {}")
    examples = [Example(forms[i % 3].format(text), label, f"f:{i}") for i, (text, label) in enumerate(rows)]
    train, dev = cut_off(examples, fraction)
    assert sorted(train + dev, key=examples.index) == examples
    assert {e.label for e in train} == {e.label for e in examples}
    assert not {same_text(e.text) for e in train} & {same_text(e.text) for e in dev}
    labels = Counter(text for text, _ in {(same_text(e.text), e.label) for e in examples})
    assert all(labels[same_text(e.text)] == 1 for e in dev)  # what has two labels measures nothing


def test_a_file_of_nothing_but_copies_is_cut_all_the_same():
    examples = [Example(f"text {i % 20}", "ab"[i % 20 < 10], f"f:{i}") for i in range(100)]
    _, dev = cut_off(examples, 0.1)
    assert Counter(e.label for e in dev) == {"a": 5, "b": 5} and len({e.text for e in dev}) == 2

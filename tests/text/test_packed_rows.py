"""Packing: every text once, rows that hold it, and hardly any padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.config import DataConfig
from fastbert_jax.text.batches import choose_texts_per_row, count_rows, pack_rows
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer

some_lengths = st.lists(st.integers(1, 16), max_size=80).map(lambda values: np.array(values, np.uint16))


def tokens_of_rows(packed, lengths):
    return [lengths[packed.members(np.array([row]))[0]].sum() for row in range(len(packed))]


@given(some_lengths, st.integers(1, 5))
def test_every_text_is_in_one_row_and_no_row_is_too_full(lengths, most):
    packed = pack_rows(lengths, max_length=16, texts_per_row=most)
    assert sorted(packed.texts) == list(range(len(lengths)))
    sizes = np.diff(packed.row_offsets)
    assert (sizes >= 1).all() and sizes.max(initial=1) <= most
    assert max(tokens_of_rows(packed, lengths), default=0) <= 16
    assert count_rows(np.bincount(lengths), max_length=16, texts_per_row=most) == len(packed)


@given(some_lengths)
def test_two_rows_never_fit_into_one(lengths):
    packed = pack_rows(lengths, max_length=16, texts_per_row=16)
    assert sum(sorted(tokens_of_rows(packed, lengths))[:2]) > 16 or len(packed) < 2


def test_the_rows_of_some_rows_come_in_the_order_asked_for():
    packed = pack_rows(np.array([9, 7, 16, 8, 8]), max_length=16, texts_per_row=2)
    members, sizes = packed.members(np.array([2, 0]))
    rows = {frozenset(packed.members(np.array([row]))[0].tolist()) for row in range(len(packed))}
    assert rows == {frozenset({0, 1}), frozenset({2}), frozenset({3, 4})}
    assert frozenset(members[: sizes[0]].tolist()) in rows and sizes.sum() == len(members)


@pytest.mark.parametrize("lengths", [[3, 17], [0, 3]])
def test_texts_that_fit_no_row_are_refused(lengths):
    with pytest.raises(ValueError, match="expected texts of 1 to 16 tokens, found"):
        pack_rows(np.array(lengths), max_length=16, texts_per_row=2)


def test_texts_per_row_are_as_few_as_cost_hardly_a_row():
    short, long = np.bincount([4], minlength=61) * 1000, np.bincount([60]) * 1000
    assert choose_texts_per_row([short], max_length=64) == 16
    assert choose_texts_per_row([long], max_length=64) == 1
    assert choose_texts_per_row([short, 20 * long], max_length=64) == 4
    assert choose_texts_per_row([np.zeros(0, int)], max_length=64) == 1


def test_real_texts_leave_less_than_a_twentieth_for_padding(minilm_directory):
    examples = read_examples("builtin:reuters_r8#dev", DataConfig(), need_label=False).examples
    lengths = load_tokenizer(minilm_directory).encode([e.text for e in examples], max_length=128).lengths
    most = choose_texts_per_row([np.bincount(lengths)], max_length=128)
    packed = pack_rows(lengths, max_length=128, texts_per_row=most)
    assert lengths.sum() / (len(packed) * 128) >= 0.95
    assert lengths.sum() / (len(lengths) * 128) < 0.8

"""Packed batches: the same tokens as unpacked ones, one shape, and rows shared out among processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert_jax.text.batches import collate_rows
from fastbert_jax.text.training_batches import TrainingBatches
from tests.text.corpora import encode, joined, texts_of

LENGTHS = np.random.default_rng(0).integers(2, 17, 143)


def packed_batches(**changes):
    labels = np.arange(len(LENGTHS), dtype=np.int32)
    defaults = {"buckets": (16,), "pack": True, "batch_size": 4, "epochs": 3, "seed": 5}
    return TrainingBatches(encode(LENGTHS), labels, **defaults | changes)


def test_a_row_holds_its_texts_and_tells_them_apart():
    batch = collate_rows(encode([2, 3, 2]), np.array([2, 1, 0]), length=6, texts_per_row=2)
    assert batch.token_ids_BxS.tolist() == [[1000, 1001, 2000, 2001, 2002, 0], [3000, 3001, 0, 0, 0, 0], [0] * 6]
    assert batch.token_type_BxS.tolist() == [[0, 1, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    assert batch.position_BxS.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    assert batch.text_BxS.tolist() == [[1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0], [0] * 6]
    assert batch.cls_BxK.tolist() == [[0, 2], [0, 0], [0, 0]]
    assert batch.valid_BxK.tolist() == [[True, True], [True, False], [False, False]]
    assert [array.dtype for array in batch] == [np.int32] * 6 + [bool]


@pytest.mark.parametrize("limits", [(4, 2), (6, 1)])
def test_rows_that_do_not_fit_are_refused(limits):
    length, most = limits
    with pytest.raises(
        ValueError, match=f"expected rows of up to {length} tokens and {most} texts, found up to 5 and 2"
    ):
        collate_rows(encode([2, 3, 2]), np.array([2, 1]), length=length, texts_per_row=most)


def test_packed_and_unpacked_epochs_hold_the_same_tokens():
    packed = packed_batches()
    unpacked = TrainingBatches(encode(LENGTHS), None, buckets=(8, 16), batch_size=4, epochs=1, seed=5)
    for epoch in range(3):
        steps = range(epoch * packed.batches_per_epoch, (epoch + 1) * packed.batches_per_epoch)
        assert joined([packed[step] for step in steps]) == joined([unpacked[step] for step in range(len(unpacked))])
    assert packed.batches_per_epoch < unpacked.batches_per_epoch
    assert sum(LENGTHS) > 0.9 * 16 * packed.rows
    assert {packed[step].token_ids_BxS.shape for step in range(len(packed))} == {(4, 16)}


def test_every_text_keeps_its_label():
    packed = packed_batches(epochs=1)
    for step in range(len(packed)):
        batch = packed[step]
        for row, k in zip(*np.nonzero(batch.valid_BxK), strict=True):
            assert batch.token_ids_BxS[row, batch.cls_BxK[row, k]] // 1000 - 1 == batch.label_BxK[row, k]


@pytest.mark.parametrize("local_rows", [None, (3, 0)])
@pytest.mark.parametrize("packs", [False, True])
def test_the_numbers_of_a_batchs_texts_stand_where_the_texts_do(packs, local_rows):
    shared = {"batch_size": 4, "epochs": 2, "seed": 5}
    shared["local_rows"] = None if local_rows is None else np.array(local_rows)
    made = packed_batches(**shared) if packs else TrainingBatches(encode(LENGTHS), None, buckets=(8, 16), **shared)
    assert made.total_texts == len(LENGTHS)
    for step in range(len(made)):
        batch, numbers_BxK = made[step], made.texts_at(step)
        np.testing.assert_array_equal(numbers_BxK >= 0, batch.valid_BxK)
        first_BxK = np.take_along_axis(batch.token_ids_BxS, batch.cls_BxK, axis=1)  # 1000 times the number plus 1
        assert (first_BxK // 1000 - 1)[batch.valid_BxK].tolist() == numbers_BxK[batch.valid_BxK].tolist()
        everywhere_BxK = made.texts_at(step, local=False)
        np.testing.assert_array_equal(everywhere_BxK[[0, 1, 2, 3] if local_rows is None else [3, 0]], numbers_BxK)
    with pytest.raises(IndexError, match="expected a step from 0 to"):
        made.texts_at(len(made))


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_any_number_of_processes_make_one_epoch_together(processes, seed):
    owner = np.random.default_rng(seed).integers(0, processes, 4)
    shares = [np.random.default_rng(seed).permutation(np.flatnonzero(owner == p)) for p in range(processes)]
    whole = packed_batches(epochs=1, seed=seed)
    parts = [packed_batches(epochs=1, seed=seed, local_rows=share) for share in shares]
    for step in range(len(whole)):
        made = whole[step]
        for share, part in zip(shares, parts, strict=True):
            for left, right in zip(part[step], made, strict=True):
                np.testing.assert_array_equal(left, right[share])
        assert texts_of(made) == joined([part[step] for part in parts])


def test_epochs_differ_and_a_stream_goes_on_anywhere():
    made = packed_batches()
    assert made.plan(0).rows.tolist() != made.plan(1).rows.tolist()
    start = made.batches_per_epoch + 3
    for left, right in zip(list(made.stream(start)), [made[step] for step in range(start, len(made))], strict=True):
        np.testing.assert_array_equal(left.token_ids_BxS, right.token_ids_BxS)


def test_the_length_of_a_phase_may_be_given_in_steps():
    assert len(packed_batches(steps=7)) == 7
    assert len(packed_batches(steps=1000)) == 1000
    assert packed_batches(steps=1000)[999].valid_BxK.any()


def test_words_say_how_well_it_went():
    made = packed_batches()
    assert made.words.startswith(f"143 texts share {made.rows} rows of 16 tokens, up to ")
    assert f" {sum(LENGTHS) / (16 * made.rows):.1%} of the tokens are not padding" in made.words

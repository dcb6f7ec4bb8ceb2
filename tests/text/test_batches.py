"""Batches and plans: every text once, few shapes, and an order that is a function of the position."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert_jax.text.batches import collate, inference_plan, training_plan
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.text.training_batches import TrainingBatches

BUCKETS = (4, 6, 9, 16)

lengths_of_texts = st.lists(st.integers(2, 16), min_size=1, max_size=60).map(np.array)
batch_sizes = st.integers(1, 9)
seeds = st.integers(0, 2**63)


def encode(lengths):
    """Texts of these lengths; every token's id is its text's number and its place."""
    ids = [100 * (i + 1) + np.arange(length) for i, length in enumerate(lengths)]
    types = [(np.arange(length) >= length // 2) for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encoded(np.concatenate(ids).astype(np.int32), np.concatenate(types).astype(np.int32), offsets, 0, 0)


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_batch_holds_its_texts_and_says_what_is_padding():
    batch = collate(encode([2, 3, 4]), [2, 0], batch_size=3, length=5, labels=np.array([7, 8, 9], np.int32))
    assert batch.token_ids_BxS.tolist() == [[300, 301, 302, 303, 0], [100, 101, 0, 0, 0], [0] * 5]
    assert batch.token_type_BxS.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0] * 5]
    assert batch.position_BxS.tolist() == [[0, 1, 2, 3, 0], [0, 1, 0, 0, 0], [0] * 5]
    assert batch.text_BxS.tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0] * 5]
    assert batch.cls_BxK.tolist() == [[0]] * 3
    assert batch.label_BxK.tolist() == [[9], [7], [0]]
    assert batch.valid_BxK.tolist() == [[True], [True], [False]]
    assert [array.dtype for array in batch] == [np.int32] * 6 + [bool]


def test_a_batch_without_labels_or_without_texts():
    batch = collate(encode([2, 3]), [], batch_size=2, length=4)
    assert not any(array.any() for array in batch)
    assert not collate(encode([2, 3]), [1], batch_size=1, length=4).label_BxK.any()


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [
        ([0, 1, 0], 3, "expected up to 2 rows, found 3"),
        ([1], 2, "expected rows of up to 2 tokens and 1 texts, found up to 3"),
    ],
)
def test_texts_that_do_not_fit_are_refused(rows, length, message):
    with pytest.raises(ValueError, match=message):
        collate(encode([2, 3]), rows, batch_size=2, length=length)


@given(lengths_of_texts, batch_sizes, seeds, st.integers(0, 5))
def test_an_epoch_holds_every_text_once_with_one_partial_batch_at_most(lengths, size, seed, epoch):
    plan = training_plan(lengths, buckets=BUCKETS, batch_size=size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate([batch.rows for batch in plan])) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // size)
    assert all(lengths[batch.rows].max() <= batch.length and batch.length in BUCKETS for batch in plan)
    partial = [batch for batch in plan if len(batch.rows) < size]
    assert len(partial) <= 1
    longest = next(bucket for bucket in BUCKETS if bucket >= lengths.max())
    assert all(batch.length == longest for batch in partial)


@given(lengths_of_texts, batch_sizes, seeds)
def test_texts_go_to_the_smallest_bucket_but_for_what_is_left_over(lengths, size, seed):
    plan = training_plan(lengths, buckets=BUCKETS, batch_size=size, seed=seed, epoch=0)
    for shorter, bucket in zip((0, *BUCKETS), BUCKETS, strict=False):
        own = sum(int((lengths[batch.rows] <= shorter).sum()) for batch in plan if batch.length == bucket)
        assert own < size


@given(lengths_of_texts, batch_sizes, seeds)
def test_the_plan_is_a_function_of_seed_and_epoch(lengths, size, seed):
    def order(seed, epoch):
        plan = training_plan(lengths, buckets=BUCKETS, batch_size=size, seed=seed, epoch=epoch)
        return [(batch.rows.tolist(), batch.length) for batch in plan]

    assert order(seed, 1) == order(seed, 1)


def test_epochs_and_seeds_differ_in_rows_and_in_the_order_of_lengths():
    lengths = np.tile([3, 5, 8, 12], 50)

    def plan(seed, epoch):
        return training_plan(lengths, buckets=BUCKETS, batch_size=8, seed=seed, epoch=epoch)

    for other in (plan(0, 1), plan(1, 0), plan(-1, 0)):
        assert any(a.rows.tolist() != b.rows.tolist() for a, b in zip(plan(0, 0), other, strict=True))
        assert [a.length for a in plan(0, 0)] != [b.length for b in other]


@given(lengths_of_texts, batch_sizes)
def test_inference_pads_every_text_to_its_smallest_bucket_and_keeps_the_order(lengths, size):
    plan = inference_plan(lengths, buckets=BUCKETS, batch_sizes=size)
    assert sorted(np.concatenate([batch.rows for batch in plan])) == list(range(len(lengths)))
    for bucket in BUCKETS:
        own = [batch.rows for batch in plan if batch.length == bucket]
        assert all(len(rows) == size for rows in own[:-1])
        rows = np.concatenate([np.zeros(0, int), *own])
        assert (np.diff(rows) > 0).all()
        assert all(min(b for b in BUCKETS if b >= length) == bucket for length in lengths[rows])


def test_every_bucket_may_have_its_own_batch_size():
    lengths = np.repeat(BUCKETS, 7)
    plan = inference_plan(lengths, buckets=BUCKETS, batch_sizes=range(1, len(BUCKETS) + 1))
    for bucket, size in zip(BUCKETS, range(1, len(BUCKETS) + 1), strict=True):
        own = [len(batch.rows) for batch in plan if batch.length == bucket]
        assert sum(own) == 7 and set(own[:-1]) <= {size} and own[-1] <= size


def test_a_text_longer_than_every_bucket_is_refused():
    with pytest.raises(ValueError, match="expected texts of up to 16 tokens, found one of 17"):
        inference_plan(np.array([3, 17]), buckets=BUCKETS, batch_sizes=2)
    assert inference_plan(np.array([], int), buckets=BUCKETS, batch_sizes=2) == []


def batches(epochs=3, labels=True, seed=5):
    lengths = np.random.default_rng(0).integers(2, 17, 43)
    ids = np.arange(43, dtype=np.int32) if labels else None
    return TrainingBatches(encode(lengths), ids, buckets=BUCKETS, batch_size=4, epochs=epochs, seed=seed)


def test_every_epoch_shows_every_text_once_with_its_label():
    made = batches()
    assert (made.batches_per_epoch, len(made)) == (11, 33)
    for epoch in range(3):
        seen = []
        for step in range(epoch * 11, epoch * 11 + 11):
            batch = made[step]
            assert batch.token_ids_BxS.shape[0] == 4 and batch.token_ids_BxS.shape[1] in BUCKETS
            valid = batch.valid_BxK[:, 0]
            np.testing.assert_array_equal(batch.token_ids_BxS[valid, 0] // 100 - 1, batch.label_BxK[valid, 0])
            seen += batch.label_BxK[valid, 0].tolist()
        assert sorted(seen) == list(range(43))


def test_a_step_does_not_depend_on_the_steps_before_it():
    forward, backward = batches(), batches()
    wanted = {step: backward[step] for step in reversed(range(33))}
    for step in range(33):
        assert_same(forward[step], wanted[step])
    assert not batches(labels=False)[0].label_BxK.any()


@pytest.mark.parametrize("step", [-1, 33])
def test_a_step_that_is_not_there_is_refused(step):
    with pytest.raises(IndexError, match=f"expected a step from 0 to 32, found {step}"):
        batches()[step]


@pytest.mark.parametrize("start", [0, 1, 10, 11, 32, 33])
def test_a_stream_from_a_step_equals_the_tail(start):
    made = batches()
    tail = list(made.stream(start))
    assert len(tail) == 33 - start
    for step, batch in enumerate(tail, start=start):
        assert_same(batch, batches()[step])


def test_a_stream_that_is_left_early_ends_its_threads():
    before = set(threading.enumerate())
    stream = batches(epochs=50).stream(7)
    assert_same(next(stream), batches()[7])
    stream.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_one_text_is_one_batch_an_epoch():
    made = TrainingBatches(encode([3]), None, buckets=BUCKETS, batch_size=8, epochs=2, seed=0)
    assert [batch.valid_BxK.sum() for batch in made.stream(0)] == [1, 1]


def shares_of(rows, processes, seed):
    generator = np.random.default_rng(seed)
    owner = generator.integers(0, processes, rows)
    return [generator.permutation(np.flatnonzero(owner == process)) for process in range(processes)]


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_rows_of_all_processes_are_the_batch(processes, seed):
    lengths = np.random.default_rng(0).integers(2, 17, 43)
    order = {"buckets": BUCKETS, "batch_size": 4, "epochs": 1, "seed": 5}
    whole = TrainingBatches(encode(lengths), np.arange(43, dtype=np.int32), **order)
    for share in shares_of(4, processes, seed):
        part = TrainingBatches(encode(lengths), np.arange(43, dtype=np.int32), **order, local_rows=share)
        assert (len(part), part.batches_per_epoch) == (11, 11)
        for step, batch in enumerate(part.stream(0)):
            assert_same(batch, [array[share] for array in whole[step]])


def test_the_length_of_a_phase_may_be_given_in_steps():
    lengths = np.full(10, 3)
    made = TrainingBatches(encode(lengths), None, buckets=BUCKETS, batch_size=4, epochs=0, seed=0, steps=7)
    assert (len(made), made.batches_per_epoch) == (7, 3)
    counts = [int(batch.valid_BxK.sum()) for batch in made.stream(0)]
    assert sum(counts[:3]) == sum(counts[3:6]) == 10 and counts[6] > 0


def test_taking_texts_is_the_same_as_encoding_them():
    taken = encode([2, 3, 4]).take(np.array([2, 0, 2]))
    assert taken.token_ids.tolist() == [300, 301, 302, 303, 100, 101, 300, 301, 302, 303]
    assert taken.token_types.tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 1, 1]
    assert taken.lengths.tolist() == [4, 2, 4] and len(encode([2]).take(np.array([], int))) == 0

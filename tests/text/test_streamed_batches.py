"""Streams: every text once per epoch, an order that is a function of the position, and windows that share nothing."""

from __future__ import annotations

import functools
import itertools
import threading

import numpy as np
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text.training_batches import StreamedBatches
from tests.text.corpora import joined, some_texts

TEXTS = some_texts(103)
PACK = pytest.mark.parametrize("pack", [False, True])


@pytest.fixture
def stream(tokenizer):
    def make(texts=TEXTS, **changes):
        defaults = {"window": 40, "buckets": (8, 16, 32), "batch_size": 4, "steps": 60, "seed": 5}
        encode = functools.partial(tokenizer.encode, max_length=32)
        return StreamedBatches(lambda: iter(texts), encode, **defaults | changes)

    return make


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def steps_of_an_epoch(made, tokenizer):
    """How many batches hold the texts once, and those batches; the first word identifies a text."""
    count = texts = 0
    batches = []
    for batch in made.stream(0):
        batches.append(batch)
        count, texts = count + 1, texts + int(batch.valid_BxK.sum())
        if texts >= len(TEXTS):
            return count, batches
    raise AssertionError(f"found {texts} texts")


@PACK
def test_every_epoch_holds_every_text_once(stream, tokenizer, pack):
    made = stream(pack=pack, steps=100)
    count, first = steps_of_an_epoch(made, tokenizer)
    second = list(itertools.islice(made.stream(count), count))
    encoded = tokenizer.encode(TEXTS, max_length=32)
    ids = sorted(np.split(encoded.token_ids, encoded.offsets[1:-1]), key=lambda tokens: tokens.tolist())
    for epoch in (first, second):
        found = [[token for token, _, _ in text] for text in joined(epoch)]
        assert found == [tokens.tolist() for tokens in ids]
    assert any(
        (a.token_ids_BxS != b.token_ids_BxS).any()
        for a, b in zip(first, second, strict=True)
        if a.token_ids_BxS.shape == b.token_ids_BxS.shape
    )
    if pack:
        assert {batch.token_ids_BxS.shape for batch in first} == {(4, 32)}
        assert len({batch.cls_BxK.shape for batch in first}) == 1


@PACK
@pytest.mark.parametrize("start", [0, 1, 9, 10, 26, 27, 40, 59, 60])
def test_a_stream_from_a_step_equals_the_tail(stream, pack, start):
    whole = list(stream(pack=pack).stream(0))
    assert len(whole) == len(stream(pack=pack)) == 60
    tail = list(stream(pack=pack).stream(start))
    assert len(tail) == 60 - start
    for one, other in zip(tail, whole[start:], strict=True):
        assert_same(one, other)


@PACK
def test_processes_share_every_batch(stream, pack):
    shares = [np.array([2, 0]), np.array([3]), np.array([1])]
    for whole, *parts in zip(
        *(stream(pack=pack, local_rows=share).stream(0) for share in (None, *shares)), strict=True
    ):
        for share, part in zip(shares, parts, strict=True):
            assert_same(part, [array[share] for array in whole])


@PACK
def test_windows_hold_the_texts_as_they_come(stream, pack):
    numbers = itertools.count()
    seen = []
    texts = (seen.append(next(numbers)) or text for text in itertools.cycle(TEXTS))
    made = stream(texts=texts, pack=pack, steps=5).stream(0)
    next(made)
    assert len(seen) <= 3 * 40  # the one in use, the one ahead, and the one that is being read
    made.close()


def test_batches_have_lengths_of_the_buckets(stream):
    made = list(stream().stream(0))
    assert {batch.token_ids_BxS.shape for batch in made} <= {(4, 8), (4, 16), (4, 32)}
    assert all(batch.cls_BxK.shape == (4, 1) for batch in made)


def test_the_length_of_a_stream_is_its_steps(stream):
    made = stream()
    assert (len(made), made.batches_per_epoch, len(made.plan(0))) == (60, 60, 0)


def test_a_stream_that_is_left_early_ends_its_threads(stream):
    before = set(threading.enumerate())
    made = stream(steps=10_000).stream(7)
    next(made)
    made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_errors_of_the_reading_come_through(stream):
    def texts():
        yield from TEXTS[:60]
        raise UserError("a.txt:61: expected UTF-8")

    with pytest.raises(UserError, match="a.txt:61"):
        list(stream(texts=texts()).stream(0))
    with pytest.raises(UserError, match="data.unlabelled: expected texts to distil on, found a stream without one"):
        list(stream(texts=[]).stream(0))

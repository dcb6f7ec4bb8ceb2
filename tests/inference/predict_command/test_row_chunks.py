"""Chunks of rows: bounded, and the same whenever they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.errors import UserError
from fastbert_jax.inference.predict_command import row_chunks
from fastbert_jax.inference.predict_command.resumable import Done
from fastbert_jax.inference.predict_command.row_chunks import Record, checksum_after, chunks_of, skip_done
from fastbert_jax.text.examples import Example, Unreadable

TEXTS = st.text(max_size=12) | st.tuples(st.text(max_size=6), st.text(max_size=6))
RECORDS = st.lists(
    st.builds(Example, TEXTS, st.none(), st.just("a:1")) | st.builds(Unreadable, st.just("a:1"), st.text())
)


@pytest.fixture(autouse=True, scope="module")
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_chunks, "ROWS", 4)
        patch.setattr(row_chunks, "CHARACTERS", 20)
        yield


def characters(chunk: list[Record]) -> int:
    return sum(len("".join(record.text)) for record in chunk if isinstance(record, Example))


@given(RECORDS)
def test_chunks_hold_all_rows_and_are_bounded(records: list[Record]) -> None:
    chunks = list(chunks_of(records))
    assert [record for chunk in chunks for record in chunk] == records
    assert all(1 <= len(chunk) <= 4 and characters(chunk[:-1]) < 20 for chunk in chunks)
    assert all(len(chunk) == 4 or characters(chunk) >= 20 for chunk in chunks[:-1])


def done_with(records: list[Record], chunks: int) -> Done:
    rows, checksum = 0, ""
    for chunk, _ in zip(chunks_of(records), range(chunks), strict=False):
        rows, checksum = rows + len(chunk), checksum_after(checksum, chunk)
    return Done(rows=rows, checksum=checksum)


@given(RECORDS, st.integers(0, 5))
def test_what_is_done_is_skipped_and_nothing_else(records: list[Record], count: int) -> None:
    chunks, done = chunks_of(records), done_with(records, count)
    skip_done(chunks, done, name="a")
    assert [record for chunk in chunks for record in chunk] == records[done.rows :]


@pytest.mark.parametrize(
    "changed",
    [
        [Example("b", None, "a:1"), Example("b", None, "a:2")],
        [Example("ab", None, "a:1"), Example("", None, "a:2")],
        [Example(("a", "b"), None, "a:1"), Example("b", None, "a:2")],
        [Unreadable("a:1", "a"), Example("b", None, "a:2")],
        [Example("a", None, "a:1")],
        [],
    ],
)
def test_other_rows_in_the_part_that_is_done_are_refused(changed: list[Record]) -> None:
    done = done_with([Example("a", None, "a:1"), Example("b", None, "a:2")], 1)
    with pytest.raises(UserError, match=r"a: expected the 2 rows that are answered already, found others"):
        skip_done(chunks_of(changed), done, name="a")

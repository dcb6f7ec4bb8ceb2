"""The comparison as a table: every number and what it rests on."""

from __future__ import annotations

import dataclasses

import pytest

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison
from fastbert_jax.report.comparison_table import render
from tests.report.comparisons import COMPARISON, FULL, SIZE


def one_size(**changes: object) -> Comparison:
    return dataclasses.replace(COMPARISON, batch_sizes=(dataclasses.replace(SIZE, **changes),))


def words(comparison: Comparison) -> str:
    """The notes below the table, on one line."""
    return " ".join(render(comparison).split())


def test_every_batch_size_is_a_block_with_its_own_full_depth() -> None:
    lines = render(COMPARISON).split("\n")
    assert lines[0].split() == "mode speed accuracy depth FLOPs/paper FLOPs/true measured (min..max) efficiency".split()
    assert lines[2] == "batches of 1 text: 128 texts timed in 128 batches, 0% padding"
    assert lines[6:8] == ["", "batches of 2048 tokens: 512 texts timed in 40 batches, 25% padding"]
    for start in (3, 8):
        assert lines[start].split() == "full depth 0 0.9700 6.00 1.00x 1.00x 1.00x 0.99..1.03 1.00".split()
        assert lines[start + 1].split() == "bucketed 0.5 0.9651 2.00 2.95x 2.93x 2.40x 2.30..2.50 0.84".split()
        assert lines[start + 2].startswith("masked")
    assert lines[12].split() == "TF-IDF + linear SVM 0.9735".split()
    assert max(map(len, lines)) <= 120


def test_the_notes_tell_what_the_table_rests_on() -> None:
    told = words(COMPARISON)
    for fact in (
        "2189 texts, 6 layers, on cpu.",
        "median of 3 interleaved repeats",
        "differed by 1.0%, at most 3.0%, in batches of 1 text, where less than 3.0% means nothing; 1.0%, at most",
        "Small batches are timed on fewer texts",
        "batches of 1 text: speed 0.5 bucketed 2.40x; speed 0.1 masked 0.95x (no faster than full depth)",
    ):
        assert fact in told
    for problem in ("WARNING", "could not be read", "were cut", "are few"):
        assert problem not in told


def test_modes_that_noise_cannot_tell_apart_are_named_together() -> None:
    twin = dataclasses.replace(SIZE.rows[1], mode="cascade", speedups=(2.41, 2.31, 2.51))
    assert "speed 0.5 cascade or bucketed 2.41x;" in words(one_size(rows=(*SIZE.rows, twin)))


@pytest.mark.parametrize(
    ("comparison", "told"),
    [
        (dataclasses.replace(COMPARISON, disagreements=2), "WARNING: 2 answers of the engines differ"),
        (dataclasses.replace(COMPARISON, skipped_rows=3), "3 rows could not be read and were left out."),
        (dataclasses.replace(COMPARISON, truncated_texts=4), "4 texts are longer than the model's longest"),
        (one_size(timed_batches=5), "Batches of 2048 tokens: 5 are few for engines that keep their batches full"),
    ],
)
def test_what_a_reader_must_know_is_told(comparison: Comparison, told: str) -> None:
    assert told in words(comparison) and told not in words(COMPARISON)


def test_no_baseline_no_row_and_no_speeds_no_winner() -> None:
    nothing: BatchSizeComparison = dataclasses.replace(SIZE, rows=(FULL,))
    told = words(dataclasses.replace(COMPARISON, baseline_accuracy=None, batch_sizes=(nothing,)))
    assert "SVM" not in told and "Fastest" not in told and "full depth" in told


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_texts_per_second_are_told_of_accelerators_only(platform: str) -> None:
    origin = dataclasses.replace(COMPARISON.origin, platform=platform)
    lines = render(dataclasses.replace(COMPARISON, origin=origin)).split("\n")
    assert lines[0].endswith("texts/s") == (platform != "cpu")
    assert lines[9].endswith("1280") == (platform != "cpu")  # 512 texts in 0.4 seconds
    assert max(map(len, lines)) <= 120

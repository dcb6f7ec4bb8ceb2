"""A comparison of two batch sizes, for tests."""

from __future__ import annotations

import dataclasses

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow, Provenance

FULL = ComparisonRow(
    mode="full depth",
    speed=0.0,
    accuracy=0.97,
    mean_depth=6.0,
    paper_flops=5900,
    true_flops=5860,
    paper_speedup=1.0,
    true_speedup=1.0,
    seconds=(1.0, 0.99, 1.03),
    speedups=(1.0, 0.99, 1.03),
    timed_depth=6.0,
    layers=6,
)
EARLY = dataclasses.replace(
    FULL,
    mode="bucketed",
    speed=0.5,
    accuracy=0.9651,
    mean_depth=2.0,
    paper_flops=2000,
    true_flops=2000,
    paper_speedup=2.95,
    true_speedup=2.93,
    seconds=(0.4, 0.45, 0.4),
    speedups=(2.4, 2.3, 2.5),
    timed_depth=2.1,
)
SLOW = dataclasses.replace(FULL, mode="masked", speed=0.1, speedups=(0.9, 1.2, 0.95))
SIZE = BatchSizeComparison(
    batch_size=0,
    batch_tokens=2048,
    rows=(FULL, EARLY, SLOW),
    seconds_again=(1.0, 1.0, 1.0),
    timed_texts=512,
    timed_batches=40,
    padding_share=0.25,
)
COMPARISON = Comparison(
    batch_sizes=(dataclasses.replace(SIZE, batch_size=1, timed_texts=128, timed_batches=128, padding_share=0.0), SIZE),
    layers=6,
    texts=2189,
    repeats=3,
    disagreements=0,
    origin=Provenance(
        command="python infer.py compare",
        commit="b002d021f7b8",
        date="2026-11-21",
        packages={"jax": "1"},
        device="cpu",
        platform="cpu",
        machine="x86_64, Linux, 2 cores",
    ),
    baseline_accuracy=0.9735,
)

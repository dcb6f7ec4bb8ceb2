"""Timing that can be trusted: runs take turns there and back, on texts spread evenly over the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def evenly(total: int, count: int) -> np.ndarray:
    """`count` of `total` indices, spread evenly, rising; all of them when `count` is 0 or more than there are."""
    if count == 0 or count >= total:
        return np.arange(total)
    return np.arange(count) * total // count


def interleaved_times(
    runs: Sequence[Callable[[], object]], repeats: int, on_run: Callable[[], None] | None = None
) -> list[list[float]]:
    """Seconds of every run in every repeat, `[runs][repeats]`.

    All runs take turns, and every second repeat goes through them backwards, so that what else the machine does falls
    on all of them alike. `on_run` is called after each, untimed.
    """
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats):
        turns = list(zip(runs, times, strict=True))
        for run, seconds in turns if repeat % 2 == 0 else reversed(turns):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            if on_run:
                on_run()
    return times


def speedups_over_first(times: Sequence[Sequence[float]]) -> list[list[float]]:
    """How many times faster than the first every run between the first and the last is, `[runs - 2][repeats]`.

    What the first would have taken at the moment of another run lies on the line between its two times, one on either
    side of the others: a machine that slows down or speeds up steadily changes no speedup.

    Args:
      times: of `interleaved_times`, where the last run is the first once more.
    """
    seconds_TxR = np.asarray(times)
    first_R, last_R = seconds_TxR[0], seconds_TxR[-1]
    middle_TxR = np.cumsum(seconds_TxR, 0) - seconds_TxR / 2
    share_TxR = (middle_TxR - middle_TxR[0]) / (middle_TxR[-1] - middle_TxR[0])
    return ((first_R + share_TxR * (last_R - first_R)) / seconds_TxR)[1:-1].tolist()

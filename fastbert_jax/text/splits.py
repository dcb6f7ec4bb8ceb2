"""Cutting dev and test from train: a share of every class, and no text on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fastbert_jax.text.examples import Example, same_text

# A cut belongs to the data, not to the run: every seed of a run sees the same dev and test sets.
CUT_SEED = 20200405


def cut_off(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """What stays, and what is cut off: about `fraction` of every class, always the same rows, both in their old order.

    Every class keeps a row. Texts that are the same (`same_text`) stay or go together: those that occur once go first,
    those with more than one label stay. Nothing is cut off when no class has a row to spare.
    """
    texts = [same_text(example.text) for example in examples]
    rows_of, copies, labels = defaultdict(list), defaultdict(list), defaultdict(set)
    for row, example in enumerate(examples):
        rows_of[example.label].append(row)
        copies[texts[row]].append(row)
        labels[texts[row]].add(example.label)
    generator = np.random.Generator(np.random.Philox(key=CUT_SEED))
    chosen: set[int] = set()
    for label, count in _shares({label: len(rows) for label, rows in rows_of.items()}, fraction).items():
        rows = rows_of[label]
        shuffled = [rows[i] for i in generator.permutation(len(rows))]
        taken: set[int] = set()
        for row in sorted(shuffled, key=lambda row: len(copies[texts[row]])):
            same = copies[texts[row]]
            fits = len(taken) + len(same) <= count or (count and not taken and len(same) < len(rows))
            if fits and row not in taken and len(labels[texts[row]]) == 1:
                taken.update(same)
        chosen |= taken
    parts: tuple[list[Example], list[Example]] = ([], [])
    for row, example in enumerate(examples):
        parts[row in chosen].append(example)
    return parts


def _shares(sizes: dict[str | None, int], fraction: float) -> dict[str | None, int]:
    """How many rows of each class are cut off: rounded so that the sum is right (largest remainders first)."""
    total = max(1, round(sum(sizes.values()) * fraction))
    shares = {label: int(size * fraction) for label, size in sizes.items()}
    for label in sorted(sizes, key=lambda label: (shares[label] - sizes[label] * fraction, -sizes[label])):
        if sum(shares.values()) < total and shares[label] < sizes[label] - 1:
            shares[label] += 1
    return shares

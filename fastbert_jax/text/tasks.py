"""A whole classification task: train, dev, test and unlabelled examples, and the order of the labels."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Example
from fastbert_jax.text.sources import Loaded, own_split, read_examples
from fastbert_jax.text.unlabelled import is_corpus

# The cut of dev belongs to the data, not to the run: every seed of a run sees the same dev set.
CUT_SEED = 20200405


@dataclass(frozen=True)
class Task:
    """Everything the texts of a run consist of."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    unlabelled: list[Example]
    """The texts to distil on; their labels are not used. None where they are a corpus (`text.unlabelled`)."""
    labels: tuple[str, ...]
    """The classes; a class's number is its place here."""
    skipped: int
    """Rows that could not be read, over all sources."""
    notes: tuple[str, ...]
    """Plain sentences on what was found by itself: columns, splits."""


def load_task(data: DataConfig) -> Task:
    """Read all that `data` names, and find or cut what it does not.

    Raises:
      UserError: a source that is not there, a bad row, a label that train never had, fewer than two classes.
    """
    if not data.train:
        raise UserError("data.train: expected a SPEC of training texts, found none; pass --data.train FILE")
    loaded = {"train": read_examples(data.train, data, need_label=True, role="train")}
    labels = label_order(loaded["train"], data)
    notes = []
    train = loaded["train"].examples
    dev_spec = data.dev or own_split(data.train, "dev", data)
    test_spec = data.test or own_split(data.train, "test", data)
    if dev_spec:
        loaded["dev"] = read_examples(dev_spec, data, need_label=True, role="dev")
        dev = loaded["dev"].examples
    else:
        train, dev = cut_dev(train, data.dev_fraction)
        notes.append(_cut_note(train, dev))
    if test_spec:
        loaded["test"] = read_examples(test_spec, data, need_label=True, role="test")
        test = loaded["test"].examples
    else:
        test = dev
        notes.append("There is no labelled test set: dev stands in for it.")
    if is_corpus(data.unlabelled):
        unlabelled = []
    elif data.unlabelled:
        loaded["unlabelled"] = read_examples(data.unlabelled, data, need_label=False, role="train")
        unlabelled = [dataclasses.replace(example, label=None) for example in loaded["unlabelled"].examples]
    else:
        unlabelled = train
    for examples in (train, dev, test):
        label_ids(examples, labels)
    return Task(
        train=train,
        dev=dev,
        test=test,
        unlabelled=unlabelled,
        labels=labels,
        skipped=sum(part.skipped for part in loaded.values()),
        notes=tuple(dict.fromkeys(note for note in (*(part.note for part in loaded.values()), *notes) if note)),
    )


def label_order(train: Loaded, data: DataConfig) -> tuple[str, ...]:
    """The classes: `data.labels`, else the set's own order, else those of train, sorted (numbers by value).

    Raises:
      UserError: train has fewer than two classes, or its labels are numbers with a fraction.
    """
    found = {str(example.label): example.where for example in reversed(train.examples)}
    if len(found) < 2:
        raise UserError(
            f"expected two classes or more in train, found only {next(iter(found))!r} "
            f"in all of its {len(train.examples)} rows; check --data.label_column"
        )
    if data.labels or train.class_names:
        return data.labels or train.class_names
    fractions = [label for label in found if re.fullmatch(r"[-+]?\d*\.\d*[1-9]\d*", label)]
    if fractions and all(re.fullmatch(r"[-+]?[\d.]+", label) for label in found):
        raise UserError(
            f"{found[fractions[0]]}: expected a class, found the number {fractions[0]}; "
            f"if such numbers are classes, list them all with --data.labels"
        )
    if all(re.fullmatch(r"-?[0-9]+", label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


LIST_ALL_LABELS = "fix the row, or list all labels with --data.labels"


def label_ids(examples: Sequence[Example], labels: Sequence[str], *, remedy: str = LIST_ALL_LABELS) -> np.ndarray:
    """The number of every example's label, int32 `[n]`.

    Args:
      remedy: what a user may do about a label that is not in `labels`.

    Raises:
      UserError: an example without a label, or with one that is not in `labels`.
    """
    ids = {label: number for number, label in enumerate(labels)}
    for example in examples:
        if example.label not in ids:
            shown = list(labels[:20]) + (["..."] if len(labels) > 20 else [])
            raise UserError(f"expected label one of {shown}, found {example.label!r} at {example.where}; {remedy}")
    return np.array([ids[str(example.label)] for example in examples], np.int32)


def cut_dev(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Train without dev, and dev: about `fraction` of every class, always the same rows, both in their old order.

    Every class keeps a row in train, and texts that occur once go first, so that dev holds few texts of train.
    Dev is all of train when no class has a row to spare.
    """
    rows_of = defaultdict(list)
    for row, example in enumerate(examples):
        rows_of[example.label].append(row)
    occurrences = Counter(example.text for example in examples)
    generator = np.random.Generator(np.random.Philox(key=CUT_SEED))
    chosen: set[int] = set()
    for label, count in _shares({label: len(rows) for label, rows in rows_of.items()}, fraction).items():
        shuffled = [rows_of[label][i] for i in generator.permutation(len(rows_of[label]))]
        chosen.update(sorted(shuffled, key=lambda row: occurrences[examples[row].text] > 1)[:count])
    if not chosen:
        return list(examples), list(examples)
    parts: tuple[list[Example], list[Example]] = ([], [])
    for row, example in enumerate(examples):
        parts[row in chosen].append(example)
    return parts


def _shares(sizes: dict[str | None, int], fraction: float) -> dict[str | None, int]:
    """How many rows of each class go to dev: rounded so that the sum is right (largest remainders first)."""
    total = max(1, round(sum(sizes.values()) * fraction))
    shares = {label: int(size * fraction) for label, size in sizes.items()}
    for label in sorted(sizes, key=lambda label: (shares[label] - sizes[label] * fraction, -sizes[label])):
        if sum(shares.values()) < total and shares[label] < sizes[label] - 1:
            shares[label] += 1
    return shares


def _cut_note(train: list[Example], dev: list[Example]) -> str:
    if len(train) == len(dev):
        return f"There is no dev set, and {len(train)} rows are too few to cut one off: train stands in for it."
    return f"There is no dev set: {len(dev)} of {len(train) + len(dev)} training rows were cut off as dev."

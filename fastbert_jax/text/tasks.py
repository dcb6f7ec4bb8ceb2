"""A whole classification task: train, dev, test and unlabelled examples, and the order of the labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.data_warnings import data_warnings
from fastbert_jax.text.examples import Example, Unreadable, is_fraction
from fastbert_jax.text.sources import Loaded, Role, own_split, read_examples
from fastbert_jax.text.splits import cut_off
from fastbert_jax.text.unlabelled import is_corpus


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
    rejected: tuple[Unreadable, ...]
    """Rows that could not be read, over all sources."""
    notes: tuple[str, ...]
    """Plain sentences on what was found by itself (columns, splits), and on what is odd about the texts."""


def load_task(data: DataConfig) -> Task:
    """Read all that `data` names, and find or cut what it does not.

    Raises:
      UserError: a source that is not there, a bad row, a label that train never had, fewer than two classes.
    """
    if not data.train:
        raise UserError("data.train: expected a SPEC of training texts, found none; pass --data.train FILE")
    loaded: dict[Role, Loaded] = {"train": read_examples(data.train, data, need_label=True, role="train")}
    labels = label_order(loaded["train"], data)
    own_dev, own_test = (own_split(data.train, role, data) for role in ("dev", "test"))
    reading = _as_train(data, loaded["train"])
    if dev_spec := data.dev or own_dev:
        loaded["dev"] = read_examples(dev_spec, reading, need_label=True, role="dev")
    if test_spec := data.test or own_test:
        loaded["test"] = read_examples(test_spec, reading, need_label=True, role="test")
    fractions: dict[Role, float] = {"dev": data.dev_fraction, "test": 0.0 if own_dev else data.test_fraction}
    parts, notes = _parts({role: part.examples for role, part in loaded.items()}, fractions)
    sources = [*loaded.values()]
    if is_corpus(data.unlabelled):
        unlabelled = []
    elif data.unlabelled:
        sources.append(read_examples(data.unlabelled, data, need_label=False, role="train"))
        unlabelled = [dataclasses.replace(example, label=None) for example in sources[-1].examples]
    else:
        unlabelled = parts["train"]
    for examples in parts.values():
        label_ids(examples, labels)
    notes = [*(source.note for source in sources), *notes, *data_warnings(parts, labels)]
    return Task(
        **parts,
        unlabelled=unlabelled,
        labels=labels,
        rejected=tuple(row for source in sources for row in source.rejected),
        notes=tuple(dict.fromkeys(note for note in notes if note)),
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
    fractions = [label for label in found if is_fraction(label)]
    if fractions and all(re.fullmatch(r"[-+]?[\d.,]+", label) for label in found):
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


def _as_train(data: DataConfig, train: Loaded) -> DataConfig:
    """How dev and test are read: columns that were guessed of train are theirs too."""
    guessed = train.columns.guessed
    names = {f"{part}_column": getattr(train.columns, part) for part in ("text", "label")}
    return dataclasses.replace(data, **{key: name for key, name in names.items() if name in guessed})


def _parts(
    read: Mapping[Role, list[Example]], fractions: Mapping[Role, float]
) -> tuple[dict[Role, list[Example]], list[str]]:
    """Train, dev and test: what was read, else cut from train, else what stands in for it; and sentences on that."""
    parts, rows = dict(read), len(read["train"])
    notes = []
    for role, fraction in fractions.items():
        if role not in read and fraction:
            parts["train"], parts[role] = cut_off(parts["train"], fraction * rows / len(parts["train"]))
            if parts[role]:
                notes.append(
                    f"There is no {role} set: {len(parts[role])} of {rows} training rows were cut off as {role} "
                    f"(--data.{role} names one, --data.{role}_fraction their share)."
                )
    if not parts.get("dev"):
        parts["dev"] = parts["train"]
        notes.append(f"There is no dev set, and {rows} rows are too few to cut one off: train stands in for it.")
    if not parts.get("test"):
        parts["test"] = parts["dev"]
        notes.append("There is no labelled test set: dev stands in for it.")
    return {role: parts[role] for role in ("train", "dev", "test")}, notes

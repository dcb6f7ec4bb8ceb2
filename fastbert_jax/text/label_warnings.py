"""Warnings about labels: those that look alike, those that mean none, and several labels in one."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

# What is written in place of a label that is missing; `-1` counts only beside labels that are not below zero.
NO_LABELS = {"", "-", "--", "?", "nan", "null", "none", "nil", "n/a", "na", "#n/a", "<na>", "-1"}
# Characters between several labels.
SEPARATORS = ";|,"
# At most this many labels are named, by so many characters.
NAMED, LONGEST = 8, 60


def label_warnings(sizes: Counter[str]) -> Iterator[str]:
    """What a user should know about labels, in sentences.

    Args:
      sizes: each label, and how many texts it has.
    """
    alike = defaultdict(list)
    for label in sizes:
        alike[folded(label)].append(label)
    groups = [group for group in alike.values() if len(group) > 1]
    if groups:
        named = ", ".join(_named(group, sizes) for group in groups[:NAMED])
        yield (
            f"Some labels differ only in case, blanks, unseen characters or the form of a number: {named}. Each is a "
            "class of its own: make them one, or list the right ones with --data.labels"
        )
    none = [label for label in sizes if _means_none(label, sizes)]
    if none:
        yield (
            f"Some labels usually stand for no label: {_named(none, sizes)}. Each is a class like any other: remove "
            "these rows if they have no label"
        )
    several = _several_in_one(list(sizes))
    if several:
        yield (
            f"Some labels look like several in one: {_named(several, sizes)}. A text has one label "
            "here, so each is a class of its own: keep one for each text"
        )


def folded(label: str) -> str:
    """What labels have in common that look alike: without case, blanks around words, unseen characters and quotes."""
    text = " ".join(unicodedata.normalize("NFKC", label).lower().split())
    text = "".join(character for character in text if unicodedata.category(character) not in ("Cf", "Cc"))
    text = text.strip("\"' ")
    if re.fullmatch(r"[-+]?\d{1,300}(\.0*)?", text):
        return str(int(text.partition(".")[0]))
    return text


def _means_none(label: str, sizes: Counter[str]) -> bool:
    text, others = folded(label), {folded(other) for other in sizes if other != label}
    if text == "-1":  # a class of its own on a scale such as -1, 1 or -2 ... 2
        return others != {"1"} and not any(other.startswith("-") for other in others)
    return text in NO_LABELS and not (text in ("-", "--") and "+" in others)


def _several_in_one(labels: Sequence[str]) -> list[str]:
    """Labels that are lists, or whose parts are all labels or parts of others too."""
    parts = {(label, mark): {part.strip() for part in label.split(mark)} for label in labels for mark in SEPARATORS}
    counts = {mark: Counter(part for label in labels for part in parts[label, mark]) for mark in SEPARATORS}
    return [
        label
        for label in labels
        if _is_list(label)
        or any(
            len(parts[label, mark]) > 1 and all(part and counts[mark][part] > 1 for part in parts[label, mark])
            for mark in SEPARATORS
        )
    ]


def _is_list(label: str) -> bool:
    try:
        return label.startswith("[") and isinstance(json.loads(label.replace("'", '"')), list)
    except (ValueError, RecursionError):
        return False


def _named(labels: Sequence[str], sizes: Counter[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return " and ".join(f"{label[:LONGEST]!r} ({sizes[label]})" for label in labels[:NAMED]) + more

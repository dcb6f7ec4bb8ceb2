"""Warnings about texts, labels and sizes of classes, in sentences with numbers and with what to do about it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from fastbert_jax.text.examples import Example, Text, is_blank, same_text, share
from fastbert_jax.text.sources import Role
from fastbert_jax.text.tokenizer import Tokenizer

# What is written in place of a label that is missing; `-1` counts only beside labels that are not below zero.
NO_LABELS = {"", "-", "--", "?", "nan", "null", "none", "nil", "n/a", "na", "#n/a", "<na>", "-1"}
# Characters between several labels.
SEPARATORS = ";|,"
# At most this many labels are named, by so many characters.
NAMED, LONGEST = 8, 60
# Classes are called uneven when the largest has this many times the texts of the smallest.
UNEVEN = 10
# Texts are called one-sided when one label has at least this share of them.
ONE_SIDED = 0.9
# Classes of fewer training texts are named.
FEW = 5
# A word: letters and digits, a mark, or a character of Chinese or Japanese.
WORD = re.compile(r"[^\W\u2e80-\ua4cf]+|[\u2e80-\ua4cf]|[^\w\s]")
# Pieces of a word on average. MiniLM's tokenizer cuts the built-in English sets into 1.1 to 1.2, German sentences into
# 2.0 to 2.2 (tests/text/test_data_warnings.py).
MOST_PIECES = 1.6
# The share of words that may be unknown: nearly none of the built-in sets are.
MOST_UNKNOWN = 0.05
# So many texts, spread evenly, and so many characters of each are counted.
COUNTED = 1000


def corpus_notes(
    texts: int, *, blank: int = 0, repeated: int = 0, unknown: int = 0, what: str = "unlabelled texts"
) -> list[str]:
    """What is odd about texts to distil on, in sentences.

    Args:
      texts: how many there are, without the blank ones.
      repeated: how many of them come again, blanks and case aside.
      unknown: how many of them are nothing but [UNK].
      what: the texts in words.
    """
    notes = []
    if blank:
        notes.append(f"{share(blank, texts + blank)} {what} are blank and are left out")
    if repeated:
        notes.append(
            f"{share(repeated, texts)} {what} are copies of earlier ones, blanks and case aside: they count several "
            "times; remove them if that is not meant"
        )
    if unknown:
        notes.append(
            f"{share(unknown, texts)} {what} are nothing but [UNK]: the tokenizer knows none of their words; take a "
            "--model.pretrained of their language"
        )
    return notes


def language_notes(texts: Sequence[Text], tokenizer: Tokenizer) -> list[str]:
    """What to say where a tokenizer cuts the words of texts into many pieces or does not know them, with what to do."""
    chosen = texts[:: len(texts) // COUNTED + 1]
    parts = [part[:COUNTED] for text in chosen for part in ((text,) if isinstance(text, str) else text)]
    words = sum(len(WORD.findall(part)) for part in parts)
    pieces, unknown = tokenizer.count(parts)
    found = []
    if pieces > MOST_PIECES * words:
        found.append(f"cuts a word into {pieces / words:.1f} pieces on average (English: 1.1 to 1.2)")
    if unknown > MOST_UNKNOWN * words:
        found.append(f"does not know {100 * unknown / words:.0f} % of the words")
    if not found:
        return []
    return [
        f"The tokenizer of --model.pretrained does not suit the train texts: it {' and '.join(found)}. Take a backbone "
        "of their language, or of many, such as google-bert/bert-base-multilingual-cased; docs/howto/own_data.md lists "
        "some"
    ]


def data_warnings(parts: Mapping[Role, Sequence[Example]], labels: Sequence[str]) -> list[str]:
    """What a user should know about the texts, in sentences with numbers and with what to do about it.

    Args:
      parts: train first; a part that another replaces is the same list.
      labels: all classes.
    """
    train, notes = parts["train"], []
    known = {same_text(example.text): example.where for example in train}
    seen: list[Sequence[Example]] = []
    for name, examples in parts.items():
        if any(examples is other for other in seen):
            continue
        seen.append(examples)
        if examples is not train and (twice := [example for example in examples if same_text(example.text) in known]):
            notes.append(
                f"{share(len(twice), len(examples))} {name} texts are in train too, blanks and case aside; the first: "
                f"{twice[0].where} and {known[same_text(twice[0].text)]}. The model is measured on texts it has seen: "
                "remove them from one of the two"
            )
        if empty := [example for example in examples if is_blank(example.text)]:
            notes.append(
                f"{share(len(empty), len(examples))} {name} texts are empty; the first: {empty[0].where}. They all "
                "get one answer: remove them, or check --data.text-column"
            )
    sizes = Counter(dict.fromkeys(labels, 0))
    sizes.update(str(example.label) for example in train)
    return [*notes, *_conflicts(train), *label_warnings(sizes), *_class_sizes(sizes)]


def _conflicts(train: Sequence[Example]) -> Iterator[str]:
    by_text: dict[object, dict[str | None, str]] = defaultdict(dict)
    for example in train:
        by_text[same_text(example.text)].setdefault(example.label, example.where)
    conflicts = [places for places in by_text.values() if len(places) > 1]
    if conflicts:
        places = " and ".join(f"{label!r} at {where}" for label, where in list(conflicts[0].items())[:2])
        yield (
            f"{len(conflicts)} train text{'s have' if len(conflicts) > 1 else ' has'} more than one label; the first "
            f"is {places}. No model can give both: keep the right one"
        )


def _class_sizes(sizes: Counter[str]) -> Iterator[str]:
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    if sizes[largest] >= ONE_SIDED * sizes.total():
        yield (
            f"{share(sizes[largest], sizes.total())} train texts are {largest!r}: a model that always gives this "
            f"label has that accuracy. Compare with it, and collect more texts of the others"
        )
    if sizes[largest] >= UNEVEN * max(sizes[smallest], 1):
        yield (
            f"The largest class, {largest!r}, has {sizes[largest]} train texts, the smallest, {smallest!r}, "
            f"{sizes[smallest]}. Accuracy says little about small classes: collect more of their texts"
        )
    few = sorted((label for label in sizes if sizes[label] < FEW), key=sizes.__getitem__)
    if few:
        yield (
            f"{len(few)} of {len(sizes)} classes have fewer than {FEW} train texts: {_named(few, sizes, ', ')}. They "
            "can hardly be learnt: collect more, or merge them with others"
        )


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
    none = [label for form, labels in alike.items() if _means_none(form, alike) for label in labels]
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


def _means_none(form: str, forms: Collection[str]) -> bool:
    """Whether a label of this folded form stands for no label, beside those of all `forms`."""
    if form == "-1":  # a class of its own on a scale such as -1, 1 or -2 ... 2
        others = {*forms} - {form}
        return others != {"1"} and not any(other.startswith("-") for other in others)
    return form in NO_LABELS and not (form in ("-", "--") and "+" in forms)


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


def _named(labels: Sequence[str], sizes: Counter[str], between: str = " and ") -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return between.join(f"{label[:LONGEST]!r} ({sizes[label]})" for label in labels[:NAMED]) + more

"""Labelled texts: train, dev and test with the order of the labels, and a baseline."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastbert_jax.config import BadRow, DataConfig, ReadingConfig
from fastbert_jax.errors import UserError, nearest, needs_extra
from fastbert_jax.log import info
from fastbert_jax.text.columns import flags
from fastbert_jax.text.corpora import is_corpus
from fastbert_jax.text.data_warnings import corpus_notes, data_warnings
from fastbert_jax.text.examples import Example, Unreadable, is_blank, is_fraction, label_name, same_text, share
from fastbert_jax.text.sources import Loaded, Role, own_split, read_examples

# A cut belongs to the data, not to the run: every seed of a run sees the same dev and test sets.
CUT_SEED = 20200405
SHOWN_LABELS = 20
# The baseline takes texts with fewer blanks than this share of their characters as written without blanks.
BLANKS_BETWEEN_WORDS = 0.05
MOST_GROUPS = 20
"""Values of a column that the accuracy is reported by; the rarer ones of more are taken together."""


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """The labelled texts of a run, and the texts to distil on where they are read into memory."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    unlabelled: list[Example]
    """The texts to distil on, without their labels; empty where they are a corpus (`text.corpora`)."""
    labels: tuple[str, ...]
    """The classes; a class's number is its place here."""
    rejected: tuple[Unreadable, ...]
    """Rows that could not be read, over all sources."""
    notes: tuple[str, ...]
    """Sentences on the chosen columns and splits, and warnings about the texts."""
    reading: ReadingConfig
    """How train was read, its columns by name; saved with the model."""


def read_labelled_data(data: DataConfig, *, by: tuple[str, ...] = ()) -> LabelledData:
    """Read the sets that `data` names; the others are the set's own splits, or are cut from train.

    Args:
      by: columns whose values come with the test examples.

    Raises:
      UserError: a source that is not there, a bad row, a label that train does not have, fewer than two classes.
    """
    if not data.train:
        raise UserError("--data.train: expected a SPEC of labelled texts, found nothing; builtin:movie_reviews is one")
    own_dev, own_test = (own_split(data.train, role, data) for role in ("dev", "test"))
    # The set that test is, or is cut from.
    is_dev = own_dev or (data.dev and not data.test_fraction)
    source = "test" if data.test or own_test else "dev" if is_dev else "train"
    kept: dict[str, Any] = {source: {"keep": by, "option": "--evaluate.by"}}
    loaded: dict[Role, Loaded] = {
        "train": read_examples(data.train, data, need_label=True, role="train", **kept.get("train", {}))
    }
    columns = loaded["train"].columns  # dev and test are read with those that were guessed for train
    names: dict[str, Any] = {"text_column": columns.text[0], "label_column": columns.label}
    guessed = {key: name for key, name in names.items() if name in columns.guessed}
    reading, trained = dataclasses.replace(data, **guessed), columns.reading(data)
    specs: dict[Role, str | None] = {"dev": data.dev or own_dev, "test": data.test or own_test}
    for role, spec in specs.items():
        if spec:
            loaded[role] = read_examples(
                spec, reading, need_label=True, role=role, trained=trained, **kept.get(role, {})
            )
    left_out = _exclude(loaded, data.exclude_labels)
    labels = label_order(loaded["train"], data)
    fractions: dict[Role, float] = {"dev": data.dev_fraction, "test": 0.0 if own_dev else data.test_fraction}
    parts, notes = _parts({role: part.examples for role, part in loaded.items()}, fractions)
    sources = [*loaded.values()]
    unlabelled: list[Example] = []
    if data.unlabelled and not is_corpus(data.unlabelled):
        sources.append(read_examples(data.unlabelled, data, need_label=False, role="train", trained=trained))
        unlabelled, more = _unlabelled(sources[-1])
        notes += more
    elif not data.unlabelled:
        unlabelled = parts["train"]
    for examples in parts.values():
        label_ids(examples, labels)
    all_named = data.text_column and data.pair_column and data.label_column
    notes = [*(source.note for source in sources if not all_named), *left_out, *notes, *data_warnings(parts, labels)]
    return LabelledData(
        **parts,
        unlabelled=unlabelled,
        labels=labels,
        rejected=tuple(row for source in sources for row in source.rejected),
        notes=tuple(dict.fromkeys(note for note in notes if note)),
        reading=trained,
    )


def _exclude(loaded: dict[Role, Loaded], excluded: Sequence[str]) -> list[str]:
    """Leave out the rows of these labels, in place; what was left out, in sentences.

    Raises:
      UserError: a label that no row has, or a part of which nothing is left.
    """
    known = {str(example.label) for read in loaded.values() for example in read.examples}
    for label in excluded:
        if label not in known:
            raise UserError(
                f"--data.exclude-labels: expected labels of the rows, found {label!r}; {nearest(label, sorted(known))}"
            )
    notes = []
    for role, read in loaded.items():
        loaded[role], words = without_labels(read, excluded, what=f"{role} rows")
        notes.append(words and f"{words} (--data.exclude-labels).")
    return notes


def without_labels(read: Loaded, excluded: Sequence[str], *, what: str = "rows") -> tuple[Loaded, str]:
    """What is left without the rows of some labels; and what was left out, in words, empty where nothing was.

    Raises:
      UserError: nothing is left.
    """
    left = [example for example in read.examples if example.label not in excluded]
    counts = Counter(str(example.label) for example in read.examples if example.label in excluded)
    if not counts:
        return read, ""
    words = (
        f"{share(counts.total(), len(read.examples))} {what} have excluded labels and are left out: {_counted(counts)}"
    )
    if not left:
        raise UserError(f"{words}; expected rows with other labels, found none")
    return dataclasses.replace(read, examples=left), words


def _unlabelled(read: Loaded) -> tuple[list[Example], list[str]]:
    """Texts to distil on, without their labels and without blank texts, and sentences on what was found."""
    texts = [dataclasses.replace(example, label=None) for example in read.examples if not is_blank(example.text)]
    if not texts:
        raise UserError(
            f"--data.unlabelled: expected texts, found {len(read.examples)} blank ones, the first at "
            f"{read.examples[0].where}; check --data.text-column"
        )
    repeated = len(texts) - len({same_text(example.text) for example in texts})
    return texts, corpus_notes(len(texts), blank=len(read.examples) - len(texts), repeated=repeated)


def label_order(train: Loaded, data: DataConfig) -> tuple[str, ...]:
    """The classes: `data.labels`, else the set's own order, else those of train, sorted (numbers by value).

    Raises:
      UserError: train has fewer than two classes, or its labels are numbers with a fraction.
    """
    found = {str(example.label): example.where for example in reversed(train.examples)}
    if len(found) < 2:
        excluded = "--data.exclude-labels or " if data.exclude_labels else ""
        raise UserError(
            f"expected two classes or more in train, found only {next(iter(found))!r} "
            f"in all of its {len(train.examples)} rows; check {excluded}--data.label-column"
        )
    if data.labels or train.class_names:
        return data.labels or tuple(name for name in train.class_names if name not in data.exclude_labels)
    fractions = [label for label in found if is_fraction(label)]
    if fractions and all(re.fullmatch(r"[-+]?[\d.,]+", label) for label in found):
        raise UserError(
            f"{found[fractions[0]]}: expected a class, found the number {fractions[0]}; "
            f"if such numbers are classes, list them all with --data.labels"
        )
    if all(re.fullmatch(r"-?[0-9]{1,999}", label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


LIST_ALL_LABELS = "fix the row, list all labels with --data.labels, or leave such rows out with --data.exclude-labels"


def label_ids(examples: Sequence[Example], labels: Sequence[str], *, remedy: str = LIST_ALL_LABELS) -> np.ndarray:
    """The number of every example's label, int32 `[n]`.

    Args:
      remedy: what a user may do about a label that is not in `labels`.

    Raises:
      UserError: an example without a label, or with one that is not in `labels`.
    """
    ids = {label: number for number, label in enumerate(labels)}
    unknown = [example for example in examples if example.label not in ids]
    if unknown:
        first, others = unknown[0], dict.fromkeys(example.label for example in unknown)
        count = f" ({share(len(unknown), len(examples))} rows have other labels: {_shown(others)})"
        if len(unknown) == len(examples) and None not in others:
            remedy = f"no row has one of these labels: check {flags('label_column')}, or {remedy}"
        raise UserError(
            f"expected label one of {_shown(labels)}, found {first.label!r} at {first.where}"
            f"{count if len(unknown) > 1 else ''}; {remedy}"
        )
    return np.array([ids[str(example.label)] for example in examples], np.int32)


def known_examples(read: Loaded, labels: Sequence[str], data: ReadingConfig) -> list[Example]:
    """The examples whose label a model knows; under `on_bad_row` `skip`, others are left out and counted, if some are.

    Under `stop`, and where no label is known, all of them: `label_ids` then says what is wrong.
    """
    names = set(labels)
    known = [example for example in read.examples if example.label in names]
    if data.on_bad_row is BadRow.STOP or not known or len(known) == len(read.examples):
        return read.examples
    unknown = Counter(str(example.label) for example in read.examples if example.label not in names)
    info(
        f"{share(unknown.total(), len(read.examples))} rows have labels that the model does not know and were left "
        f"out: {_counted(unknown)}"
    )
    return known


def _counted(labels: Counter[str]) -> str:
    return _shown(f"{label} ({count})" for label, count in labels.most_common())


def grouped(examples: Sequence[Example], columns: Sequence[str], *, option: str) -> dict[str, list[str]]:
    """The value that each example has in some columns, those that it was read with (`Example.kept`).

    The rarest of more than `MOST_GROUPS` values become one, `N others`; a value that is missing or blank is `(empty)`.

    Args:
      option: where a user names the columns.

    Raises:
      UserError: most values of a column are in one row only, as those of an id are.
    """
    found = {}
    for place, column in enumerate(columns):
        values = [_group(example.kept[place] if example.kept else None) for example in examples]
        counts = Counter(values)
        if len(counts) > MOST_GROUPS and 2 * len(counts) > len(examples):
            raise UserError(
                f"{option} {column}: expected a column whose values repeat, such as a language, found "
                f"{len(counts)} different values in {len(examples)} rows; leave it out"
            )
        if len(counts) > MOST_GROUPS:
            rest = f"{len(counts) - MOST_GROUPS + 1} others"
            largest = {value for value, _ in counts.most_common(MOST_GROUPS - 1)}
            info(f"{option} {column}: {len(counts)} different values; the rarest are shown together as {rest!r}")
            values = [value if value in largest else rest for value in values]
        found[column] = values
    return found


def _group(value: Any) -> str:
    """A value of a column as text on one line."""
    name = label_name(value) if value is not None else None
    if name is None and not (value is None or isinstance(value, str | float)):
        name = str(value)
    name = (
        " ".join(name.encode("utf-8", "replace").decode().split()) if name else ""
    )  # half a surrogate pair is no text
    return name or "(empty)"


def _shown(labels: Iterable[str | None]) -> str:
    labels = list(labels)
    return str(labels[:SHOWN_LABELS] + ["..."] * (len(labels) > SHOWN_LABELS))


def _parts(
    read: Mapping[Role, list[Example]], fractions: Mapping[Role, float]
) -> tuple[dict[Role, list[Example]], list[str]]:
    """Train, dev and test: what was read, else a cut from train, else what replaces it; and sentences on that."""
    parts, rows = dict(read), len(read["train"])
    notes = []
    for role, fraction in fractions.items():
        if role not in read and fraction:
            parts["train"], parts[role] = cut_off(parts["train"], fraction * rows / len(parts["train"]))
            if parts[role]:
                notes.append(
                    f"There is no {role} set: {len(parts[role])} of {rows} training rows were cut off as {role} "
                    f"(--data.{role} names one, --data.{role}-fraction their share)."
                )
    if not parts.get("dev"):
        parts["dev"] = parts["train"]
        notes.append(f"There is no dev set, and {rows} rows are too few to cut one off: train is used instead.")
    if not parts.get("test"):
        parts["test"] = parts["dev"]
        notes.append("There is no labelled test set: dev is used instead.")
    return {role: parts[role] for role in ("train", "dev", "test")}, notes


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


def tfidf_svm_right(train: Sequence[Example], test: Sequence[Example]) -> np.ndarray:
    """Which texts of `test` a linear SVM trained on `train` answers correctly, bool `[n]`.

    Its features are TF-IDF of words and word pairs, or of 1-3 characters without blanks.
    """
    with needs_extra("train", "TF-IDF baseline"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

    texts, asked = (
        [example.text if isinstance(example.text, str) else " ".join(example.text) for example in examples]
        for examples in (train, test)
    )
    blanks = sum(len(re.findall(r"\s+", text)) for text in texts)
    if blanks >= BLANKS_BETWEEN_WORDS * sum(map(len, texts)):
        vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    else:
        vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char", ngram_range=(1, 3))
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # not one word in all of train: every text looks the same
        vectorizer = TfidfVectorizer(analyzer=lambda text: ["text", *text])
        features = vectorizer.fit_transform(texts)
    classifier = LinearSVC(random_state=0).fit(features, [example.label for example in train])
    given = classifier.predict(vectorizer.transform(asked))
    return np.array([label == example.label for label, example in zip(given, test, strict=True)])

"""What is odd about labelled texts, in sentences with numbers and with what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from fastbert_jax.text.examples import Example, same_text
from fastbert_jax.text.sources import Role

# The largest class has so many times the texts of the smallest where it is said.
UNEVEN = 10
# The share of texts with one label from which it is said.
ONE_SIDED = 0.9
# Classes of fewer training texts are named.
FEW = 5
# So many things are named; of the others it is told how many there are.
NAMED = 5


def data_warnings(parts: Mapping[Role, Sequence[Example]], labels: Sequence[str]) -> list[str]:
    """What a user should know of texts to train and to measure on.

    Args:
      parts: train first; one that another stands in for is the same list.
      labels: all classes.
    """
    notes: list[str] = []
    told: list[Sequence[Example]] = []
    for name, examples in parts.items():
        if any(examples is other for other in told):
            continue
        if told:
            notes += _known_texts(parts["train"], examples, name)
        notes += _empty_texts(examples, name)
        told.append(examples)
    return [*notes, *_conflicts(parts["train"]), *_class_sizes(parts["train"], labels)]


def share(count: int, total: int) -> str:
    """A count with its part of the whole: `12 of 200 (6.0 %)`."""
    return f"{count} of {total} ({100 * count / total:.1f} %)"


def _known_texts(train: Sequence[Example], examples: Sequence[Example], name: str) -> Iterator[str]:
    known = {same_text(example.text): example.where for example in train}
    twice = [example for example in examples if same_text(example.text) in known]
    if twice:
        first = twice[0]
        yield (
            f"{share(len(twice), len(examples))} {name} texts are in train too, blanks and case aside; the first: "
            f"{first.where} and {known[same_text(first.text)]}. The model is measured on what it has seen: take them "
            f"out of one of the two"
        )


def _empty_texts(examples: Sequence[Example], name: str) -> Iterator[str]:
    empty = [example for example in examples if not "".join(same_text(example.text)).strip()]
    if empty:
        yield (
            f"{share(len(empty), len(examples))} {name} texts are empty; the first: {empty[0].where}. They all get one "
            f"answer: take them out, or check --data.text_column"
        )


def _conflicts(train: Sequence[Example]) -> Iterator[str]:
    by_text: dict[object, dict[str | None, str]] = defaultdict(dict)
    for example in train:
        by_text[same_text(example.text)].setdefault(example.label, example.where)
    conflicts = [places for places in by_text.values() if len(places) > 1]
    if conflicts:
        places = " and ".join(f"{label!r} at {where}" for label, where in list(conflicts[0].items())[:2])
        yield (
            f"{len(conflicts)} train text{'s have' if len(conflicts) > 1 else ' has'} more than one label; the first "
            f"is {places}. No model can answer both: keep the right one"
        )


def _class_sizes(train: Sequence[Example], labels: Sequence[str]) -> Iterator[str]:
    sizes = Counter(str(example.label) for example in train)
    largest, smallest = (pick(labels, key=sizes.__getitem__) for pick in (max, min))
    if sizes[largest] >= ONE_SIDED * len(train):
        yield (
            f"{share(sizes[largest], len(train))} train texts are {largest!r}: a model that always says so is right "
            f"as often, so hold accuracy against that, and collect more of the others"
        )
    if sizes[largest] >= UNEVEN * max(sizes[smallest], 1):
        yield (
            f"The largest class, {largest!r}, has {sizes[largest]} train texts, the smallest, {smallest!r}, "
            f"{sizes[smallest]}. Accuracy hardly shows what becomes of small classes: collect more of their texts"
        )
    few = sorted((label for label in labels if sizes[label] < FEW), key=sizes.__getitem__)
    if few:
        named = ", ".join(f"{label!r} ({sizes[label]})" for label in few[:NAMED])
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        yield (
            f"{len(few)} of {len(labels)} classes have fewer than {FEW} train texts: {named}{more}. They can hardly be "
            f"learnt: collect more, or join them with others"
        )

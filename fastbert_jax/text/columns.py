"""Finding which columns of a table are the text, the second text and the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.text.guesses import contents_of, guess_label, guess_text
from fastbert_jax.text.tables import Table

NO_PAIR = "none"

LABELS = (
    "label",
    "labels",
    "gold_label",
    "class",
    "category",
    "target",
    "sentiment",
    "polarity",
    "topic",
    "intent",
    "emotion",
    "klasse",
    "kategorie",
    "stimmung",
    "thema",
)
PAIRS = (
    ("text_a", "text_b"),
    ("texta", "textb"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
)
TEXTS = (
    "text",
    "sentence",
    "text_a",
    "texta",
    "text1",
    "sentence1",
    "sentence_1",
    "sentence_a",
    "premise",
    "question1",
    "question",
    "query",
    "review",
    "review_body",
    "content",
    "document",
    "article",
    "body",
    "description",
    "comment",
    "tweet",
    "message",
    "utterance",
    "headline",
    "title",
    "satz",
    "rezension",
    "kommentar",
    "nachricht",
    "inhalt",
    "beschreibung",
)


@dataclass(frozen=True)
class Columns:
    """The names of the columns in use."""

    text: str
    pair: str | None
    label: str | None
    guessed: tuple[str, ...] = field(default=(), compare=False)
    """Those of them that were found by what stands in them."""

    def __str__(self) -> str:
        texts = f"text in {self.text!r}" if self.pair is None else f"pairs in {self.text!r} and {self.pair!r}"
        return texts if self.label is None else f"{texts}, label in {self.label!r}"


def flags(*keys: str, value: str = "") -> str:
    """How train.py and infer.py, in this order, name settings of `DataConfig` on their command lines."""
    ours = " or ".join(f"--data.{key}{value and ' ' + value}" for key in keys)
    theirs = " or ".join(f"--{key.replace('_', '-')}{value and ' ' + value}" for key in keys)
    return f"train.py {ours}, infer.py {theirs}"


def find_columns(table: Table, data: DataConfig, *, need_label: bool) -> Columns:
    """Choose the columns of `table`: those that `data` names, else by their names in any case, else by their contents.

    Raises:
      UserError: a named column is missing, one column has two parts to play, or none or several fit.
    """
    pair_named = "" if data.pair_column == NO_PAIR else data.pair_column
    _require_present(table, "text_column", data.text_column)
    _require_present(table, "pair_column", pair_named)
    if need_label:
        _require_present(table, "label_column", data.label_column)
    if data.label_column:
        label = data.label_column if data.label_column in table.columns else None
    else:
        label = _first([c for c in table.columns if c not in (data.text_column, pair_named)], LABELS)
    candidates = tuple(column for column in table.columns if column != label)
    text, pair = _texts(table, candidates, text=data.text_column, pair=pair_named, single=data.pair_column == NO_PAIR)
    guessed = []
    if text is None:
        contents = contents_of(table, [column for column in candidates if column != pair])
        text = guess_text(contents, table, remedy=f"name it ({flags('text_column')}), or two for pairs (pair_column)")
        if text is None:
            raise _not_found(table, "text", "text_column")
        guessed.append(text)
    if need_label and label is None:
        contents = contents_of(table, [column for column in candidates if column not in (text, pair)])
        label = guess_label(contents, table, remedy=f"name it ({flags('label_column')})")
        if label is None:
            raise _not_found(table, "label", "label_column")
        guessed.append(label)
    used = [column for column in (text, pair, label) if column is not None]
    if len(set(used)) < len(used):
        raise UserError(
            f"{table.name}: expected a column of its own for each part, found text {text!r}, pair {pair!r}, "
            f"label {label!r}; name another ({flags('text_column', 'pair_column', 'label_column')})"
        )
    return Columns(text, pair, label, tuple(guessed))


def _texts(
    table: Table, candidates: Sequence[str], *, text: str, pair: str, single: bool
) -> tuple[str | None, str | None]:
    if not single and not (text and pair):
        for names in PAIRS:
            first, second = (_first(candidates, (name,)) for name in names)
            if first and second and text in ("", first) and pair in ("", second):
                return first, second
    chosen = text or _first([column for column in candidates if column != pair], TEXTS)
    return chosen, pair or None


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the earliest of `names`, in any case."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)


def _require_present(table: Table, key: str, column: str) -> None:
    if column and column not in table.columns:
        raise UserError(
            f"{table.name}: expected a column {column!r} ({flags(key)}), found {_listed(table)}; "
            f"{nearest(column, table.columns)}"
        )


def _not_found(table: Table, part: str, key: str) -> UserError:
    return UserError(
        f"{table.name}: expected a {part} column, found {_listed(table)}; name it with {flags(key)} "
        f"(a .tsv or .csv file needs a first line with the names of its columns)"
    )


def _listed(table: Table) -> str:
    shown = ", ".join(repr(column[:40]) for column in table.columns[:20])
    return f"{'one column' if len(table.columns) == 1 else 'the columns'} {shown}"

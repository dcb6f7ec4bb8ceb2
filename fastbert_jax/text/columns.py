"""Which columns of a table are the text, the second text and the label: by settings, by names, or by contents."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fastbert_jax.config import ReadingConfig
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.text.examples import is_fraction, label_name
from fastbert_jax.text.readers import TEXTS
from fastbert_jax.text.tables import Row, Table

NO_PAIR = "none"

# Usual names of columns, the first choice first.
LABELS = "label labels gold_label class category target sentiment polarity topic intent emotion".split()
PAIRS = [
    pair.split("+")
    for pair in (
        "text_a+text_b texta+textb text1+text2 text+text_pair sentence1+sentence2 sentence_1+sentence_2 "
        "sentence_a+sentence_b premise+hypothesis question1+question2 question+sentence question+passage "
        "question+answer query+passage query+document"
    ).split()
]
# Columns that number the rows; neither text nor label.
NUMBERS = ("", "id", "idx", "index", "guid", "uid", "key", "no", "nr", "unnamed: 0")
# The longest texts are this many times as long as those of any other column, or the choice is left to the user.
LONGER = 2.0
# A guessed label column has at most this many values, each of them in two rows or more on average.
MOST_CLASSES = 50
# A longer name of a column is taken for a text, so the file has no line of names.
LONGEST_NAME = 60
# So is one of so many words, or of so many Chinese characters, where the texts are not much longer.
WORDS_OF_A_TEXT = 3
CHARACTERS_OF_A_TEXT = 5


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns in use."""

    text: tuple[str, ...]
    """More than one are joined to one text; see `sources`."""
    pair: str | None
    label: str | None
    guessed: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """Those of them that were chosen by their contents."""

    def __str__(self) -> str:
        text = " + ".join(map(repr, self.text))
        texts = f"text in {text}" if self.pair is None else f"pairs in {text} and {self.pair!r}"
        return texts if self.label is None else f"{texts}, label in {self.label!r}"

    @classmethod
    def of_training(cls, trained: ReadingConfig, *, need_label: bool) -> Columns:
        """Those that a model was trained on, from what `reading` gave."""
        pair = None if trained.pair_column == NO_PAIR else trained.pair_column
        return cls(trained.text_columns, pair, trained.label_column if need_label else None)

    def reading(self, data: ReadingConfig) -> ReadingConfig:
        """The settings that read these columns of files like those that `data` reads; they are saved with a model."""
        how = {field.name: getattr(data, field.name) for field in dataclasses.fields(ReadingConfig)}
        columns = {"text_column": self.text, "pair_column": self.pair or NO_PAIR, "label_column": self.label or ""}
        return ReadingConfig(**how | columns | {"on_bad_row": ReadingConfig.on_bad_row})

    def same(self, other: Columns) -> bool:
        """Whether the columns have the names of others, in any case; their label counts if they have one."""
        ours = self if other.label is not None else dataclasses.replace(self, label=None)
        one, another = ((*columns.text, columns.pair or "", columns.label or "") for columns in (ours, other))
        return [name.strip().lower() for name in one] == [name.strip().lower() for name in another]

    @property
    def used(self) -> tuple[str, ...]:
        """All that are used."""
        return tuple(column for column in (*self.text, self.pair, self.label) if column is not None)


def flags(*keys: str, value: str = "") -> str:
    """How settings of `ReadingConfig` are typed: `--text-column (train: --data.text-column)`."""
    names = [f"{key.replace('_', '-')}{value and ' ' + value}" for key in keys]
    return f"{' or '.join(f'--{name}' for name in names)} (train: {' or '.join(f'--data.{name}' for name in names)})"


def find_columns(table: Table, data: ReadingConfig, *, need_label: bool) -> Columns:
    """Choose the columns of `table`: those that `data` names, else by their names in any case, else by their contents.

    By contents, the text is the column with by far the longest texts, and the label the only one with few values.

    Raises:
      UserError: a named column is missing, one column has two parts, or no column fits, or several do.
    """
    pair_named = "" if data.pair_column == NO_PAIR else data.pair_column
    named = [*(("text_column", column) for column in data.text_columns), ("pair_column", pair_named)]
    for key, column in [*named, ("label_column", data.label_column)] if need_label else named:
        if column and column not in table.columns:
            raise UserError(
                f"{table.name}: expected a column {column!r}, as {flags(key)} says, found {listed(table)}; "
                f"{nearest(column, table.columns)}"
            )
    if data.label_column:
        label = data.label_column if data.label_column in table.columns else None
    else:
        label = _first(
            [column for column in table.columns if ("text_column", column) not in named and column != pair_named],
            LABELS,
        )
    candidates = [column for column in table.columns if column != label]
    text, pair = data.text_columns, pair_named or None
    if len(text) < 2:
        single = data.pair_column == NO_PAIR
        found, pair = _by_name(candidates, text="".join(text), pair=pair_named, single=single)
        text = (found,) if found else ()
    guessed: list[str] = []
    if not text:
        text = (_longest(table, [column for column in candidates if column != pair]),)
        guessed += text
    if need_label and label is None:
        label = _few_values(table, [column for column in candidates if column not in (*text, pair)])
        guessed.append(label)
    if guessed and table.has_header:
        _check_names(table, guessed)
    columns = Columns(text, pair, label, tuple(guessed))
    if len(set(columns.used)) < len(columns.used):
        raise UserError(
            f"{table.name}: expected a column of its own for each part, found {columns}; "
            f"name another: {flags('text_column', 'pair_column', 'label_column')}"
        )
    return columns


def _check_names(table: Table, guessed: Sequence[str]) -> None:
    """Raise `UserError` when the names of the columns look like a row, or like a comment."""
    numbers = [column for column in table.columns if column.isdecimal()]
    if numbers != list(map(str, range(len(numbers)))):  # else they are the names that pandas gives
        numbers = []
    for column, values in _contents(table, [column for column in table.columns if column not in numbers]).items():
        is_comment = column == table.columns[0] and re.match(r"#\W*[^\W\d]", column)
        is_text = column in guessed and _is_like_texts(column, [value for value in values if isinstance(value, str)])
        if is_text or len(column) > LONGEST_NAME or column in values or is_comment:
            raise UserError(
                f"{table.name}: expected the names of the columns in the first line, found what looks like a row or a "
                f"comment ({column[:40]!r}); put a line of names in its place, such as text and label, or, if it is "
                f"the name of a column, choose the columns: {flags('text_column', 'label_column')}"
            )


def _is_like_texts(name: str, texts: Sequence[str]) -> bool:
    """Whether the name of a column is as long as its texts, and has several words, or their words."""
    if not texts or 2 * len(name) < statistics.median(map(len, texts)):
        return False
    words = name.lower().split()
    if any(character >= "\u2e80" for character in name):  # Chinese, Japanese and Korean
        return len(name) >= CHARACTERS_OF_A_TEXT
    known = {word for text in texts for word in text.lower().split()}
    return len(words) >= WORDS_OF_A_TEXT or (len(words) > 1 and known.issuperset(words))


def as_trained(table: Table, data: ReadingConfig, trained: ReadingConfig) -> ReadingConfig:
    """`data`, with the columns of training that it does not name and the table has, in any case.

    Where not all of the text's columns are there, a second text is left to the usual choice as well.
    """
    named = (*data.text_columns, data.pair_column, data.label_column)

    def there(column: str) -> str | None:
        found = column if column in table.columns else _first(table.columns, (column.strip().lower(),))
        return found if found not in named else None

    found: dict[str, Any] = {}
    texts = tuple(filter(None, map(there, trained.text_columns)))
    if not data.text_columns and len(texts) == len(trained.text_columns):
        found["text_column"] = texts
    if not data.pair_column and (data.text_columns or "text_column" in found):
        found["pair_column"] = NO_PAIR if trained.pair_column == NO_PAIR else there(trained.pair_column) or ""
    if not data.label_column:
        found["label_column"] = there(trained.label_column) or ""
    return dataclasses.replace(data, **found)


def _by_name(candidates: Sequence[str], *, text: str, pair: str, single: bool) -> tuple[str | None, str | None]:
    """The text and its pair by the settings and by usual names."""
    if not single and not (text and pair):
        for names in PAIRS:
            first, second = (_first(candidates, (name,)) for name in names)
            if first and second and text in ("", first) and pair in ("", second):
                return first, second
    return text or _first([column for column in candidates if column != pair], TEXTS), pair or None


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the earliest of `names`, in any case."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)


def _longest(table: Table, columns: Sequence[str]) -> str:
    """The column with by far the longest texts, or the only one with texts."""
    columns = [column for column in columns if column in table.text_columns]
    lengths = {column: _mean_length(values) for column, values in _contents(table, columns).items()}
    if len(lengths) == 1:
        return next(iter(lengths))
    longest = max(lengths.values(), default=0.0)
    fits = {
        column: f"{length:.0f} characters on average" for column, length in lengths.items() if longest < LONGER * length
    }
    return _only(table, fits, "the longest texts", "text_column", "pair_column")


def _few_values(table: Table, columns: Sequence[str]) -> str:
    """The only column with few different values."""
    counts = {column: len(_labels(values)) for column, values in _contents(table, columns).items()}
    fits = {column: f"{count} values" for column, count in counts.items() if count}
    return _only(table, fits, "few different values", "label_column")


def _only(table: Table, fits: Mapping[str, str], wanted: str, *keys: str) -> str:
    """The one column that fits.

    Args:
      fits: the columns, and what was found in each.
      wanted: what a column needs to fit.
      keys: the settings that name the column.

    Raises:
      UserError: no column fits, or several do.
    """
    if len(fits) == 1:
        return next(iter(fits))
    if fits:
        found = " and ".join(f"{column!r} ({what})" for column, what in fits.items())
        raise UserError(f"{table.name}: expected one column with {wanted}, found {found}; name it: {flags(*keys)}")
    raise UserError(
        f"{table.name}: expected a {keys[0].removesuffix('_column')} column, found {listed(table)}; "
        f"name it: {flags(keys[0])} (a .tsv or .csv file needs a first line with the names of its columns)"
    )


def _contents(table: Table, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The values of the first rows by column, without columns that number the rows."""
    columns = [column for column in columns if column.strip().lower() not in NUMBERS]
    rows = [row.values for row in table.head(columns) if isinstance(row, Row)] if columns else []
    return {column: [row.get(column) for row in rows] for column in columns}


def _mean_length(values: Sequence[Any]) -> float:
    """Characters of a text on average; 0 where most values are not texts."""
    texts = [value for value in values if isinstance(value, str)]
    return sum(map(len, texts)) / len(texts) if 2 * len(texts) > len(values) else 0.0


def _labels(values: Sequence[Any]) -> set[str]:
    """The different values of a column that may hold labels; empty for one that does not."""
    present = [value for value in values if value is not None and not (isinstance(value, str) and not value.strip())]
    labels = {label_name(value) for value in present}
    known = {label for label in labels if label is not None and not is_fraction(label)}
    return known if known == labels and 2 <= len(known) <= min(MOST_CLASSES, len(values) // 2) else set()


def listed(table: Table) -> str:
    """The names of a table's columns, for errors."""
    shown = ", ".join(repr(column[:40]) for column in table.columns[:20])
    return f"{'one column' if len(table.columns) == 1 else 'the columns'} {shown}"

"""Texts to token ids: the model's own tokenizer, its framing, and truncation that is counted."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import trainers

from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.config import TextForm
from fastbert_jax.config_yaml import shown
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import MOST_CHARACTERS, Text, checked_texts, chunks, is_too_long
from fastbert_jax.text.tokenizer_parts import (
    SPECIAL_TOKENS,
    USUAL_NAMES,
    Frame,
    bert_frames,
    check_words,
    frames_of,
    own_words,
    special_names,
    unknown_token,
    without_special_names,
)
from fastbert_jax.text.vocabulary import (
    PARTS,
    SETTINGS,
    VOCABULARY,
    add_markers,
    bert_backend,
    given_names,
    json_values,
    read_vocabulary,
)

TEXT_FORM = "text_form"
"""The key of the text form in `SETTINGS`."""
# Texts handed to the tokenizer at once: enough for its threads, few enough for memory.
CHUNK = 1024
# A chunk ends with the text that reaches so many characters, as each takes some hundred bytes.
CHUNK_CHARACTERS = 2**20


@dataclass(frozen=True)
class Encoded:
    """n texts as tokens, one after the other."""

    token_ids: np.ndarray
    """int32 `[T]`."""
    token_types: np.ndarray
    """int32 `[T]`; 1 from a pair's second text on, else 0."""
    offsets: np.ndarray
    """int64 `[n + 1]`; text i is `offsets[i]:offsets[i + 1]`."""
    truncated_texts: int
    """Texts (a pair is one) that were cut."""
    truncated_tokens: int
    """Tokens that were cut off, all in all."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text, int64 `[n]`."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Encoded:
        """The texts `rows` in that order; truncation is not counted again."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        source = joined_ranges(self.offsets[rows], lengths)
        return Encoded(self.token_ids[source], self.token_types[source], offsets_of(lengths), 0, 0)

    def __len__(self) -> int:
        return len(self.offsets) - 1


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where each of n texts begins and the last one ends, when one follows the other, int64 `[n + 1]`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def joined_ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers `starts[0], starts[0] + 1, ...`, so many as `sizes[0]`, then those of the next, int64."""
    offsets = offsets_of(sizes)
    return np.asarray(np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes))


class Tokenizer:
    """A tokenizer, which frames texts as its file and its `TextForm` say; special tokens inside a text are text."""

    def __init__(
        self,
        source: Backend,
        *,
        names: Mapping[str, str] | None = None,
        text_form: TextForm = TextForm.BERT,
        notes: Sequence[str] = (),
    ) -> None:
        """Take everything from `source`, which holds what a `tokenizer.json` says.

        Args:
          names: of special tokens, by the keys of `ROLES`, where they may differ from the usual ones.

        Raises:
          UserError: it frames texts in another way than a BERT can use, or cannot give its own tokens.
        """
        source.no_truncation()
        source.no_padding()
        self._source = source.to_str()
        parts = json.loads(self._source)
        unknown = unknown_token(parts)
        self._unk = None if unknown is None else source.token_to_id(unknown)
        added = {token["content"]: token["special"] for token in parts["added_tokens"]}
        self._names = special_names(names or {}, added) | ({"unk_token": unknown} if unknown else {})
        word = check_words(source, own_words(parts, self._names.values()), self._unk)
        self._frames = frames_of(source, word)
        self._special = {piece.token for frame in self._frames for piece in frame or () if piece.text is None}
        framing = {token: str(source.id_to_token(token)) for token in self._special}
        single = self._frames[0]
        self._names |= {"cls_token": framing[single[0].token], "sep_token": framing[single[-1].token]}
        special = {*self._names.values(), *framing.values()} | (USUAL_NAMES & added.keys())
        self._markers = [token for token, is_special in added.items() if is_special and token not in special]
        self._backend = without_special_names(parts, special)
        self.text_form = text_form
        """Where a long text is cut, and whether a [SEP] follows a single one; saved with it."""
        self.notes = tuple(notes)
        """What was decided where the files do not say it, in sentences."""
        self.vocab_size: int = max(source.get_vocab().values()) + 1
        """The highest token id and one."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides which tokens a text becomes: two tokenizers that share it are the same."""
        parts = json.loads(self._source)
        facts = {key: parts[key] for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
        ends = self._frames[0][0].token, self._frames[0][-1].token
        facts["framing"] = [*ends]
        # What follows is added only where it is unusual: then the usual fingerprint is that of older versions.
        if self.text_form is not TextForm.BERT:
            facts["framing"].append(self.text_form.value)
        if self._frames != bert_frames(*ends):
            facts["frames"] = self._frames
        if self._markers:
            facts["markers"] = self._markers
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()

    def encode(
        self, texts: Iterable[Text], *, max_length: int, on_texts: Callable[[int], object] = lambda count: None
    ) -> Encoded:
        """Tokenise `texts`, each cut to at most `max_length` tokens where `TextForm` says.

        Args:
          on_texts: called now and then with the number of texts that were tokenised since its last call.

        Raises:
          UserError: what `checked_texts` raises: not a list of texts and pairs, or a text that is not valid Unicode; or
            a pair, where the tokenizer frames none.
        """
        ids, types, lengths = array("i"), array("i"), array("q")
        truncated_texts = truncated_tokens = 0
        texts = checked_texts(texts)
        for number, (text, parts) in enumerate(zip(texts, self._tokens(texts), strict=True), start=1):
            if number % CHUNK == 0 or number == len(texts):
                on_texts((number - 1) % CHUNK + 1)
            frame, cut = self._frame(len(parts)), sum(map(len, parts))
            length = 0
            for piece, size in zip(frame, self._sizes(frame, [len(part) for part in parts], max_length), strict=True):
                ids.extend([piece.token][:size] if piece.text is None else parts[piece.text][:size])
                types.extend([piece.type] * size)
                length += size
                cut -= 0 if piece.text is None else size
            lengths.append(length)
            truncated_texts += cut > 0 or is_too_long(text)
            truncated_tokens += cut
        offsets = offsets_of(np.array(lengths, np.int64))
        return Encoded(np.array(ids, np.int32), np.array(types, np.int32), offsets, truncated_texts, truncated_tokens)

    def wholly_unknown(self, encoded: Encoded) -> np.ndarray:
        """Whether a text has tokens, and all of them are [UNK], bool `[n]`."""
        if not len(encoded):
            return np.zeros(0, bool)
        unknown = encoded.token_ids == (-1 if self._unk is None else self._unk)
        known = ~unknown & ~np.isin(encoded.token_ids, [*self._special])
        starts = encoded.offsets[:-1]
        return np.logical_or.reduceat(unknown, starts) & ~np.logical_or.reduceat(known, starts)

    def count(self, texts: Sequence[Text]) -> tuple[int, int]:
        """How many tokens texts have without what frames them, and how many of these are [UNK]."""
        tokens = [token for parts in self._tokens(texts) for part in parts for token in part]
        return len(tokens), tokens.count(-1 if self._unk is None else self._unk)

    def save(self, directory: str | Path, *, max_length: int | None = None) -> None:
        """Write the tokenizer's files, in the form that `load_tokenizer` and transformers read.

        Args:
          max_length: where transformers cuts a text; none: nowhere.
        """
        values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}  # which reads tokenizer.json as it is
        values |= {**self._names, TEXT_FORM: self.text_form.value}
        values |= {} if max_length is None else {"model_max_length": max_length}
        has_types = any(piece.type for frame in self._frames if frame for piece in frame)
        values["model_input_names"] = ["input_ids", *["token_type_ids"] * has_types, "attention_mask"]
        # Then transformers takes [SEP] in a text as text, but also what a model was extended with.
        values["split_special_tokens"] = not self._markers
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / PARTS, self._source)
        write_json(directory / SETTINGS, values)

    def _frame(self, texts: int) -> Frame:
        """What stands around one text, or around those of a pair."""
        frame = self._frames[texts - 1]
        if frame is None:
            raise UserError(
                "texts: expected single texts, found a pair: the post_processor in the model's tokenizer.json does not "
                "say how to frame pairs; join the two texts, or add its `pair`"
            )
        return frame[:-1] if texts == 1 and self.text_form is TextForm.OFFICIAL else frame

    def _sizes(self, frame: Frame, lengths: Sequence[int], max_length: int) -> list[int]:
        """How many tokens of each piece of a frame stay."""
        match self.text_form:
            case TextForm.BERT:
                kept = cut_longest_first(lengths, max_length - len(frame) + len(lengths))
                return [1 if piece.text is None else kept[piece.text] for piece in frame]
            case TextForm.OFFICIAL:
                return cut_at_end([1 if piece.text is None else lengths[piece.text] for piece in frame], max_length)
        raise ValueError(f"expected one of {list(TextForm)}, found {self.text_form!r}")

    def _tokens(self, texts: Sequence[Text]) -> Iterator[list[list[int]]]:
        """The tokens of each text: one list, or two for a pair, without special tokens."""
        for chunk in chunks(texts, rows=CHUNK, characters=CHUNK_CHARACTERS):
            parts = [[text] if isinstance(text, str) else list(text) for text in chunk]
            flat = [part[:MOST_CHARACTERS] for both in parts for part in both]
            encodings = iter(self._backend.encode_batch_fast(flat, add_special_tokens=False))
            for both in parts:
                yield [next(encodings).ids for _ in both]


def cut_longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens of one text, or of each of a pair, stay when `room` is all there is.

    What is left after taking one token at a time from the longer text, the second when they are even
    (`truncate_seq_pair` of BERT's `run_classifier.py`).
    """
    room = max(room, 0)
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    first, second = lengths
    if min(first, second) > room // 2:
        return [room - room // 2, room // 2]
    return [room - second, second] if first > second else [first, room - first]


def cut_at_end(sizes: Sequence[int], room: int) -> list[int]:
    """What stays of pieces that follow one another when all after `room` tokens is cut off.

    (`read_dataset` of FastBERT's `run_fastbert.py`, and `_convert_to_id_and_mask` of the package `fastbert`.)
    """
    kept = []
    for size in sizes:
        kept.append(min(size, room))
        room -= kept[-1]
    return kept


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load the tokenizer of a model directory: its `tokenizer.json`, or else BERT's with the tokens of its `vocab.txt`.

    Nothing is fetched, and no code of the directory is run.

    Raises:
      UserError: no tokenizer there, a damaged one, one of another class, one that does not frame texts as a BERT needs
        it or cannot give its own tokens, or of an unknown text form.
    """
    directory = Path(directory)
    path = next((directory / name for name in (PARTS, VOCABULARY) if (directory / name).is_file()), None)
    if path is None:
        raise UserError(
            f"expected a tokenizer ({PARTS} or {VOCABULARY}) in {directory}, found none; add the model's own"
        )
    try:
        settings = json_values(directory / "special_tokens_map.json") | json_values(directory / SETTINGS)
        forms, form = [form.value for form in TextForm], settings.get(TEXT_FORM, TextForm.BERT.value)
        if form not in forms:
            raise UserError(f"{SETTINGS}: {TEXT_FORM}: expected one of {forms}, found {shown(form)}")
        if path.name == PARTS:
            source, notes = Backend.from_file(str(path)), list[str]()
        else:
            source, notes = read_vocabulary(directory, settings)
        notes += add_markers(source, directory, settings, only_new=path.name == PARTS)
        maps = settings.get("auto_map") or ()
        if isinstance(maps, list) or "AutoTokenizer" in maps:
            notes.append(
                f"{directory / SETTINGS} names code of its own (auto_map), which is never run: the tokenizer is what "
                f"{path.name} says"
            )
        return Tokenizer(source, names=given_names(settings), text_form=TextForm(form), notes=notes)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None
    except BaseException as error:  # a panic of the Rust tokenizer is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"expected a tokenizer in {directory}, found one that does not load: {error}") from None


def vocabulary_tokenizer(path: str | Path, *, text_form: TextForm) -> Tokenizer:
    """BERT's tokenizer (lower case, Chinese characters apart) with the tokens of a `vocab.txt`, one a line.

    A line's first word is its token, as UER-py reads it (`Vocab.load`). A line without one counts, but no text has its
    token: such a line is in the Chinese vocabulary of the package `fastbert`.

    Raises:
      UserError: no file of text, a token that is there twice, or a special token that is not.
    """
    try:
        with open(path, encoding="utf-8") as lines:
            tokens = [next(iter(line.split()), f"???{number}") for number, line in enumerate(lines)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a vocabulary, one token a line, found no file of text: {error}") from None
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if missing := [token for token in SPECIAL_TOKENS if token not in vocabulary]:
        raise UserError(f"{path}: expected a vocabulary of BERT, one token a line, found none of {missing} in it")
    if len(vocabulary) < len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        raise UserError(f"{path}: expected each token once, found {twice!r} again in line {vocabulary[twice] + 1}")
    try:
        return Tokenizer(bert_backend(vocabulary), text_form=text_form)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn a WordPiece vocabulary of up to `vocab_size` tokens: lower case, Chinese characters apart, as BERT's.

    Raises:
      UserError: `vocab_size` does not even hold the special tokens.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise UserError(
            f"model.vocab_size: expected more than the {len(SPECIAL_TOKENS)} special tokens, found {vocab_size}"
        )
    texts = list(texts)
    learner = bert_backend({token: number for number, token in enumerate(SPECIAL_TOKENS)})
    alphabet = _alphabet(learner, texts, vocab_size - len(SPECIAL_TOKENS))
    # The trainer numbers characters in the random order of a hash map and breaks ties between merges by these numbers.
    # Handed over as special tokens, in our order, they make the vocabulary the same every time.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        limit_alphabet=0,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return Tokenizer(bert_backend(learner.get_vocab()))


def _alphabet(backend: Any, texts: Iterable[str], room: int) -> list[str]:
    """The most frequent characters as tokens, up to `room`: `c`, and `##c` where it also occurs inside words."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    alphabet: list[str] = []
    characters = sorted(counts, key=lambda character: (-counts[character], character))
    for character in characters:
        forms = [character, f"##{character}"] if character in inside else [character]
        if len(alphabet) + len(forms) > room:
            break
        alphabet += forms
    return alphabet or [character for character in characters if character not in inside][:1]  # none is no tokenizer

"""Texts to token ids: a Hugging Face tokenizer, BERT's framing, and truncation that is counted."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.config import TextForm
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import MOST_CHARACTERS, Text, checked_texts, chunks, is_too_long

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT_FORM = "text_form"
"""The key of the text form in `tokenizer_config.json`."""
NO_NOTICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
"""With this variable transformers does not mention that PyTorch is missing."""
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
    """A BERT tokenizer, which frames texts as its `TextForm` says."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a fast tokenizer of transformers; special tokens inside a text are taken as text.

        Raises:
          ValueError: it names no `TextForm`.
        """
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._cls: int = tokenizer.cls_token_id
        self._sep: int = tokenizer.sep_token_id
        self._unk: int | None = tokenizer.unk_token_id
        self.text_form = TextForm(tokenizer.init_kwargs.get(TEXT_FORM, TextForm.BERT.value))
        """How it frames texts; saved with it."""
        self.vocab_size: int = max(tokenizer.get_vocab().values()) + 1
        """The highest token id and one."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides which tokens a text becomes: two tokenizers that share it are the same."""
        parts = json.loads(self._backend.to_str())
        facts = {key: parts[key] for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
        facts["framing"] = [self._cls, self._sep]
        if self.text_form is not TextForm.BERT:  # the only form of older tokenizers
            facts["framing"].append(self.text_form.value)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()

    def encode(self, texts: Iterable[Text], *, max_length: int) -> Encoded:
        """Tokenise `texts`, each cut to at most `max_length` tokens where `TextForm` says.

        Raises:
          UserError: what `checked_texts` raises: not a list of texts and pairs, or a text that is not valid Unicode.
        """
        ids, types, lengths = array("i"), array("i"), array("q")
        truncated_texts = truncated_tokens = 0
        texts = checked_texts(texts)
        for text, parts in zip(texts, self._tokens(texts), strict=True):
            kept, closed = self._cut([len(part) for part in parts], max_length)
            cut = sum(map(len, parts)) - sum(kept)
            truncated_texts += cut > 0 or is_too_long(text)
            truncated_tokens += cut
            ids.append(self._cls)
            types.append(0)
            for number, (part, count, is_closed) in enumerate(zip(parts, kept, closed, strict=True)):
                ids.extend(part[:count] + [self._sep] * is_closed)
                types.extend([number] * (count + is_closed))
            lengths.append(1 + sum(kept) + sum(closed))
        offsets = offsets_of(np.array(lengths, np.int64))
        return Encoded(np.array(ids, np.int32), np.array(types, np.int32), offsets, truncated_texts, truncated_tokens)

    def wholly_unknown(self, encoded: Encoded) -> np.ndarray:
        """Whether a text has tokens, and all of them are [UNK], bool `[n]`."""
        if not len(encoded):
            return np.zeros(0, bool)
        unknown = encoded.token_ids == self._unk
        known = ~unknown & ~np.isin(encoded.token_ids, (self._cls, self._sep))
        starts = encoded.offsets[:-1]
        return np.logical_or.reduceat(unknown, starts) & ~np.logical_or.reduceat(known, starts)

    def save(self, directory: str | Path) -> None:
        """Write the tokenizer's files, in the form that `load_tokenizer` reads."""
        self._tokenizer.save_pretrained(str(directory))

    def _cut(self, lengths: Sequence[int], max_length: int) -> tuple[list[int], list[bool]]:
        """How many tokens of a text, or of each of a pair, stay, and whether a [SEP] follows them."""
        match self.text_form:
            case TextForm.BERT:
                return cut_longest_first(lengths, max_length - 1 - len(lengths)), [True] * len(lengths)
            case TextForm.OFFICIAL:
                return cut_at_end(lengths, max_length - 1)
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


def cut_at_end(lengths: Sequence[int], room: int) -> tuple[list[int], list[bool]]:
    """What stays of `a`, or of `a [SEP] b [SEP]`, when all after `room` tokens is cut off.

    Returns:
      How many tokens of each text stay, and whether its [SEP] does (`read_dataset` of FastBERT's `run_fastbert.py`, and
      `_convert_to_id_and_mask` of the package `fastbert`).
    """
    if len(lengths) == 1:
        return [min(lengths[0], room)], [False]
    kept, closed = [], []
    for length in lengths:
        kept.append(min(length, room))
        room -= kept[-1]
        closed.append(room > 0)
        room -= closed[-1]
    return kept, closed


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load the tokenizer of a Hugging Face model directory; nothing is fetched, and no code of the directory is run.

    Raises:
      UserError: no tokenizer there, a damaged one, one that needs code of its own, one without [CLS] and [SEP],
        or of an unknown text form.
    """
    directory = Path(directory)
    if not any((directory / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        raise UserError(f"expected a tokenizer (tokenizer.json or vocab.txt) in {directory}, found none")
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(
            str(directory),
            local_files_only=True,
            use_fast=True,
            split_special_tokens=True,
            trust_remote_code=False,  # left open, transformers asks at the terminal
        )
    except Exception as error:  # the Rust tokenizer raises plain Exception on a damaged file
        if "trust_remote_code" in str(error):
            raise UserError(
                f"expected a tokenizer without code in {directory}, found one with code (`auto_map`), "
                "which is never run; use the tokenizer files of a plain BERT"
            ) from None
        raise UserError(f"expected a tokenizer in {directory}, found one that does not load: {error}") from None
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise UserError(
            f"expected a BERT tokenizer with [CLS] and [SEP] in {directory}, found {type(tokenizer).__name__}"
        )
    forms, form = [form.value for form in TextForm], tokenizer.init_kwargs.get(TEXT_FORM, TextForm.BERT.value)
    if form not in forms:
        raise UserError(f"{directory / 'tokenizer_config.json'}: {TEXT_FORM}: expected one of {forms}, found {form!r}")
    return Tokenizer(tokenizer)


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
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(f"{path}: expected a vocabulary of BERT, one token a line, found none of {missing} in it")
    if len(vocabulary) < len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        raise UserError(f"{path}: expected each token once, found {twice!r} again in line {vocabulary[twice] + 1}")
    return Tokenizer(_bert_tokenizer(vocabulary, text_form))


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn a WordPiece vocabulary of up to `vocab_size` tokens: lower case, Chinese characters apart, as BERT's.

    Raises:
      UserError: `vocab_size` does not even hold the special tokens.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise UserError(
            f"model.vocab_size: expected more than the {len(SPECIAL_TOKENS)} special tokens, found {vocab_size}"
        )
    from tokenizers import trainers

    texts = list(texts)
    learner = _bert_tokenizer(None, TextForm.BERT).backend_tokenizer
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
    return Tokenizer(_bert_tokenizer(learner.get_vocab(), TextForm.BERT))


def _bert_tokenizer(vocabulary: dict[str, int] | None, text_form: TextForm) -> Any:
    """BERT's tokenizer (uncased) of transformers; its vocabulary is that of `SPECIAL_TOKENS` where none is given."""
    settings = {TEXT_FORM: text_form.value}
    return _transformers().BertTokenizer(vocab=vocabulary, split_special_tokens=True, **settings)


def _alphabet(backend: Any, texts: Iterable[str], room: int) -> list[str]:
    """The most frequent characters as tokens, up to `room`: `c`, and `##c` where it also occurs inside words."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    alphabet: list[str] = []
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        forms = [character, f"##{character}"] if character in inside else [character]
        if len(alphabet) + len(forms) > room:
            break
        alphabet += forms
    return alphabet


def _transformers() -> Any:
    """The package transformers, without its notice that PyTorch is missing: it is not needed."""
    before = os.environ.get(NO_NOTICE)
    os.environ[NO_NOTICE] = "1"
    try:
        import transformers
    finally:
        if before is None:
            del os.environ[NO_NOTICE]
        else:
            os.environ[NO_NOTICE] = before
    return transformers

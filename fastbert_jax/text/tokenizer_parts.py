"""What a `tokenizer.json` says: its frames, its special tokens, and whether it can give its own tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tokenizers import Tokenizer as Backend
from tokenizers import decoders

from fastbert_jax.errors import UserError

ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": (),
    "eos_token": (),
}
"""What a special token is for, by its key in `tokenizer_config.json` -> its usual names, BERT's first."""
SPECIAL_TOKENS = tuple(names[0] for names in ROLES.values() if names)
"""BERT's."""
USUAL_NAMES = {name for names in ROLES.values() for name in names}
"""Those of special tokens in any model."""
HIDDEN = "\ufdd0"
"""A character that Unicode keeps out of texts."""
PROBES = 5000
"""Tokens of a vocabulary that are tried, at most."""
CHANGED_SHARE = 0.08
"""A normalizer may change so many of a vocabulary's words; of BERT's uncased vocabulary it changes none."""
UNKNOWN_SHARE = 0.9
"""So many may be unknown: a pre-tokenizer may split them, and a limit of their length may leave them out."""


class Piece(NamedTuple):
    """One place of a frame: a special token, or one of the texts."""

    text: int | None
    """The number of the text, 0 or 1; None: a special token."""
    token: int
    """The id of the special token; 0 for a text."""
    type: int
    """The token type of all that stands here."""


Frame = tuple[Piece, ...]
"""A text or a pair with the special tokens around it, such as [CLS] a [SEP] b [SEP]."""


def special_names(given: Mapping[str, str], vocabulary: Collection[str]) -> dict[str, str]:
    """The special tokens of a vocabulary by what they are for: those that are `given` and there, or the usual ones."""
    names = {role: [given.get(role), *usual] for role, usual in ROLES.items()}
    found = {role: next((name for name in those if name in vocabulary), None) for role, those in names.items()}
    return {role: name for role, name in found.items() if name is not None}


def bert_frames(cls: int, sep: int) -> tuple[Frame, Frame]:
    """[CLS] a [SEP], and [CLS] a [SEP] b [SEP] with token type 1 from `b` on."""
    single = (Piece(None, cls, 0), Piece(0, 0, 0), Piece(None, sep, 0))
    return single, (*single, Piece(1, 0, 1), Piece(None, sep, 1))


def frames_of(backend: Backend, word: str) -> tuple[Frame, Frame | None]:
    """How a tokenizer frames one text and a pair; None: it has no frame for pairs that begins as that of a text.

    Args:
      word: a text with tokens.

    Raises:
      UserError: there is no special token before a text, whose answer an exit takes, or none after it; or the
        vocabulary lacks one.
    """
    single, pair = _frame(backend, word), _frame(backend, word, word)
    tokens = {piece.token for piece in (*single, *pair) if piece.text is None}
    if missing := [token for token in sorted(tokens) if backend.id_to_token(token) is None]:
        raise UserError(
            f"expected a post_processor with tokens of the vocabulary, found the ids {missing}, which are of no token; "
            "use the tokenizer files that came with the model"
        )
    if single[0].text is not None or single[-1].text is not None:
        shown = " ".join("text" if piece.text == 0 else str(backend.id_to_token(piece.token)) for piece in single)
        raise UserError(
            f"expected a tokenizer that frames a text as BERT does, [CLS] text [SEP], found one that gives {shown!r}; "
            "use the tokenizer files of a BERT, or add this post_processor to tokenizer.json"
        )
    has_pairs = [piece.text for piece in pair if piece.text is not None] == [0, 1] and pair[0] == single[0]
    return single, pair if has_pairs else None


def _frame(backend: Backend, first: str, second: str | None = None) -> Frame:
    encoding = backend.encode(first, second)
    pieces: list[Piece] = []
    for token, type_, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        if text is None:
            pieces.append(Piece(None, token, type_))
        elif not pieces or pieces[-1].text != text:
            pieces.append(Piece(text, 0, type_))
    return tuple(pieces)


def unknown_token(parts: Mapping[str, Any]) -> str | None:
    """The token that stands for what a vocabulary does not know; None: it knows every byte, or leaves characters out.

    Raises:
      UserError: it needs one that it does not have.
    """
    model = parts["model"]
    if model["type"] == "Unigram":
        unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
        has_it = unknown is not None
    else:
        unknown = model["unk_token"]
        has_it = unknown in model["vocab"] or (model["type"] == "BPE" and unknown is None)
    if not has_it:
        raise UserError(
            f"expected a vocabulary with {unknown or 'an unknown token (unk_id)'}, which stands for words that it does "
            "not know, found none; use the tokenizer files that came with the model"
        )
    return unknown


def own_words(parts: Mapping[str, Any], special: Collection[str]) -> list[str]:
    """Ordinary tokens of a vocabulary that can begin a word, as text; `PROBES` of them where there are more.

    Args:
      special: tokens that no text has.
    """
    model = parts["model"]
    prefix, suffix = (model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix"))
    added = {token["content"] for token in parts["added_tokens"]}
    names = [
        name
        for name in (token if isinstance(token, str) else token[0] for token in model["vocab"])
        if name not in added and name not in special and not (prefix and name.startswith(prefix))
    ]
    sample = names[:: len(names) // PROBES + 1]
    if "ByteLevel" in json.dumps(parts["pre_tokenizer"]):
        decoder = decoders.ByteLevel()
        words = [name for name in sample if len(name) > 1]  # not the bytes, which every vocabulary has
        sample = [decoder.decode([name]) for name in words or sample]
    texts = (name.removesuffix(suffix).replace("▁", " ").strip() for name in sample if not name.startswith("<0x"))
    return [text for text in texts if text]


def check_words(backend: Backend, words: list[str], unknown: int | None) -> str:
    """Check that a tokenizer can give its own words: that its normalizer leaves them, and that it knows them.

    Returns:
      One that it knows.

    Raises:
      UserError: it knows only special tokens, or it can never give many of its words.
    """
    if not words:
        raise UserError(
            "expected a vocabulary, found nothing but special tokens; use the tokenizer files that came with the model"
        )
    # A vocabulary may have any character, even one that its words never have.
    longer = [word for word in words if len(word) > 1]
    changed = [word for word in longer if backend.normalizer and not _is_kept(word, backend)]
    if len(changed) > CHANGED_SHARE * len(longer):
        example = f"{changed[0]!r} to {backend.normalizer.normalize_str(changed[0])!r}"
        raise UserError(
            "expected a normalizer that leaves the vocabulary's words as they are, found one that changes "
            f"{len(changed)} of {len(longer)}, such as {example}, so no text has these tokens; where the vocabulary is "
            "cased, turn lower-casing off (do_lower_case in tokenizer_config.json, lowercase in tokenizer.json), and "
            "where it has accents, set strip_accents to false"
        )
    encodings = dict(zip(words, backend.encode_batch(words, add_special_tokens=False), strict=True))
    lost = [word for word, encoding in encodings.items() if {*encoding.ids} <= {unknown}]
    if len(lost) > UNKNOWN_SHARE * len(words):
        raise UserError(
            f"expected a tokenizer that knows its own words, found one that does not know {len(lost)} of {len(words)}, "
            f"such as {lost[0]!r}: its parts do not belong together; use the tokenizer files that came with the model"
        )
    return next(word for word in words if word not in lost)


def _is_kept(word: str, backend: Backend) -> bool:
    """Whether a normalizer changes nothing but blanks, which a pre-tokenizer may write as ▁."""
    kept, whole = ("".join(text.replace("▁", " ").split()) for text in (backend.normalizer.normalize_str(word), word))
    return kept == whole


def without_special_names(parts: Mapping[str, Any], special: Collection[str]) -> Backend:
    """The same tokenizer, but a text that contains the name of one of the `special` tokens, such as [SEP], is text.

    A vocabulary can give a special token from its letters too, so its name becomes one that no text has. The ids stay.
    """

    def renamed(token: str | None) -> str | None:
        return f"{HIDDEN}{token}" if token in special else token

    model = dict(parts["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed(token): number for token, number in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed(token), score] for token, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = renamed(model["unk_token"])
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & {*special}]
    added = [
        token | {"content": renamed(token["content"]), "normalized": False} if token["content"] in special else token
        for token in parts["added_tokens"]
    ]
    return Backend.from_str(json.dumps({**parts, "model": model, "added_tokens": added, "post_processor": None}))

"""BERT's tokenizer with the vocabulary of a `vocab.txt`, and the settings that files beside it give."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from fastbert_jax.errors import UserError
from fastbert_jax.text.tokenizer_parts import ROLES, special_names

PARTS, VOCABULARY, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
"""The files of a tokenizer in a model's directory."""
BERT_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert")
"""Those tokenizers of transformers that read a vocab.txt as BERT does."""
CASED_SHARE = 0.03
"""With more words with capitals a vocabulary is cased: of bert-base-cased they are 40 %, of uncased ones none."""


def bert_backend(
    vocabulary: Mapping[str, int],
    given: Mapping[str, str] | None = None,
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese_apart: bool = True,
) -> Backend:
    """BERT's tokenizer of a vocabulary.

    Args:
      given: names of special tokens by what they are for, where they may differ from the usual ones.

    Raises:
      UserError: the vocabulary lacks [UNK], [CLS] or [SEP].
    """
    names = special_names(given or {}, vocabulary)
    needed = ("unk_token", "cls_token", "sep_token")
    if missing := [ROLES[role][0] for role in needed if role not in names]:
        raise UserError(
            f"expected a vocabulary with [UNK], [CLS] and [SEP], found none of {missing}: the model has no trained row "
            "for it; use the vocabulary that came with the model, and give other names for these tokens in "
            f"tokenizer_config.json ({', '.join(needed)})"
        )
    unknown, cls, sep = (names[role] for role in needed)
    backend = Backend(models.WordPiece(dict(vocabulary), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=chinese_apart, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(list(names.values()))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
    )
    return backend


def read_vocabulary(directory: Path, settings: dict[str, Any]) -> tuple[Backend, list[str]]:
    """BERT's tokenizer with the tokens of a directory's `vocab.txt`, and what was decided about it."""
    kind = settings.get("tokenizer_class") or json_values(directory / "config.json").get("tokenizer_class")
    if kind and str(kind).removesuffix("Fast").removesuffix("Tokenizer") not in BERT_CLASSES:
        raise UserError(
            f"expected a {PARTS}, found only {VOCABULARY}, BERT's, while the model's tokenizer is of the class {kind}; "
            f"add the {PARTS} that came with the model, or, if {VOCABULARY} is what it was trained with, set "
            f"tokenizer_class to BertTokenizer in {SETTINGS}"
        )
    tokens = (directory / VOCABULARY).read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    notes, lowercase = [], settings.get("do_lower_case")
    if not isinstance(lowercase, bool):
        lowercase = not is_cased(vocabulary)
        if not lowercase:
            notes.append(
                f"{directory / VOCABULARY} has words with capitals, so texts are not lower-cased; do_lower_case in "
                f"{SETTINGS} would say it"
            )
    backend = bert_backend(
        vocabulary,
        given_names(settings),
        lowercase=lowercase,
        strip_accents=settings.get("strip_accents"),
        chinese_apart=settings.get("tokenize_chinese_chars", True),
    )
    return backend, notes


def json_values(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is no file."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(values, dict):
        raise UserError(f"{path.name}: expected a JSON object, found {type(values).__name__}")
    return values


def given_names(settings: dict[str, Any]) -> dict[str, str]:
    """The names of special tokens, by the keys of `ROLES`."""
    return {role: name for role in ROLES if (name := _name(settings.get(role)))}


def _name(token: Any) -> str:
    """The name of a token, which some files give with its properties; empty: none."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else ""


def is_cased(vocabulary: Iterable[str]) -> bool:
    """Whether a WordPiece vocabulary has words with capitals, those of special tokens aside."""
    cases = [token != token.lower() for token in vocabulary if token.lower() != token.upper() and token[0] != "["]
    return sum(cases) > CASED_SHARE * len(cases)


def add_markers(backend: Backend, directory: Path, settings: dict[str, Any], *, only_new: bool) -> list[str]:
    """Add what a model was extended with where files beside its tokenizer name it: tokens that stay whole.

    Args:
      only_new: leave those alone that the tokenizer has already, as other tokens.

    Returns:
      What to say of those that have no row in the model's embedding table.

    Raises:
      UserError: one would get another id than the files say.
    """
    there = (
        backend.get_vocab() if only_new else {token.content for token in backend.get_added_tokens_decoder().values()}
    )
    listed = settings.get("added_tokens_decoder", {})
    numbers = {_name(token): int(number) for number, token in listed.items()}
    numbers |= json_values(directory / "added_tokens.json")
    names = [_name(token) for token in listed.values() if token.get("special")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        tokens = settings.get(key) or ()
        names += map(_name, tokens.values() if isinstance(tokens, dict) else tokens)
    names = [name for name in dict.fromkeys(names) if name not in there]
    for name in sorted(numbers.keys() - there, key=lambda name: numbers[name]):
        backend.add_tokens([AddedToken(name, special=name in names, normalized=name not in names)])
        if (found := backend.token_to_id(name)) != numbers[name]:
            raise UserError(f"expected the added token {name!r} with the id {numbers[name]}, found the id {found}")
    new = [name for name in names if backend.token_to_id(name) is None]
    rows = json_values(directory / "config.json").get("vocab_size")
    without = [] if rows == backend.get_vocab_size() + len(new) else new
    backend.add_special_tokens([name for name in names if name not in without])
    return [f"{directory}: the model has no rows for {without}, so they are read as text"] if without else []

"""A `vocab.txt` without a `tokenizer.json`: what the files beside it say, what the vocabulary says, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.text.vocabulary import is_cased
from tests.text.test_tokenizer_parts import BERT, CASES, LETTERS, WORDS, bert, encoded, saved


def write(directory: Path, *tokens: str, end: str = "\n", **files: dict[str, Any]) -> Path:
    """A `vocab.txt`, and JSON files by their names without an ending."""
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text(end.join([*tokens, ""]), encoding="utf-8", newline="")
    for name, values in files.items():
        (directory / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return directory


def test_a_cased_vocabulary_is_not_lower_cased_and_it_is_said():
    tokenizer = load_tokenizer(CASES / "cased_vocab")
    vocabulary = (CASES / "cased_vocab" / "vocab.txt").read_text("utf-8").split("\n")
    ids, _ = encoded(tokenizer, "The US Apple Film")
    assert [vocabulary[token] for token in ids] == ["[CLS]", "The", "US", "Apple", "Film", "[SEP]"]
    assert len(tokenizer.notes) == 1 and "has words with capitals, so texts are not lower-cased" in tokenizer.notes[0]


def test_what_the_settings_say_of_capitals_needs_no_note(tmp_path):
    cased = [*BERT, *WORDS, *map(str.upper, LETTERS), *map(str.title, WORDS)]
    directory = write(tmp_path, *dict.fromkeys(cased), tokenizer_config={"do_lower_case": False})
    tokenizer = load_tokenizer(directory)
    assert encoded(tokenizer, "A a")[0] == [2, cased.index("A"), cased.index("a"), 3] and not tokenizer.notes
    with pytest.raises(UserError, match=r"such as 'The' to 'the', .*turn lower-casing off \(do_lower_case"):
        load_tokenizer(write(tmp_path, *dict.fromkeys(cased), tokenizer_config={"do_lower_case": True}))
    uncased = load_tokenizer(write(tmp_path, *BERT, *WORDS, tokenizer_config={}))
    assert encoded(uncased, "GOOD") == encoded(uncased, "good") and not uncased.notes


@pytest.mark.parametrize(
    ("words", "cased"),
    [(["the", "good", "##ing"], False), (["The", "good"], True), ([*"书好这本"], False), ([], False)],
)
def test_capitals_of_words_count_and_those_of_special_tokens_do_not(words, cased):
    assert is_cased([*BERT, "[unused1]", "", *words]) is cased


def test_accents_and_chinese_characters_are_what_the_settings_say(tmp_path):
    vocabulary = [*BERT, "书好", *WORDS, *LETTERS, "café"]
    settings = {"strip_accents": False, "tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizerFast"}
    tokenizer = load_tokenizer(write(tmp_path, *vocabulary, tokenizer_config=settings))
    assert encoded(tokenizer, "Café 书好")[0] == [2, vocabulary.index("café"), 5, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_any_system_and_blank_ones_at_the_end(tmp_path, end):
    directory = write(tmp_path, *BERT, "good", "", "", end=end)
    (directory / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + (directory / "vocab.txt").read_bytes())
    tokenizer = load_tokenizer(directory)
    assert (encoded(tokenizer, "good [PAD]")[0][:2], tokenizer.vocab_size) == ([2, 5], 6)


@pytest.mark.parametrize("file", ["tokenizer_config", "config"])
@pytest.mark.parametrize(
    "kind", ["RobertaTokenizer", "BertJapaneseTokenizer", "XLMRobertaTokenizerFast", "MPNetTokenizer"]
)
def test_a_vocabulary_of_another_class_is_refused(tmp_path, file, kind):
    directory = write(tmp_path, *BERT, *WORDS, **{file: {"tokenizer_class": kind}})
    with pytest.raises(UserError, match=rf"expected a tokenizer.json, found only vocab.txt, .* class {kind}; add"):
        load_tokenizer(directory)


def test_the_vocabulary_of_a_class_that_does_not_read_it():
    with pytest.raises(UserError, match="class RobertaTokenizer; add the tokenizer.json that came with the model"):
        load_tokenizer(CASES / "wrong_class")


def test_special_tokens_that_a_vocabulary_lacks(tmp_path):
    with pytest.raises(UserError, match=r"found none of \['\[UNK\]'\]: the model has no trained row for it"):
        load_tokenizer(CASES / "no_unk")
    with pytest.raises(UserError, match=r"found none of \['\[CLS\]', '\[SEP\]'\]"):
        load_tokenizer(write(tmp_path, "[PAD]", "[UNK]", *WORDS))
    without = load_tokenizer(write(tmp_path, *BERT[1:4], *WORDS))  # [PAD] and [MASK] are in no answer
    assert without.vocab_size == 3 + len(WORDS) and encoded(without, "[PAD] the")[0][-2:] == [3, 2]


def test_special_tokens_with_other_names(tmp_path):
    names = {"cls_token": "<c>", "sep_token": {"content": "<e>"}, "unk_token": "<?>"}
    for file in ("special_tokens_map", "tokenizer_config"):
        directory = write(tmp_path / file, "<c>", "<e>", "<?>", *WORDS, **{file: names})
        tokenizer = load_tokenizer(directory)
        assert encoded(tokenizer, ("the 龘", "film <c>"))[0] == [0, 3, 2, 1, 4, *[2] * 3, 1]
        tokenizer.save(tmp_path / "saved")
        assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("beside", ["added_tokens", "tokenizer_config", "names"])
@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_markers_that_only_files_beside_a_tokenizer_name(tmp_path, file, beside):
    vocabulary = [*BERT, *WORDS, *LETTERS]
    number = len({*vocabulary})
    special = {"additional_special_tokens": ["[E1]"]}
    listed = {
        "0": {"content": "[PAD]", "special": True},
        str(number + 1): {"content": "covid19", "special": False},
        str(number): {"content": "[E1]", "special": True},
    }
    files: dict[str, dict] = {
        "added_tokens": {"added_tokens": {"covid19": number + 1, "[E1]": number}, "special_tokens_map": special},
        "tokenizer_config": {"tokenizer_config": {"added_tokens_decoder": listed}},
        "names": {"tokenizer_config": special, "config": {"vocab_size": number + 1}},
    }[beside]
    write(tmp_path, *dict.fromkeys(vocabulary), **files)
    if file == "tokenizer.json":
        saved(bert(*WORDS, *LETTERS), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids, _ = encoded(tokenizer, "the [E1] film")
    assert ids == [2, vocabulary.index("the"), number, vocabulary.index("film"), 3] and not tokenizer.notes
    if beside != "names":
        assert encoded(tokenizer, "COVID19 [PAD]")[0][1] == number + 1 and tokenizer.vocab_size == number + 2


def test_markers_without_a_row_are_text_and_it_is_said(tmp_path):
    names = {"extra_special_tokens": {"start": "[E1]", "end": "good"}}
    tokenizer = load_tokenizer(write(tmp_path, *BERT, *WORDS, tokenizer_config=names, config={"vocab_size": 64}))
    assert tokenizer.vocab_size == 5 + len(WORDS)
    assert encoded(tokenizer, "goodgood")[0] == [2, *[5 + WORDS.index("good")] * 2, 3]
    assert tokenizer.notes == (f"{tmp_path}: the model has no rows for ['[E1]'], so they are read as text",)


def test_a_marker_with_the_id_of_another_row(tmp_path):
    directory = write(tmp_path, *BERT, *WORDS, added_tokens={"[E1]": 99})
    with pytest.raises(UserError, match=r"expected the added token '\[E1\]' with the id 99, found the id"):
        load_tokenizer(directory)


def test_files_beside_it_that_are_damaged(tmp_path):
    for name in ("tokenizer_config", "special_tokens_map", "added_tokens", "config"):
        directory = tmp_path / name
        for content in ("[]", "{", "\xff"):
            shutil.rmtree(directory, ignore_errors=True)
            write(directory, *BERT, *WORDS)
            (directory / f"{name}.json").write_text(content, encoding="latin-1")
            with pytest.raises(UserError, match="expected a JSON object, found list|found one that does not load"):
                load_tokenizer(directory)

"""Corpora named by `data.unlabelled`: what is opened, and what is refused."""

from __future__ import annotations

import pytest

from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.corpora import PreparedCorpus, TextStream, is_corpus, open_corpus
from fastbert_jax.text.prepare import prepare
from fastbert_jax.text.tokenizer import train_tokenizer
from tests.text.corpora import WORDS, preparation, some_texts, write_texts


def test_specs_of_corpora():
    assert is_corpus("prepared:x") and is_corpus("stream:*.txt")
    assert not is_corpus("") and not is_corpus("builtin:reuters_r8") and not is_corpus("a.txt")


def test_a_prepared_corpus_must_fit_the_run(tokenizer, tokenizer_directory, tmp_path):
    prepare(preparation(tokenizer_directory, tmp_path / "corpus", write_texts(tmp_path / "a.txt", 9)))
    spec = f"prepared:{tmp_path / 'corpus'}"
    assert isinstance(open_corpus(DataConfig(unlabelled=spec), tokenizer, steps={"distil.steps": 0}), PreparedCorpus)
    with pytest.raises(UserError, match="made with another"):
        open_corpus(DataConfig(unlabelled=spec), train_tokenizer(WORDS, vocab_size=60), steps={"distil.steps": 0})
    with pytest.raises(UserError, match="expected texts of up to --data.max-length 8"):
        open_corpus(DataConfig(unlabelled=spec, max_length=8), tokenizer, steps={"distil.steps": 0})


def test_a_stream_reads_its_files_again_and_again(tokenizer, tmp_path):
    for number in range(2):
        write_texts(tmp_path / f"{number}.txt", 5, seed=number)
    stream = open_corpus(DataConfig(unlabelled=f"stream:{tmp_path}/*.txt"), tokenizer, steps={"distil.steps": 3})
    assert isinstance(stream, TextStream)
    assert list(stream) == list(stream) == [*some_texts(5, seed=0), *some_texts(5, seed=1)]
    fingerprint = stream.fingerprint
    assert fingerprint.startswith("stream of 2 files, ")
    write_texts(tmp_path / "1.txt", 6, seed=1)
    assert TextStream(f"{tmp_path}/*.txt", DataConfig()).fingerprint != fingerprint


def test_a_stream_needs_steps_and_files(tokenizer, tmp_path):
    path = write_texts(tmp_path / "a.txt", 5)
    with pytest.raises(
        UserError, match=r"Set --distil.steps: the length of .* is unknown.*text.prepare --input '.*a.txt'"
    ):
        open_corpus(DataConfig(unlabelled=f"stream:{path}"), tokenizer, steps={"distil.steps": 0})
    with pytest.raises(UserError, match="data.unlabelled: expected files, found none that match"):
        open_corpus(DataConfig(unlabelled=f"stream:{tmp_path}/*.csv"), tokenizer, steps={"distil.steps": 1})


def test_bad_rows_of_a_stream(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"oil\n\xff\nfell\n")
    with pytest.raises(UserError, match=r"a.txt:2: expected UTF-8, .*--on-bad-row skip"):
        list(TextStream(str(tmp_path / "a.txt"), DataConfig()))
    assert list(TextStream(str(tmp_path / "a.txt"), DataConfig(on_bad_row=BadRow.SKIP))) == ["oil", "fell"]

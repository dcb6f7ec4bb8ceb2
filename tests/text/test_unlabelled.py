"""Corpora named by `data.unlabelled`: what is opened, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.corpora import PreparedCorpus, TextStream, is_corpus, open_corpus
from fastbert_jax.text.labelled_data import read_labelled_data
from fastbert_jax.text.prepare import prepare, words
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


ODD = ["oil", "", "Oil ", "\t", "fell", "\u2603 \u2603", "the bank", "", "the  BANK"]
KEPT = [text for text in ODD if text.strip()]


def write_odd(path):
    path.write_text("".join(f"{text}\n" for text in ODD), encoding="utf-8")
    return path


def test_blank_texts_are_left_out_and_all_oddities_are_counted(tokenizer, tmp_path):
    path = write_odd(tmp_path / "a.txt")
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    data = read_labelled_data(DataConfig(train=str(tmp_path / "train.csv"), unlabelled=str(path)))
    assert [example.text for example in data.unlabelled] == KEPT
    assert [example.where for example in data.unlabelled][1] == f"{path}:3"
    blank = "3 of 9 (33.3 %) {} are blank and are left out"
    repeated = "2 of 6 (33.3 %) {} are copies of earlier ones, blanks and case aside"
    assert [note for note in data.notes if note == blank.format("unlabelled texts")]
    assert [note for note in data.notes if note.startswith(repeated.format("unlabelled texts"))]
    stream = TextStream(str(path), DataConfig())
    assert list(stream) == list(stream) == KEPT
    notes = stream.notes(tokenizer, max_length=8)
    first = "texts at the beginning of the stream"
    assert notes[0] == blank.format(first) and notes[1].startswith(repeated.format(first))
    assert notes[2].startswith(f"1 of 6 (16.7 %) {first} are nothing but [UNK]")


def test_the_blank_texts_of_a_stream_are_told_at_its_end(tmp_path, capsys):
    say_once.cache_clear()
    stream = TextStream(str(write_odd(tmp_path / "a.txt")), DataConfig())
    texts = iter(stream)
    next(texts)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        list(stream)
    told = "--data.unlabelled: 3 of 9 (33.3 %) texts of the stream are blank and are left out\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("shard_texts", [1, 2, 4, 50])
def test_a_prepared_corpus_counts_the_same(tokenizer, tokenizer_directory, tmp_path, shard_texts):
    config = preparation(tokenizer_directory, tmp_path / "c", write_odd(tmp_path / "a.txt"), shard_texts=shard_texts)
    manifest = prepare(config)
    corpus = PreparedCorpus(tmp_path / "c")
    expected = tokenizer.encode(KEPT, max_length=16)
    np.testing.assert_array_equal(corpus.take(np.arange(len(KEPT))).token_ids, expected.token_ids)
    assert [manifest.total(f"{name}_texts") for name in ("blank", "unknown")] == [3, 1]
    assert manifest.total("repeated_texts") == {1: 0, 2: 0, 4: 1, 50: 2}[shard_texts]  # in the same shard
    assert corpus.manifest.notes == manifest.notes
    assert "3 of 9 (33.3 %) unlabelled texts are blank and are left out." in words(manifest)


def test_texts_that_are_all_blank(tmp_path, tokenizer_directory):
    path = tmp_path / "a.txt"
    path.write_text("\n \n\t\n")
    with pytest.raises(UserError, match=r"a\.txt: expected texts, found blank ones; none of the rows"):
        prepare(preparation(tokenizer_directory, tmp_path / "c", path))
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    with pytest.raises(UserError, match=r"--data\.unlabelled: expected texts, found 3 blank ones, the first at .*:1"):
        read_labelled_data(DataConfig(train=str(tmp_path / "train.csv"), unlabelled=str(path)))


def test_a_corpus_of_an_earlier_version_has_no_such_counts(tokenizer_directory, tmp_path):
    prepare(preparation(tokenizer_directory, tmp_path / "c", write_texts(tmp_path / "a.txt", 9)))
    path = tmp_path / "c" / "manifest.json"
    values = json.loads(path.read_text())
    for shard in values["shards"]:
        for name in ("blank_texts", "repeated_texts", "unknown_texts"):
            del shard[name]
    path.write_text(json.dumps(values))
    assert PreparedCorpus(tmp_path / "c").manifest.notes == []

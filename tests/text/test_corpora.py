"""Reading a prepared corpus: any texts in any order, and an error that names the damaged file."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text.corpora import PreparedCorpus
from fastbert_jax.text.prepare import prepare
from fastbert_jax.text.tokenizer import train_tokenizer
from fastbert_jax.text.training_batches import TrainingBatches
from tests.text.corpora import WORDS, preparation, some_texts, write_texts

SHARD = "00000-00001.tokens"
PLACES = "00000-00001.texts"


@pytest.fixture
def directory(tokenizer_directory, tmp_path):
    prepare(preparation(tokenizer_directory, tmp_path / "corpus", write_texts(tmp_path / "a.txt", 130)))
    return tmp_path / "corpus"


def assert_refused(directory, match):
    with pytest.raises(UserError, match=match):
        PreparedCorpus(directory)


def test_texts_can_be_taken_in_any_order(directory, tokenizer):
    corpus = PreparedCorpus(directory)
    rows = np.random.default_rng(0).integers(0, 130, 77)
    texts = some_texts(130)
    expected = tokenizer.encode([texts[row] for row in rows], max_length=16)
    found = corpus.take(rows)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_array_equal(found.token_types, expected.token_types)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert len(corpus.take([])) == 0


def test_batches_do_not_depend_on_where_the_texts_are(directory, tokenizer):
    corpus, encoded = PreparedCorpus(directory), tokenizer.encode(some_texts(130), max_length=16)
    settings = {"batch_size": 8, "epochs": 1, "seed": 3}
    for make in (
        lambda texts: TrainingBatches(texts, None, buckets=(8, 16), **settings),
        lambda texts: TrainingBatches(texts, None, buckets=(16,), pack=True, **settings),
    ):
        for one, other in zip(make(corpus).stream(0), make(encoded).stream(0), strict=True):
            for left, right in zip(one, other, strict=True):
                np.testing.assert_array_equal(left, right)


def test_the_fingerprint_tells_texts_apart(directory, tokenizer_directory, tmp_path):
    prepare(preparation(tokenizer_directory, tmp_path / "other", write_texts(tmp_path / "b.txt", 130, seed=1)))
    here, there = PreparedCorpus(directory).fingerprint, PreparedCorpus(tmp_path / "other").fingerprint
    assert here.startswith("130 texts, sha256 ") and there.startswith("130 texts, sha256 ") and here != there


def test_a_corpus_fits_its_tokenizer_and_no_longer_texts(directory, tokenizer):
    corpus = PreparedCorpus(directory)
    corpus.check(tokenizer, max_length=16)
    with pytest.raises(UserError, match=r"expected a corpus made with this run's tokenizer \(.*prepare it again"):
        corpus.check(train_tokenizer(WORDS, vocab_size=60), max_length=16)
    with pytest.raises(UserError, match=r"up to --data.max-length 15 tokens, found a corpus of up to 16; raise"):
        corpus.check(tokenizer, max_length=15)


@pytest.mark.parametrize("name", [SHARD, PLACES])
def test_files_that_are_gone_empty_or_cut_short_are_named(directory, name):
    path = directory / name
    content = path.read_bytes()
    for broken in (b"", content[: len(content) // 2]):
        path.write_bytes(broken)
        assert_refused(
            directory, rf"{name}: expected {len(content)} bytes, found {len(broken)}; delete it, and the command"
        )
    path.unlink()
    assert_refused(directory, rf"{name}: expected a shard, found nothing; the command that prepared it makes it again")


def with_a_flipped_bit(content, seed):
    place = random.Random(seed).randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :]


def test_every_flipped_bit_of_the_texts_is_found(directory):
    path = directory / SHARD
    content = path.read_bytes()
    for seed in range(50):
        path.write_bytes(with_a_flipped_bit(content, seed))
        corpus = PreparedCorpus(directory)
        with pytest.raises(UserError, match=rf"{SHARD}: expected the texts that were prepared, .* makes it again"):
            corpus.take(np.arange(130))
        corpus.take(np.arange(50))  # the other shards are whole


def test_every_flipped_bit_of_the_places_is_found(directory):
    path = directory / PLACES
    content = path.read_bytes()
    for seed in range(50):
        path.write_bytes(with_a_flipped_bit(content, seed))
        assert_refused(directory, rf"{PLACES}: expected the places of 50 texts, found a changed file; delete it")


def test_places_that_change_while_they_are_in_use_lead_to_no_wrong_text(directory):
    corpus = PreparedCorpus(directory)
    (directory / PLACES).write_bytes((directory / "00000-00000.texts").read_bytes())
    with pytest.raises(UserError, match=rf"{SHARD}: expected the texts that were prepared"):
        corpus.take(np.arange(50, 100))


def test_a_shard_of_other_texts_is_noticed(directory):
    other, shard = directory / "00000-00000.tokens", directory / SHARD
    content = other.read_bytes()[: shard.stat().st_size]
    shard.write_bytes(content.ljust(shard.stat().st_size, b"x"))
    with pytest.raises(UserError, match=rf"{SHARD}: expected the texts that were prepared"):
        PreparedCorpus(directory).take(np.arange(50, 100))


@pytest.mark.parametrize("content", ["", "[]", '{"format": 7}', '{"format": 2, "shards": [{}]}'])
def test_manifests_that_cannot_be_read(directory, content):
    (directory / "manifest.json").write_text(content)
    assert_refused(directory, r"manifest.json: expected the manifest of a corpus, found")


@pytest.mark.parametrize("name", ["../00000-00000", "/etc/00000-00000", "00000-00000/../a", ""])
@pytest.mark.parametrize("file", [False, True])
def test_a_shard_cannot_lead_out_of_the_corpus(directory, name, file):
    values = json.loads((directory / "manifest.json").read_text())
    shard = values["shards"][0]
    shard["files"] = {f"{name}{ending}": next(iter(shard["files"].values())) for ending in (".tokens", ".texts")}
    if not file:
        shard["name"] = name
    (directory / "manifest.json").write_text(json.dumps(values))
    assert_refused(directory, "manifest.json: expected the manifest of a corpus, found a shard with the files")


def test_no_corpus_or_an_unfinished_one(directory, tmp_path):
    assert_refused(
        tmp_path, "expected a prepared corpus, found no manifest.json; make one: python -m fastbert_jax.text"
    )
    values = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(values | {"finished": False}))
    assert_refused(directory, "expected a finished corpus, found one that is being prepared")

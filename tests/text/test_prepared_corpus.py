"""Reading a prepared corpus: any texts in any order, and damage that is told by its file."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text.batches import TrainingBatches
from fastbert_jax.text.corpus_format import from_records, sha256_of, to_records, token_dtype
from fastbert_jax.text.packed_batches import PackedBatches
from fastbert_jax.text.prepare import prepare
from fastbert_jax.text.prepared_corpus import PreparedCorpus
from fastbert_jax.text.tokenizer import train_tokenizer
from tests.text.corpora import WORDS, encode, preparation, some_texts, write_texts

SHARD = "00000-00001.arrayrecord"


@pytest.fixture
def directory(tokenizer_directory, tmp_path):
    prepare(preparation(tokenizer_directory, tmp_path / "corpus", write_texts(tmp_path / "a.txt", 130)))
    return tmp_path / "corpus"


def assert_refused(directory, match):
    with pytest.raises(UserError, match=match):
        PreparedCorpus(directory)


@pytest.mark.parametrize("vocab_size", [2**16, 2**16 + 1])
def test_records_give_back_their_texts(vocab_size):
    dtype = np.dtype(token_dtype(vocab_size))
    texts = encode([2, 9, 3])
    texts.token_ids[-1] = vocab_size - 1
    records = list(to_records(texts, dtype))
    assert [len(record) for record in records] == [dtype.itemsize * length for length in (3, 10, 4)]
    found = from_records(records, texts.lengths, dtype)
    for one, other in ((found.token_ids, texts.token_ids), (found.token_types, texts.token_types)):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.int32
    with pytest.raises(ValueError, match="another length"):
        from_records(records, np.array([2, 8, 3]), dtype)


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
        lambda texts: PackedBatches(texts, None, max_length=16, **settings),
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
    with pytest.raises(UserError, match=r"up to data.max_length = 15 tokens, found a corpus of up to 16; raise"):
        corpus.check(tokenizer, max_length=15)


def test_shards_that_are_gone_empty_or_cut_short_are_named(directory):
    path = directory / SHARD
    content = path.read_bytes()
    for broken in (b"", content[: len(content) // 2]):
        path.write_bytes(broken)
        assert_refused(directory, rf"{SHARD}: expected 131072 bytes, found {len(broken)}; delete it, and the command")
    path.unlink()
    assert_refused(directory, rf"{SHARD}: expected a shard, found nothing; the command that prepared it makes it again")


def test_every_flipped_bit_of_the_texts_is_found(directory):
    path = directory / SHARD
    content = path.read_bytes()
    texts = PreparedCorpus(directory).take(np.arange(130)).token_ids
    records = content[: 2**16].rstrip(b"\0")
    found = 0
    for seed in range(20):
        place = random.Random(seed).randrange(64, len(records))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :])
        try:
            taken = PreparedCorpus(directory).take(np.arange(130)).token_ids
        except UserError as error:
            assert SHARD in str(error) and "makes it again" in str(error)
            found += 1
        else:  # a bit that no text depends on
            np.testing.assert_array_equal(taken, texts)
    assert found


def test_lengths_that_do_not_fit_are_refused(directory):
    path = directory / SHARD.replace("arrayrecord", "lengths.npy")
    lengths = np.load(path)
    for broken in (lengths[:-1], lengths + 1):
        np.save(path, broken)
        assert_refused(directory, r"lengths.npy: expected the lengths of the 50 texts beside it, found a file that was")
    path.unlink()
    assert_refused(directory, r"lengths.npy: expected the lengths of a shard, found No such file")


def test_a_shard_of_other_texts_is_noticed(directory):
    (directory / SHARD).write_bytes((directory / "00000-00000.arrayrecord").read_bytes())
    with pytest.raises(UserError, match=rf"of the lengths that stand beside their shards, found others in .*{SHARD}"):
        PreparedCorpus(directory).take(np.arange(50, 100))


@pytest.mark.parametrize("content", ["", "[]", '{"format": 7}', '{"format": 1, "shards": [{}]}'])
def test_ledgers_that_cannot_be_read(directory, content):
    (directory / "ledger.json").write_text(content)
    assert_refused(directory, r"ledger.json: expected the ledger of a corpus, found")


@pytest.mark.parametrize("name", ["../00000-00000", "/etc/00000-00000", "00000-00000/../a", ""])
def test_a_shard_cannot_lead_out_of_the_corpus(directory, name):
    values = json.loads((directory / "ledger.json").read_text())
    values["shards"][0]["name"] = name
    (directory / "ledger.json").write_text(json.dumps(values))
    assert_refused(directory, "ledger.json: expected the ledger of a corpus, found a shard with the name")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the pickle was run",)


def test_lengths_that_are_a_pickle_are_refused_and_not_run(directory):
    path, ledger = directory / SHARD.replace("arrayrecord", "lengths.npy"), directory / "ledger.json"
    values = json.loads(ledger.read_text())
    np.save(path, np.array([Bomb()] * values["shards"][1]["texts"], dtype=object), allow_pickle=True)
    values["shards"][1]["lengths_sha256"] = sha256_of(path)
    ledger.write_text(json.dumps(values))
    assert_refused(
        directory, r"lengths.npy: expected the lengths of the 50 texts beside it, found a file that was changed"
    )


def test_no_corpus_or_an_unfinished_one(directory, tmp_path):
    assert_refused(tmp_path, "expected a prepared corpus, found no ledger.json; make one: python -m fastbert_jax.text")
    values = json.loads((directory / "ledger.json").read_text())
    (directory / "ledger.json").write_text(json.dumps(values | {"finished": False}))
    assert_refused(directory, "expected a finished corpus, found one that is being prepared")

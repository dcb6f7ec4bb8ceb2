"""The tiny model that tests of inference share. They compile many programs and run each a few times, so XLA optimises
them little.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from tests.inference.saved import save_tiny_model


@pytest.fixture(scope="package", autouse=True)
def quick_compiles() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def predictor(directory: Path) -> Predictor:
    return load(directory)

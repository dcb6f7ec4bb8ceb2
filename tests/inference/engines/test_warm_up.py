"""After a warm-up nothing compiles, whatever the texts, their number and the thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from fastbert_jax.config import ExitConfig
from fastbert_jax.inference.engines.auto import make_engines
from fastbert_jax.inference.plan import full_batch
from tests.inference.models import LAYERS, batch_of, random_texts, tiny_runtime

ROWS, LENGTH = 4, 8


@pytest.mark.slow
def test_nothing_compiles_after_a_warm_up() -> None:
    runtime = tiny_runtime(2, exits=ExitConfig(layers=(2, 4)))
    engines = make_engines([runtime])
    for engine in engines.values():
        engine.warm_up(full_batch(ROWS, LENGTH))
    warm = runtime.compiled_programs
    generator = np.random.default_rng(0)
    for mode, engine in engines.items():
        for seed in range(12):
            batches = [
                batch_of(random_texts(rows, longest=LENGTH, seed=seed), batch_size=rows, length=LENGTH)
                for rows in generator.integers(1, ROWS + 1, generator.integers(1, 6)).tolist()
            ]
            speed = generator.random(LAYERS).astype(np.float32) if seed else 0.0
            assert len(list(engine.run(batches, speed))) == len(batches)
            assert runtime.compiled_programs == warm, mode

"""Whole runs of the tiny model on a few texts, in a directory, stopped where a test asks."""

from __future__ import annotations

import jax
import numpy as np

from fastbert_jax.config import DistilConfig, FineTuneConfig, MeshConfig
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.processes import StopRequest
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.text.training_batches import TrainingBatches
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.loop import Evaluation, Surroundings, run_recipe
from fastbert_jax.training.performance import Meter, Profiler
from fastbert_jax.training.streams import BatchStream, KeptValues
from tests.training import tiny

TEXTS = 22


class Stop(Exception):
    """Stands for a kill."""


class AskedToStop(StopRequest):
    """A signal that was received in the first step."""

    def __init__(self, signal: int) -> None:
        super().__init__()
        self._signal = signal

    def agreed(self) -> int:
        return self._signal


def texts() -> tuple[Encoded, np.ndarray]:
    """Random texts and their labels."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 13, TEXTS)
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    token_ids = generator.integers(1, 30, offsets[-1]).astype(np.int32)
    encoded = Encoded(token_ids, np.zeros_like(token_ids), offsets, truncated_texts=0, truncated_tokens=0)
    return encoded, generator.integers(0, 2, TEXTS).astype(np.int32)


def distil_batches(*, epochs: int, pack: bool, local_rows=None) -> TrainingBatches:
    """Batches of 8 texts, or of 4 rows."""
    encoded, _ = texts()
    shared = {"epochs": epochs, "seed": 1, "local_rows": local_rows}
    if pack:
        return TrainingBatches(encoded, None, buckets=(24,), pack=True, batch_size=4, **shared)
    return TrainingBatches(encoded, None, buckets=(12,), batch_size=8, **shared)


def run(
    directory,
    *,
    scores=None,
    stop_at=None,
    epochs=2,
    fine_tune_epochs=None,
    learning_rate=0.01,
    stop=None,
    save_every=0,
    cache=False,
    pack=False,
    decay_epochs=0,
    profiler=None,
):
    """Run the recipe in `directory`, `epochs` of each phase; stop with `Stop` at the `stop_at`-th dev measurement."""
    first_epochs = epochs if fine_tune_epochs is None else fine_tune_epochs
    fine_tune = FineTuneConfig(epochs=first_epochs, batch_size=8, learning_rate=learning_rate)
    distil = DistilConfig(
        epochs=epochs,
        batch_size=4 if pack else 8,
        learning_rate=learning_rate,
        decay_epochs=decay_epochs,
        cache_teacher=cache,
        pack=pack,
    )
    encoded, labels = texts()
    batches = {
        "fine_tune": TrainingBatches(encoded, labels, buckets=(12,), batch_size=8, epochs=first_epochs, seed=0),
        "distil": distil_batches(epochs=epochs, pack=pack),
    }
    seen = []

    def evaluate(params):
        if stop_at is not None and len(seen) == stop_at:
            raise Stop
        score = scores[len(seen)] if scores else float(jax.tree.leaves(params)[0].sum())
        seen.append((score, jax.tree.map(np.asarray, params)))
        return Evaluation(score=score, values={"score": score}, words=f"score {score}")

    directory.mkdir(exist_ok=True)
    profiler = profiler or Profiler()
    checkpoints = Checkpoints(directory / "checkpoints")
    journal = Journal(directory / "metrics.jsonl")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    kept = KeptValues(directory / "kept", batches["distil"], corpus="texts", classes=2)
    try:
        params = run_recipe(
            tiny.fastbert(tiny.model(), fine_tune=fine_tune, distil=distil),
            {name: BatchStream(each) for name, each in batches.items()} | ({"distil": kept} if cache else {}),
            seed=0,
            surroundings=Surroundings(
                mesh=mesh,
                evaluate=evaluate,
                checkpoints=checkpoints,
                journal=journal,
                meter=Meter(directory / "throughput.jsonl"),
                stop=stop or StopRequest(),
                save_every=save_every,
                profiler=profiler,
            ),
        )
    finally:
        profiler.close()
        journal.close()
        checkpoints.close()
    return params, seen


def same(left, right) -> bool:
    """Whether two trees are equal bit for bit."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)))

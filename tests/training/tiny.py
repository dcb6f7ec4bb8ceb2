"""A tiny FastBERT and tiny batches, shared by the tests of training."""

import jax
import numpy as np

from fastbert_jax.config import BertConfig, DistilConfig, FineTuneConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.recipes.fastbert import fine_tuning, self_distillation
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.recipe import Recipe, Start

CONFIG = BertConfig(
    vocab_size=30, hidden_size=16, num_layers=3, num_heads=2, feed_forward_size=32, max_positions=16, exit_size=8
)


def model(dropout: float = 0.1) -> Bert:
    return Bert(CONFIG, dropout=dropout)


def params(seed: int = 0) -> dict:
    return {"model": Bert(CONFIG).init(jax.random.key(seed))}


def recipe(dropout: float = 0.1, **settings):
    distil = {key: settings.pop(key) for key in ("kl", "noisy_teacher", "cache_teacher") if key in settings}
    fine_tune = FineTuneConfig(**{"learning_rate": 1e-3} | settings)
    return fastbert(model(dropout), fine_tune=fine_tune, distil=DistilConfig(**settings, **distil))


def fastbert(network: Bert, *, fine_tune: FineTuneConfig, distil: DistilConfig) -> Recipe:
    """FastBERT's phases on a network."""
    phases = (fine_tuning(network, fine_tune), *self_distillation(network, distil))
    return Recipe({"model": Start(network)}, phases, "")


def batch(rows: int = 8, length: int = 10, *, seed: int = 0, valid: int | None = None) -> Batch:
    """Random texts of mixed lengths; rows from `valid` on are padding."""
    generator = np.random.default_rng(seed)
    valid = rows if valid is None else valid
    lengths = np.where(np.arange(rows) < valid, generator.integers(3, length + 1, rows), 0)
    text_BxS = (np.arange(length)[None] < lengths[:, None]).astype(np.int32)
    return Batch(
        token_ids_BxS=(generator.integers(1, 30, (rows, length)) * text_BxS).astype(np.int32),
        token_type_BxS=np.zeros((rows, length), np.int32),
        position_BxS=np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        text_BxS=text_BxS,
        cls_BxK=np.zeros((rows, 1), np.int32),
        label_BxK=(generator.integers(0, 2, (rows, 1)) * text_BxS[:, :1]).astype(np.int32),
        valid_BxK=text_BxS[:, :1] == 1,
    )

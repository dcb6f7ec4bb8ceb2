"""Tiny random models whose texts leave at every layer, and batches for them."""

from __future__ import annotations

import functools

import jax
import numpy as np

from fastbert_jax.config import BertConfig, ExitConfig
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Params
from fastbert_jax.text.batches import Batch

LAYERS = 5


def tiny_config(num_classes: int, *, num_layers: int = LAYERS) -> BertConfig:
    """Small enough to compile in a moment; the large init makes texts differ."""
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_layers=num_layers,
        num_heads=2,
        feed_forward_size=32,
        max_positions=32,
        init_std=0.3,
        num_classes=num_classes,
        exit_size=8,
    )


@functools.cache
def _tiny_params(config: BertConfig, seed: int) -> Params:
    params = jax.device_get(Bert(config).init(jax.random.key(seed)))
    batch = batch_of(random_texts(64, longest=16, seed=seed), batch_size=64, length=16)
    logits_LxBxN = np.asarray(jax.jit(Bert(config).trace)(params, batch).exit_logits_LxBxKxN[:, :, 0])
    mean_LxN = logits_LxBxN.mean(1)
    scale_L = np.float32(1 + np.log(config.num_classes)) / (logits_LxBxN - mean_LxN[:, None]).std((1, 2))
    students = params.get("lower_exits", {}).get("classifier")
    if students:
        students["kernel"] = students["kernel"] * scale_L[:-1, None, None]
        students["bias"] = -mean_LxN[:-1] * scale_L[:-1, None]
    teacher = params["last_exit"]["classifier"]
    teacher["kernel"], teacher["bias"] = teacher["kernel"] * scale_L[-1], -mean_LxN[-1] * scale_L[-1]
    return params


def tiny_params(config: BertConfig, *, seed: int = 0) -> Params:
    """Random parameters; each classifier's logits have mean 0 and a spread that gives uncertainties all over [0, 1]."""
    return jax.tree.map(np.copy, _tiny_params(config, seed))


def tiny_runtime(num_classes: int, *, num_layers: int = LAYERS, exits: ExitConfig = ExitConfig()) -> Runtime:  # noqa: B008
    config = tiny_config(num_classes, num_layers=num_layers)
    return Runtime(tiny_params(config), Bert(config), exits=exits)


def random_texts(count: int, *, longest: int, seed: int = 0) -> list[np.ndarray]:
    """Token ids of texts of mixed lengths."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, 30, generator.integers(2, longest + 1)).astype(np.int32) for _ in range(count)]


def batch_of(texts: list[np.ndarray], *, batch_size: int, length: int) -> Batch:
    """One text per row; rows beyond the texts are padding."""
    ids, valid = np.zeros((batch_size, length), np.int32), np.zeros((batch_size, 1), bool)
    text = np.zeros((batch_size, length), np.int32)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        text[row, : len(tokens)] = 1
        valid[row] = True
    nothing = np.zeros((batch_size, 1), np.int32)
    position = np.tile(np.arange(length, dtype=np.int32), (batch_size, 1))
    return Batch(ids, np.zeros_like(ids), position, text, nothing, nothing, valid)

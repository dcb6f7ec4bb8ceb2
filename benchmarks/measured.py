"""What the benchmarks share: the frame of a result, ratios of times, and random models to measure."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.atomic_files import write_json
from fastbert_jax.config import BertConfig, MeshConfig, Precision
from fastbert_jax.config_yaml import to_dict
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.loading import model_directory
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Params
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.model.weights import load_model
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.tokenizer import Encoded, Tokenizer, load_tokenizer
from fastbert_jax.training.recipe import Start
from fastbert_jax.training.step import PlacedStep, TrainState
from fastbert_jax.training.terms import Phase, Tree
from fastbert_jax.version import commit

TOTAL_STEPS = 100_000
"""Of a phase whose steps are timed: more than are, so that its schedule does not end."""
VOCABULARY = 30522
"""Of the English BERTs, MiniLM among them."""


class Model(NamedTuple):
    """One model, for texts and as bare programs."""

    predictor: Predictor
    runtime: Runtime
    params: Params


def publish(values: dict, settings: Any) -> None:
    """Print a result, with what it was measured by and on, and write it to `settings.output` where that is given."""
    result = values | {
        "command": " ".join(["python", *sys.argv]),
        "settings": to_dict(settings),
        "device": device(),
        "jax": jax.__version__,
        "git_commit": commit(),
    }
    print(json.dumps(result, indent=2))
    if settings.output:
        write_json(Path(settings.output), result)


def device() -> str:
    """The device that JAX runs on, in words."""
    return f"{jax.devices()[0].device_kind} ({platform.machine()}, {platform.system()})"


def ratio(times: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of `times` over `others`, repeat by repeat."""
    return dataclasses.asdict(Spread.of([one / other for one, other in zip(times, others, strict=True)]))


def begun(phase: Phase, params: Tree, config: BertConfig) -> tuple[Mapping[str, Any], TrainState, Tree]:
    """A phase's step for each kind of batch as training runs it on one device, its first state, and what is frozen.

    Args:
      params: `{"model": parameters}`; they stay the caller's.
    """
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    network = Bert(config)
    shapes = {"model": Start(network).abstract_params(mesh)}
    placed = PlacedStep(phase, shapes, mesh=mesh, total_steps=TOTAL_STEPS, key=jax.random.key(1))
    state, frozen = placed.begin({"model": jax.tree.map(jnp.array, params["model"])})
    return placed.steps, state, frozen


def random_config(*, layers: int, hidden_size: int) -> BertConfig:
    """A BERT of any size with BERT's proportions: heads 64 wide, and a feed-forward part four times as wide."""
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        num_layers=layers,
        num_heads=max(hidden_size // 64, 1),
        feed_forward_size=4 * hidden_size,
    )


def random_tokens(config: BertConfig, *, texts: int, length: int) -> Encoded:
    """Texts of `length` random tokens."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, texts * length, dtype=np.int32)
    return Encoded(tokens, np.zeros_like(tokens), np.arange(texts + 1) * length, 0, 0)


def trained_model(directory: str) -> Model:
    """A model of `train.py`."""
    path = model_directory(directory)
    params, config, extra = load_model(path)
    settings = {key: extra[key] for key in ("labels", "max_length", "length_buckets")}
    return _model(params, config, load_tokenizer(path), precision=Precision(extra["precision"]), **settings)


def random_model(
    config: BertConfig,
    *,
    lengths: Sequence[int],
    tokenizer: Tokenizer | None = None,
    precision: Precision = Precision.FLOAT32,
) -> Model:
    """Random weights, for texts padded to one of the rising `lengths`."""
    params, sizes = Bert(config).init(jax.random.key(0)), {"max_length": lengths[-1], "length_buckets": lengths}
    return _model(params, config, tokenizer, labels=("a", "b"), precision=precision, **sizes)


def _model(
    params: Params,
    config: BertConfig,
    tokenizer: Tokenizer | None,
    *,
    precision: Precision = Precision.FLOAT32,
    **settings: Any,
) -> Model:
    # One copy for all: programs that take turns on two copies would throw each other's out of the cache.
    params = jax.device_put(params)
    predictor = Predictor(params, config, tokenizer, precision=precision, **settings)
    return Model(predictor, Runtime(params, predictor.network), params)

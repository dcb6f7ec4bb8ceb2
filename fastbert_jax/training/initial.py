"""The parameters that a run starts from, made or read in place: no device and no step holds a whole copy."""

from __future__ import annotations

from pathlib import Path

import jax

from fastbert_jax.config import BertConfig
from fastbert_jax.model.fastbert import Params, init_params
from fastbert_jax.model.weights import load_backbone


def initial_params(architecture: BertConfig, backbone: Path | None, *, seed: int, shardings: Params) -> Params:
    """Random parameters, or pretrained ones for the backbone; every device makes or reads its own part alone.

    The exits that go with a pretrained backbone are those that the seed gives without one.
    """

    def init() -> Params:
        params = init_params(architecture, jax.random.key(seed))
        return params if backbone is None else {part: params[part] for part in params if part != "backbone"}

    made = jax.jit(init, out_shardings={part: shardings[part] for part in jax.eval_shape(init)})()
    if backbone is not None:
        made["backbone"] = load_backbone(backbone, architecture, shardings=shardings["backbone"])
    return made


def abstract_params(architecture: BertConfig, shardings: Params) -> Params:
    """The shapes and shardings of `initial_params`."""
    shapes = jax.eval_shape(lambda: init_params(architecture, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        {part: shardings[part] for part in shapes},
    )

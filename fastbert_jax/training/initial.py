"""The parameters that a run starts from, made or read in place: no device and no step holds a whole copy."""

from __future__ import annotations

import jax

from fastbert_jax.config import BertConfig
from fastbert_jax.model.fastbert import Params, init_params
from fastbert_jax.model.weights import load_backbone, load_params
from fastbert_jax.training.starts import Start


def initial_params(start: Start, *, seed: int, shardings: Params) -> Params:
    """Random parameters, or pretrained ones; every device makes or reads its own part alone.

    New exits on a pretrained backbone are those that the seed gives without one.

    Raises:
      UserError: files that are damaged, or have other tensors.
    """
    if start.directory is not None and start.with_exits:
        return load_params(start.directory, start.config, shardings=shardings)

    def init() -> Params:
        params = init_params(start.config, jax.random.key(seed))
        return params if start.directory is None else {part: params[part] for part in params if part != "backbone"}

    made = jax.jit(init, out_shardings={part: shardings[part] for part in jax.eval_shape(init)})()
    if start.directory is not None:
        made["backbone"] = load_backbone(start.directory, start.config, shardings=shardings["backbone"])
    return made


def abstract_params(architecture: BertConfig, shardings: Params) -> Params:
    """The shapes and shardings of `initial_params`."""
    shapes = jax.eval_shape(lambda: init_params(architecture, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        {part: shardings[part] for part in shapes},
    )

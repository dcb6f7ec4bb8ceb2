"""The optimizer of a phase: AdamW, linear warm-up and decay, clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from fastbert_jax.config import PhaseConfig

EPS = 1e-6
"""Adam's, as in BERT."""
NEVER_DECAYED = frozenset({"bias", "scale"})
"""Last path names of leaves without weight decay: every bias, every LayerNorm."""


def decay_mask(params: optax.Params) -> optax.Params:
    """True for the leaves that weight decay shrinks, told by their names (stacking hides their rank)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in NEVER_DECAYED, params)


def schedule(settings: PhaseConfig, *, total_steps: int) -> optax.Schedule:
    """Linear from 0 to the peak over the warm-up share, then linear to 0 at `total_steps`, where it stays."""
    warmup_steps = round(settings.warmup * total_steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.learning_rate, max(warmup_steps, 1)),
            optax.linear_schedule(settings.learning_rate, 0.0, max(total_steps - warmup_steps, 1)),
        ],
        [warmup_steps],
    )


def scale_by_uncorrected_adam(*, b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam's direction without bias correction (google-research/bert, `AdamWeightDecayOptimizer`)."""

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            jnp.zeros((), jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        )

    def update(updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None) -> tuple:
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        direction = jax.tree.map(lambda first, second: first / (jnp.sqrt(second) + EPS), mu, nu)
        return direction, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)


def multiply_rates(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the updates below each path of `rates`, `source/part`, by its number; the rest stays as it is."""

    def multiply(path: tuple, update: jax.Array) -> jax.Array:
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        found = [rate for above, rate in rates.items() if f"{place}/".startswith(f"{above}/")]
        return update * math.prod(found)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(multiply, updates))


def make_optimizer(
    settings: PhaseConfig, *, total_steps: int, rates: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) as the settings ask.

    Args:
      total_steps: where the learning rate comes to 0.
      rates: multipliers of the learning rate by path, as in `Phase.trainable`.
    """
    steps = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    rate = schedule(settings, total_steps=total_steps)
    if settings.bias_correction:
        steps.append(optax.adamw(rate, eps=EPS, weight_decay=settings.weight_decay, mask=decay_mask))
    else:
        decay = optax.add_decayed_weights(settings.weight_decay, decay_mask)
        steps += [scale_by_uncorrected_adam(), decay, optax.scale_by_learning_rate(rate)]
    steps.append(multiply_rates(rates or {}))
    chain = optax.chain(*steps)

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params) -> tuple:
        # Optax raises float rates to integer steps, which strict promotion (our tests, some users) refuses.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)

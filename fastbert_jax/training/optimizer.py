"""The optimizer of a phase: AdamW with linear warm-up and decay and clipping; each trained path has a state of its own.

So a batch steps only what its case trains: the moments and the count of all other paths stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from fastbert_jax.config import PhaseConfig
from fastbert_jax.training.terms import Rate, Tree, merge

EPS = 1e-6
"""Adam's, as in BERT."""
NEVER_DECAYED = frozenset({"bias", "scale"})
"""Last path names of leaves without weight decay: every bias, every LayerNorm."""
States = dict[str, Any]
"""The state of optax for each trained path, with `.` for `/`."""


def decay_mask(params: optax.Params) -> optax.Params:
    """True for the leaves that weight decay shrinks, by their names (stacking hides their rank)."""
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

    def update(
        updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        direction = jax.tree.map(lambda first, second: first / (jnp.sqrt(second) + EPS), mu, nu)
        return direction, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)


def at_path(tree: Tree, path: str) -> Tree:
    """The subtree at a path such as `model/backbone`."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) as the settings ask."""

    settings: PhaseConfig
    total_steps: int
    """Where the learning rate comes to 0."""

    @property
    def direction(self) -> optax.GradientTransformation:
        """The step before the learning rate."""
        adam = optax.scale_by_adam(eps=EPS) if self.settings.bias_correction else scale_by_uncorrected_adam()
        return optax.chain(adam, optax.add_decayed_weights(self.settings.weight_decay, decay_mask))

    def init(self, trained: Tree, paths: Iterable[str]) -> States:
        """The states before the first step of a phase that trains these paths."""
        return {_key(path): self.direction.init(at_path(trained, path)) for path in paths}

    def update(
        self, gradients: Tree, states: States, params: Tree, *, step: jax.Array, rates: Mapping[str, Rate]
    ) -> tuple[Tree, States]:
        """One step of the paths in `rates`: their new parameters, and all states.

        Args:
          gradients, params: trees of these paths alone.
          step: steps of the phase that are done.
          rates: by path, what the learning rate is multiplied by, as in `Case.trains`.
        """
        if self.settings.clip_norm:
            gradients, _ = optax.clip_by_global_norm(self.settings.clip_norm).update(gradients, optax.EmptyState())
        updated, states = [], dict(states)
        # Optax raises float rates to integer steps, which strict promotion (our tests, some users) refuses.
        with jax.numpy_dtype_promotion("standard"):
            rate = schedule(self.settings, total_steps=self.total_steps)(step)
            for path, multiplier in rates.items():
                below = at_path(params, path)
                direction, states[_key(path)] = self.direction.update(
                    at_path(gradients, path), states[_key(path)], below
                )
                factor = -rate * jnp.asarray(multiplier(step) if callable(multiplier) else multiplier)
                moved = jax.tree.map(lambda leaf, way, factor=factor: leaf + _lead(factor, way) * way, below, direction)
                updated.append(flax.traverse_util.unflatten_dict({tuple(path.split("/")): moved}))
        return merge(*updated), states


def _key(path: str) -> str:
    return path.replace("/", ".")


def _lead(factor: jax.Array, like: jax.Array) -> jax.Array:
    """A factor for each layer of a stacked leaf, or one for all of it, with axes to multiply the leaf by."""
    return factor.reshape(*factor.shape, *(1,) * (like.ndim - factor.ndim)).astype(like.dtype)

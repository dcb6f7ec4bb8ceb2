"""The pure functions of training: state, and one optimizer step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastbert_jax.text.batches import Batch
from fastbert_jax.training.recipe import Phase, Tree, loss_sums


class TrainState(NamedTuple):
    """What a step changes. Frozen parameters are not in it."""

    step: jax.Array
    """Steps done in this phase, int32 scalar."""
    trained: Tree
    opt_state: optax.OptState


class StepMetrics(NamedTuple):
    """What a step tells, all float32."""

    loss: jax.Array
    """Mean over the batch's texts, before the step."""
    terms: dict[str, jax.Array]
    """Each term's mean, one value per exit where the term has several."""
    gradient_norm: jax.Array
    """Global norm before clipping."""


def init_state(trained: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before a phase's first step."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Batch,
    *,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """One optimizer step on one batch, computed in `phase.settings.accumulate` parts.

    Gradients of sums are added over the parts and divided by the number of texts once, so the parts may hold unequal
    numbers of valid texts. Dropout depends on (`key`, step, part) alone.
    """
    parts = phase.settings.accumulate
    key = jax.random.fold_in(key, state.step)
    batches = jax.tree.map(lambda array: jnp.asarray(array).reshape(parts, -1, *array.shape[1:]), batch)

    def part_sums(index: int | jax.Array) -> tuple:
        part = jax.tree.map(lambda array: array[index], batches)
        return jax.value_and_grad(loss_sums, has_aux=True)(
            state.trained, frozen, phase, part, step=state.step, key=jax.random.fold_in(key, index)
        )

    if parts == 1:
        sums = part_sums(0)
    else:
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(part_sums, 0))
        sums = jax.lax.fori_loop(0, parts, lambda i, total: jax.tree.map(jnp.add, total, part_sums(i)), zeros)
    texts = jnp.maximum(batch.valid_BxK.sum(), 1).astype(jnp.float32)
    (loss, terms), gradients = jax.tree.map(lambda value: value / texts, sums)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    return TrainState(state.step + 1, trained, opt_state), StepMetrics(loss, terms, optax.tree.norm(gradients))

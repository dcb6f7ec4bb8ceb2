"""The pure functions of training: state, and one optimizer step."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fastbert_jax.model.sharding import sharding_of
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.optimizer import make_optimizer
from fastbert_jax.training.recipe import Known, Phase, Tree, loss_sums, split


class TrainState(NamedTuple):
    """What a step changes. Frozen parameters are not in it."""

    step: jax.Array
    """Steps done in this phase, int32 scalar."""
    trained: Tree
    opt_state: optax.OptState


class StepMetrics(NamedTuple):
    """What a step tells, all float32; numbers of the whole batch, wherever its rows are."""

    loss: jax.Array
    """Mean over the batch's texts, before the step."""
    terms: dict[str, jax.Array]
    """Each term's mean, one value per exit where the term has several."""
    gradient_norm: jax.Array
    """Global norm before clipping."""
    texts: jax.Array
    """Texts of the batch."""
    tokens: jax.Array
    """Their tokens, padding left out."""
    kept_BxKxN: jax.Array | None = None
    """What the phase's shortcut needs of each text at later epochs; none without one, or where it was taken."""


def init_state(trained: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before a phase's first step."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


class PlacedStep(NamedTuple):
    """A phase's step on a mesh: compiled when it is first called, its state and batches shared out."""

    step: Any
    """(state, frozen, batch, known) -> state, metrics, as `train_step`; it gives the old state's buffers away. Called
    under `jax.set_mesh`."""
    optimizer: optax.GradientTransformation
    trainable: tuple[str, ...]
    """Paths of the subtrees that the state holds."""
    state: TrainState
    """Abstract arrays: what the phase changes."""
    frozen: Tree
    """Abstract arrays: what it does not."""

    def begin(self, params: Tree) -> tuple[TrainState, Tree]:
        """The state before the first step, and what is frozen; `params` are this phase's from now on."""
        trained, frozen = split(params, self.trainable)
        init = functools.partial(init_state, optimizer=self.optimizer)
        return jax.jit(init, donate_argnums=0, out_shardings=shardings_of(self.state))(trained), frozen


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree's (abstract) arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def placed_step(phase: Phase, shapes: Tree, *, mesh: Mesh, total_steps: int, key: jax.Array) -> PlacedStep:
    """The step of a phase whose learning rate comes to 0 at `total_steps`.

    Args:
      shapes: of all parameters `{source: tree}`, as abstract arrays with their shardings.
    """
    optimizer = make_optimizer(phase.settings, total_steps=total_steps, rates=phase.trainable)
    trained, frozen = split(shapes, phase.trainable)
    whole = sharding_of(mesh, ())
    state = abstract_state(trained, optimizer, whole=whole)
    step = functools.partial(train_step, phase=phase, optimizer=optimizer, key=key)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings_of(state), whole))
    return PlacedStep(jitted, optimizer, tuple(phase.trainable), state, frozen)


def abstract_state(
    trained: Tree, optimizer: optax.GradientTransformation, *, whole: jax.sharding.Sharding
) -> TrainState:
    """The shapes and shardings of `init_state`: the optimizer's moments lie where their parameters do.

    Args:
      trained: abstract arrays with shardings.
      whole: the sharding of numbers that every device has.
    """

    def placed(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.eval_shape(lambda trained: init_state(trained, optimizer), trained)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda leaf, param: placed(leaf, param.sharding),
        state.opt_state,
        trained,
        transform_non_params=lambda leaf: placed(leaf, whole),
    )
    return TrainState(placed(state.step, whole), trained, opt_state)  # type: ignore[arg-type]


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Batch,
    known: Known | None = None,
    *,
    phase: Phase,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """One optimizer step on one batch and what is known of it, computed in `phase.settings.accumulate` parts.

    Gradients of sums are added over the parts and divided by the number of texts once, so the parts may hold unequal
    numbers of valid texts. Dropout depends on (`key`, step, part) alone.
    """
    parts = phase.settings.accumulate
    key = jax.random.fold_in(key, state.step)
    # Part i is every row i, i + parts, ...: so each device that shares the batch has rows of every part.
    batches = jax.tree.map(lambda array: jnp.asarray(array).reshape(-1, parts, *array.shape[1:]), (batch, known))

    def part_sums(index: int | jax.Array) -> tuple[tuple, jax.Array | None]:
        part = jax.tree.map(lambda array: array[:, index], batches)
        (loss, shown), gradients = jax.value_and_grad(loss_sums, has_aux=True)(
            state.trained, frozen, phase, *part, step=state.step, key=jax.random.fold_in(key, index)
        )
        return ((loss, shown.sums), gradients), shown.kept_BxKxN

    def add_part(total: tuple, index: jax.Array) -> tuple[tuple, jax.Array | None]:
        sums, kept = part_sums(index)
        return jax.tree.map(jnp.add, total, sums), kept

    if parts == 1:
        sums, kept_BxKxN = part_sums(0)
    else:
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(part_sums, 0)[0])
        sums, kept = jax.lax.scan(add_part, zeros, jnp.arange(parts))
        kept_BxKxN = jax.tree.map(lambda array: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]), kept)
    texts = batch.valid_BxK.sum().astype(jnp.float32)
    tokens = (batch.text_BxS > 0).sum().astype(jnp.float32)
    (loss, terms), gradients = jax.tree.map(lambda value: value / jnp.maximum(texts, 1.0), sums)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    metrics = StepMetrics(loss, terms, optax.tree.norm(gradients), texts, tokens, kept_BxKxN)
    return TrainState(state.step + 1, trained, opt_state), metrics

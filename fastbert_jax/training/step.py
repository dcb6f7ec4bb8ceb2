"""The pure functions of training: state, and one optimizer step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fastbert_jax.model.sharding import sharding_of
from fastbert_jax.training.optimizer import Optimizer, States, at_path
from fastbert_jax.training.terms import Case, Phase, Tree, Views, case_loss, counts_of, merge, split


class TrainState(NamedTuple):
    """What a step changes. Frozen parameters are not in it."""

    step: jax.Array
    """Steps done in this phase, int32 scalar."""
    trained: Tree
    opt_state: States


class StepMetrics(NamedTuple):
    """The numbers of a step, all float32, of the whole batch, whatever device its rows are on."""

    loss: jax.Array
    """Before the step."""
    terms: dict[str, jax.Array]
    """Each term's mean, one value per exit where the term has several."""
    gradient_norm: jax.Array
    """Global norm before clipping."""
    texts: jax.Array
    """Texts of the batch."""
    tokens: jax.Array
    """Their tokens, padding left out."""
    kept_BxKxN: jax.Array | None = None
    """What the case keeps of each text for later epochs; None where it keeps nothing."""


def init_state(trained: Tree, optimizer: Optimizer, phase: Phase) -> TrainState:
    """The state before a phase's first step."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained, phase.trains))


class PlacedStep(NamedTuple):
    """A phase's step on a mesh: compiled when it is first called, its state and batches shared out."""

    steps: Mapping[str, Any]
    """By the kind of a batch: (state, frozen, views) -> state, metrics, as `train_step`; it gives the old state's
    buffers away. Called under `jax.set_mesh`."""
    optimizer: Optimizer
    phase: Phase
    state: TrainState
    """Abstract arrays: what the phase changes."""
    frozen: Tree
    """Abstract arrays: what it does not."""

    def begin(self, params: Tree) -> tuple[TrainState, Tree]:
        """The state before the first step, and what is frozen; `params` are this phase's from now on."""
        trained, frozen = split(params, self.phase.trains)
        init = functools.partial(init_state, optimizer=self.optimizer, phase=self.phase)
        state = jax.jit(init, donate_argnums=0, out_shardings=shardings_of(self.state))(trained)
        return state, frozen


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree's (abstract) arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def placed_step(phase: Phase, shapes: Tree, *, mesh: Mesh, total_steps: int, key: jax.Array) -> PlacedStep:
    """The step of a phase whose learning rate comes to 0 at `total_steps`.

    Args:
      shapes: of all parameters `{source: tree}`, as abstract arrays with their shardings.
    """
    optimizer = Optimizer(phase.settings, total_steps)
    trained, frozen = split(shapes, phase.trains)
    whole = sharding_of(mesh, ())
    state = abstract_state(trained, optimizer, phase, whole=whole)
    steps = {}
    for kind, case in phase.cases.items():
        step = functools.partial(
            train_step, case=case, optimizer=optimizer, accumulate=phase.settings.accumulate, key=key
        )
        steps[kind] = jax.jit(step, donate_argnums=0, out_shardings=(shardings_of(state), whole))
    return PlacedStep(steps, optimizer, phase, state, frozen)


def abstract_state(trained: Tree, optimizer: Optimizer, phase: Phase, *, whole: jax.sharding.Sharding) -> TrainState:
    """The shapes and shardings of `init_state`: the optimizer's moments lie where their parameters do.

    Args:
      trained: abstract arrays with shardings.
      whole: the sharding of numbers that every device has.
    """

    def placed(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def placed_states(path: str, states: Any) -> Any:
        return optax.tree_map_params(
            optimizer.direction,
            lambda leaf, param: placed(leaf, param.sharding),
            states[path.replace("/", ".")],
            at_path(trained, path),
            transform_non_params=lambda leaf: placed(leaf, whole),
        )

    state = jax.eval_shape(lambda trained: init_state(trained, optimizer, phase), trained)
    opt_state = {path.replace("/", "."): placed_states(path, state.opt_state) for path in phase.trains}
    return TrainState(placed(state.step, whole), trained, opt_state)  # type: ignore[arg-type]


def train_step(
    state: TrainState,
    frozen: Tree,
    views: Views,
    *,
    case: Case,
    optimizer: Optimizer,
    accumulate: int,
    key: jax.Array,
) -> tuple[TrainState, StepMetrics]:
    """One optimizer step on one batch, computed in `accumulate` parts.

    Each part's loss is its share of the whole batch's, and gradients are added over the parts, so the parts may hold
    unequal numbers of texts. What the case does not train keeps its parameters and its optimizer state. Dropout depends
    on (`key`, step, part) alone.
    """
    key = jax.random.fold_in(key, state.step)
    trained, resting = split(state.trained, case.trains)
    counts, frozen = counts_of(case, views), merge(resting, frozen)
    # Part i is every row i, i + parts, ...: so each device that shares the batch has rows of every part.
    parts = jax.tree.map(lambda array: jnp.asarray(array).reshape(-1, accumulate, *array.shape[1:]), views)

    def run_part(index: int | jax.Array) -> tuple[Any, jax.Array | None]:
        part = jax.tree.map(lambda array: array[:, index], parts)
        (loss, (terms, kept)), gradients = jax.value_and_grad(case_loss, has_aux=True)(
            trained, frozen, case, part, counts, step=state.step, key=jax.random.fold_in(key, index)
        )
        return (loss, terms, gradients), kept

    def add_part(total: Any, index: jax.Array) -> tuple[Any, jax.Array | None]:
        sums, kept = run_part(index)
        return jax.tree.map(jnp.add, total, sums), kept

    if accumulate == 1:
        (loss, terms, gradients), kept_BxKxN = run_part(0)
    else:
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(run_part, 0)[0])
        (loss, terms, gradients), kept = jax.lax.scan(add_part, zeros, jnp.arange(accumulate))
        kept_BxKxN = jax.tree.map(lambda array: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]), kept)

    moved, opt_state = optimizer.update(gradients, state.opt_state, trained, step=state.step, rates=case.trains)
    batch = views["batch"]
    texts = jnp.asarray(batch.valid_BxK).sum().astype(jnp.float32)
    tokens = (jnp.asarray(batch.text_BxS) > 0).sum().astype(jnp.float32)
    metrics = StepMetrics(loss, terms, optax.tree.norm(gradients), texts, tokens, kept_BxKxN)
    return TrainState(state.step + 1, merge(moved, resting), opt_state), metrics

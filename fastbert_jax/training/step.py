"""One optimizer step as pure functions: the state, AdamW with linear warm-up and decay and clipping, and the gradient.

Each trained path has an optimizer state of its own. So a batch steps only what its case trains: the moments and the
count of all other paths stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fastbert_jax.config import PhaseConfig
from fastbert_jax.model.sharding import sharding_of
from fastbert_jax.training.terms import Case, Phase, Rate, Tree, Views, case_loss, counts_of, merge, split

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
    """Linear from 0 to the peak over the warm-up share, then linear to 0 at `total_steps`, where it stays.

    Raises:
      ValueError: a learning rate that is still left to the backbone, see `PhaseConfig.chosen`.
    """
    if not settings.learning_rate:
        raise ValueError(f"{settings.SECTION}.learning_rate: expected one that is chosen, found 0")
    warmup_steps = round(settings.warmup * total_steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, settings.learning_rate, max(warmup_steps, 1)),
            optax.linear_schedule(settings.learning_rate, 0.0, max(total_steps - warmup_steps, 1)),
        ],
        [warmup_steps],
    )


def scale_by_uncorrected_adam() -> optax.GradientTransformation:
    """Adam's direction without bias correction (google-research/bert, `AdamWeightDecayOptimizer`)."""
    adam = optax.scale_by_adam(eps=EPS)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        _, state = adam.update(updates, state, params)
        return jax.tree.map(lambda first, second: first / (jnp.sqrt(second) + EPS), state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


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


class PlacedStep:
    """A phase's step on a mesh: compiled when it is first called, its state and batches shared out."""

    def __init__(self, phase: Phase, shapes: Tree, *, mesh: Mesh, total_steps: int, key: jax.Array) -> None:
        """Compile nothing yet.

        Args:
          shapes: of all parameters `{source: tree}`, as abstract arrays with their shardings.
          total_steps: where the learning rate comes to 0.
          key: of dropout.
        """
        self._phase, self._optimizer = phase, Optimizer(phase.settings, total_steps)
        trained, self.frozen = split(shapes, phase.trains)
        """`frozen`: abstract arrays of what the phase does not change."""
        whole = sharding_of(mesh, ())
        self.state = self._abstract_state(trained, whole)
        """Abstract arrays of what the phase changes."""
        settings: dict[str, Any] = {"optimizer": self._optimizer, "accumulate": phase.settings.accumulate, "key": key}
        self.steps: Mapping[str, Any] = {
            kind: jax.jit(
                functools.partial(train_step, case=case, **settings),
                donate_argnums=0,
                out_shardings=(shardings_of(self.state), whole),
            )
            for kind, case in phase.cases.items()
        }
        """By the kind of a batch: (state, frozen, views) -> state, metrics, as `train_step`; it gives the old state's
        buffers away. Called under `jax.set_mesh`."""

    def _abstract_state(self, trained: Tree, whole: jax.sharding.Sharding) -> TrainState:
        """The optimizer's moments lie where their parameters do; `whole` is the sharding of what every device has."""

        def placed(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        def placed_states(path: str, states: Any) -> Any:
            return optax.tree_map_params(
                self._optimizer.direction,
                lambda leaf, param: placed(leaf, param.sharding),
                states[_key(path)],
                at_path(trained, path),
                transform_non_params=lambda leaf: placed(leaf, whole),
            )

        state = jax.eval_shape(functools.partial(init_state, optimizer=self._optimizer, phase=self._phase), trained)
        opt_state = {_key(path): placed_states(path, state.opt_state) for path in self._phase.trains}
        return TrainState(placed(state.step, whole), trained, opt_state)  # type: ignore[arg-type]

    def begin(self, params: Tree) -> tuple[TrainState, Tree]:
        """The state before the first step, and what is frozen; `params` are this phase's from now on."""
        trained, frozen = split(params, self._phase.trains)
        init = functools.partial(init_state, optimizer=self._optimizer, phase=self._phase)
        state = jax.jit(init, donate_argnums=0, out_shardings=shardings_of(self.state))(trained)
        return state, frozen


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree's (abstract) arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


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

"""Training as data: sources give traces, terms compare them, cases run batches, phases train.

A *trace* is the output of one forward pass (any named tuple, such as `model.network.Trace`). A *source* makes a trace
from its parameters and from the traces before it. The views of a batch are the first traces: `batch` is its texts and
labels, so hard labels are nothing special. A *term* is loss(student ref, stop_gradient(target ref)); where both refs
name one source, that is self-distillation. A *case* runs the batches of one *kind*: those whose targets are known from
an earlier epoch, say, or those of one task among several. The loop, the step and the checkpoints know no recipe.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

from fastbert_jax.config import PhaseConfig

Tree = dict[str, Any]
Views = Mapping[str, Any]
"""Named tuples of host arrays with rows first, by name; `batch` is always among them."""
Source = Callable[[Tree, Mapping[str, Any], jax.Array], Any]
"""(this source's parameters, the views and the traces before it, dropout key) -> trace. The parameters of a source that
has none are `{}`."""
Rate = float | Callable[[jax.Array], jax.Array]
"""A number, or a function of the phase's step; an array `[L]` gives each layer of a stacked part a rate of its own."""


@dataclasses.dataclass(frozen=True)
class Ref:
    """A place in a view or a trace: `Ref("model", "logits_BxKxN")`."""

    source: str
    field: str
    index: Any = None
    """Picks places along the first axis, such as layers: `[3, 6, 9, 12]`; None: all."""

    def resolve(self, traces: Mapping[str, Any]) -> jax.Array:
        """The array this points at."""
        array: jax.Array = getattr(traces[self.source], self.field)
        return array if self.index is None else jnp.asarray(array)[jnp.asarray(self.index)]


VALID = Ref("batch", "valid_BxK")
"""The texts of a batch."""


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of a loss: the mean of `loss(student, stop_gradient(target))` over what `over` counts, times `weight`.

    The loss gives `[..., *over's axes]`. Axes before those of `over` (exits, layers) are summed, unweighted, and logged
    one by one.
    """

    name: str
    student: Ref
    target: Ref
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    weight: Rate = 1.0
    over: Ref = VALID
    """Counts where it is not 0. It points into a view, so that the count of the whole batch is known before gradient
    accumulation cuts it."""

    def sums(self, traces: Mapping[str, Any]) -> jax.Array:
        """The loss summed over what counts; axes before those of `over` stay. Values that do not count add exactly 0.

        Raises:
          ValueError: the loss has other axes than `over`.
        """
        values = self.loss(self.student.resolve(traces), jax.lax.stop_gradient(self.target.resolve(traces)))
        counts = jnp.asarray(self.over.resolve(traces)).astype(bool)
        if values.shape[values.ndim - counts.ndim :] != counts.shape:
            raise ValueError(
                f"term {self.name}: expected a loss of shape [..., {str(counts.shape)[1:-1]}], as over={self.over} "
                f"has, found {values.shape}"
            )
        counted = jnp.expand_dims(counts, tuple(range(values.ndim - counts.ndim)))
        return jnp.where(counted, values, 0.0).sum(tuple(range(-counts.ndim, 0)))

    def count(self, views: Views) -> jax.Array:
        """What the sum is divided by: the number of values that count in these views, at least 1."""
        number = jnp.asarray(self.over.resolve(views)).astype(bool).sum()
        return jnp.maximum(number, 1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """How the batches of one kind run."""

    sources: Mapping[str, Source]
    """In the order they run; each sees the traces before it."""
    terms: tuple[Term, ...]
    trains: Mapping[str, Rate]
    """Paths of the subtrees that train, `source/part`, and what their learning rate is multiplied by. All else is
    frozen."""
    row_flops: Callable[[int, int], float]
    """FLOPs of a step's arithmetic on one row: (tokens, room for texts) -> FLOPs, to tell the use of the devices."""
    keeps: Ref | None = None
    """What a step hands out to be kept for later epochs, `[B, K, N]`; the same for a text whenever it is computed."""


class Keep(enum.Enum):
    """Which step's parameters a phase hands on."""

    BEST = "best"
    LAST = "last"


COMPUTED, KEPT = "computed", "kept"
"""Kinds of batches: all is computed, or what an earlier epoch kept comes as the view `kept`."""


class Kept(NamedTuple):
    """The view `kept`: what `Case.keeps` pointed at when an earlier epoch computed it."""

    values_BxKxN: Any
    """Float32; 0 where there is no text."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training: how batches of each kind run, on which texts, how long."""

    name: str
    cases: Mapping[str, Case]
    """By the kind of a batch."""
    keep: Keep
    settings: PhaseConfig
    """Those of class `UnlabelledPhaseConfig` mean the unlabelled texts, all others the labelled ones."""

    @property
    def trains(self) -> tuple[str, ...]:
        """Every path that one of the cases trains."""
        return tuple(dict.fromkeys(path for case in self.cases.values() for path in case.trains))

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of all cases."""
        return tuple(dict.fromkeys(name for case in self.cases.values() for name in case.sources))


def split(params: Tree, trains: Iterable[str]) -> tuple[Tree, Tree]:
    """The subtrees at the paths `trains`, and the rest. Together they are `params`; see `merge`.

    Raises:
      ValueError: a path that leads nowhere.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    trained: Tree = {}
    for path in trains:
        below = {key: leaf for key, leaf in flat.items() if f"{key}/".startswith(f"{path}/")}
        if not below:
            raise ValueError(f"trains: expected a path of {sorted(params)}, found {path!r}")
        trained |= below
    frozen = {key: leaf for key, leaf in flat.items() if key not in trained}
    return flax.traverse_util.unflatten_dict(trained, sep="/"), flax.traverse_util.unflatten_dict(frozen, sep="/")


def merge(*parts: Tree) -> Tree:
    """The whole tree again from those of `split`."""
    flat: Tree = {}
    for part in parts:
        flat |= flax.traverse_util.flatten_dict(part)
    whole: Tree = flax.traverse_util.unflatten_dict(flat)
    return whole


def counts_of(case: Case, views: Views) -> dict[str, jax.Array]:
    """What the sums of each term are divided by, of a whole batch."""
    return {term.name: term.count(views) for term in case.terms}


def case_loss(
    trained: Tree,
    frozen: Tree,
    case: Case,
    views: Views,
    counts: Mapping[str, jax.Array],
    *,
    step: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array | None]]:
    """The loss of a batch, or of a part of one: the losses of the parts add up to that of the batch.

    Frozen parameters are outside the differentiated argument, and every target is behind `stop_gradient`.

    Args:
      counts: `counts_of` the whole batch.
      step: steps of the phase that are done.
      key: of dropout.

    Returns:
      The loss; and beside it each term's own unweighted mean, and what `case.keeps` points at, None where it is None.
    """
    params = merge(trained, frozen)
    traces: dict[str, Any] = dict(views)
    for name, source in case.sources.items():
        traces[name] = source(params.get(name, {}), traces, key)
    loss, means = jnp.zeros(()), {}
    for term in case.terms:
        means[term.name] = term.sums(traces) / counts[term.name]
        weight = term.weight(step) if callable(term.weight) else term.weight
        loss += weight * means[term.name].sum()
    return loss, (means, None if case.keeps is None else case.keeps.resolve(traces))

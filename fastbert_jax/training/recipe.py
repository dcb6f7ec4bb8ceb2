"""Training as data: sources show traces, terms compare them, a phase says what trains, a recipe is its phases.

A *trace* is what one forward pass shows (any named tuple, such as `model.fastbert.Trace`). A *source* makes a trace
from parameters and a batch; the batch itself is the source `batch`, so hard labels are nothing special. A *term* is
loss(student ref, stop_gradient(target ref)). The target may point at the student's own trace: that is
self-distillation. What an earlier epoch has shown of a batch's texts is the source `known`, and a phase's *shortcut*
is what is left to run then. The loop, the step and the checkpoints know none of the recipes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.config import PhaseConfig
from fastbert_jax.text.batches import Batch

Tree = dict[str, Any]
Apply = Callable[[Tree, Batch, jax.Array | None], Any]
"""(this source's parameters, batch, dropout key) -> trace; no key where nothing takes dropout."""


@dataclasses.dataclass(frozen=True)
class Ref:
    """A place in a trace: `Ref("model", "logits_BxKxN")`."""

    source: str
    field: str

    def resolve(self, traces: Mapping[str, Any]) -> jax.Array:
        """The array this points at."""
        return getattr(traces[self.source], self.field)


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of a phase's loss: `loss(student, stop_gradient(target))`, a value per text, times `weight`.

    Axes before the last two of the loss's values (exits, say) are summed, unweighted, and logged one by one.
    """

    name: str
    student: Ref
    target: Ref
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    weight: float | Callable[[jax.Array], jax.Array] = 1.0
    """A number, or a function of the phase's step."""


class Known(NamedTuple):
    """What an earlier epoch has shown of a batch's texts: the trace of the source `known`."""

    answers_BxKxN: np.ndarray
    """Float32: what `Shortcut.kept` pointed at; 0 where there is no text."""


class Keep(enum.Enum):
    """Which step's parameters a phase hands on."""

    BEST = "best"
    LAST = "last"


class Stream(enum.Enum):
    """Which texts a phase trains on."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training: what is compared, what trains, on which texts, how long."""

    name: str
    sources: Mapping[str, Apply]
    terms: tuple[Term, ...]
    trainable: Mapping[str, float]
    """Paths of the subtrees that train, `source/part`, and what their learning rate is multiplied by; all else is
    frozen."""
    stream: Stream
    keep: Keep
    settings: PhaseConfig
    row_flops: Callable[[int], float]
    """FLOPs of a step's arithmetic on one row of so many tokens, to tell how well the devices are used."""
    shortcut: Shortcut | None = None
    """How batches run of whose texts an earlier epoch has shown enough; none: as all others."""

    def on(self, known: Known | None) -> Phase:
        """The phase as it runs on a batch of which this is known."""
        if known is None:
            return self
        if self.shortcut is None:
            raise ValueError(f"{self.name}: expected a shortcut for texts of which this much is known, found none")
        return self.shortcut.phase


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """What a phase need not compute again at every epoch."""

    kept: Ref
    """What a step hands out to be kept, `[B, K, N]`; the same for a text whenever it is computed."""
    phase: Phase
    """The phase as it runs where that is known: other sources, terms with `Ref("known", "answers_BxKxN")` as target,
    other FLOPs."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Phases, one after the other, on one tree of parameters `{source: parameters}`."""

    phases: tuple[Phase, ...]

    def sources_from(self, index: int) -> list[str]:
        """The sources of a phase and of those after it; what none of them reads is let go."""
        return sorted({name for phase in self.phases[index:] for name in phase.sources})


def split(params: Tree, trainable: Iterable[str]) -> tuple[Tree, Tree]:
    """The subtrees at the paths `trainable`, and the rest. Together they are `params`; see `merge`.

    Raises:
      ValueError: a path that leads nowhere.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    chosen: set[str] = set()
    for path in trainable:
        below = {key for key in flat if key == path or key.startswith(path + "/")}
        if not below:
            raise ValueError(f"trainable: expected a path of {sorted(params)}, found {path!r}")
        chosen |= below
    parts = ({k: v for k, v in flat.items() if (k in chosen) is taken} for taken in (True, False))
    trained, frozen = (flax.traverse_util.unflatten_dict(part, sep="/") for part in parts)
    return trained, frozen


def merge(trained: Tree, frozen: Tree) -> Tree:
    """The whole tree again from the two of `split`."""
    flat = flax.traverse_util.flatten_dict(trained) | flax.traverse_util.flatten_dict(frozen)
    return flax.traverse_util.unflatten_dict(flat)


class Shown(NamedTuple):
    """What computing a loss shows besides it."""

    sums: dict[str, jax.Array]
    """Each term's own unweighted sum over the texts."""
    kept_BxKxN: jax.Array | None
    """What the phase's shortcut needs at later epochs; none without one."""


def loss_sums(
    trained: Tree,
    frozen: Tree,
    phase: Phase,
    batch: Batch,
    known: Known | None = None,
    *,
    step: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Shown]:
    """The phase's loss summed over the batch's texts, by its shortcut where what that needs is `known`.

    Sums, not means, so that parts of a batch add up to the whole whatever their sizes; padding rows add exactly 0.
    Frozen parameters are outside the differentiated argument, and every target is behind `stop_gradient`.
    """
    phase = phase.on(known)
    params = merge(trained, frozen)
    traces: dict[str, Any] = {"batch": batch, "known": known}
    for name, apply in phase.sources.items():
        traces[name] = apply(params[name], batch, key)
    total, sums = jnp.zeros(()), {}
    for term in phase.terms:
        target = jax.lax.stop_gradient(term.target.resolve(traces))
        values = term.loss(term.student.resolve(traces), target)
        valid = jnp.expand_dims(batch.valid_BxK, tuple(range(values.ndim - 2)))
        sums[term.name] = jnp.where(valid, values, 0.0).sum((-2, -1))
        weight = term.weight(step) if callable(term.weight) else term.weight
        total += weight * sums[term.name].sum()
    return total, Shown(sums, None if phase.shortcut is None else phase.shortcut.kept.resolve(traces))

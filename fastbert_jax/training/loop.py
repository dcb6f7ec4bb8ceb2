"""The one training loop: any recipe, phase by phase, resumed where its checkpoints end."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fastbert_jax.errors import UserError
from fastbert_jax.report.progress import progress_bar
from fastbert_jax.text.batches import TrainingBatches
from fastbert_jax.training.checkpoints import Checkpoints, Position
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.optimizer import make_optimizer
from fastbert_jax.training.recipe import Keep, Phase, Recipe, Tree, merge, split
from fastbert_jax.training.step import StepMetrics, init_state, train_step


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the dev set says of some parameters."""

    score: float
    """The number that chooses the best step; more is better."""
    values: Mapping[str, Any]
    """Plain numbers for the journal."""
    words: str
    """The same for a person, in one line."""


def run_recipe(
    recipe: Recipe,
    params: Tree,
    batches: Mapping[str, TrainingBatches],
    *,
    seed: int,
    evaluate: Callable[[Tree], Evaluation],
    checkpoints: Checkpoints,
    journal: Journal,
) -> Tree:
    """Run the phases that are not done yet; the parameters that the last one hands on.

    Args:
      params: initial parameters `{source: tree}`; not used when there is a checkpoint.
      batches: the batches of each phase, by its name; their number is the phase's length.
      evaluate: measures parameters on the dev set, `evaluations_per_epoch` times an epoch.
    """
    latest = checkpoints.latest()
    resumed = None if latest is None else checkpoints.position(latest)
    names = [phase.name for phase in recipe.phases]
    first = 0 if resumed is None else names.index(resumed.phase)
    for index, phase in enumerate(recipe.phases):
        if index < first:
            continue
        run = _PhaseRun(
            phase,
            batches[phase.name],
            params,
            index=index,
            first_step=sum(len(batches[name]) for name in names[:index]),
            key=jax.random.fold_in(jax.random.key(seed), index),
            evaluate=evaluate,
            checkpoints=checkpoints,
            journal=journal,
        )
        if index == first and latest is not None and resumed is not None:
            run.restore(latest, resumed)
        params = run.finish()
    return params


class _PhaseRun:
    """One phase under way."""

    def __init__(
        self,
        phase: Phase,
        batches: TrainingBatches,
        params: Tree,
        *,
        index: int,
        first_step: int,
        key: jax.Array,
        evaluate: Callable[[Tree], Evaluation],
        checkpoints: Checkpoints,
        journal: Journal,
    ) -> None:
        self._phase, self._index, self._batches, self._first_step = phase, index, batches, first_step
        self._evaluate, self._checkpoints, self._journal = evaluate, checkpoints, journal
        optimizer = make_optimizer(phase.settings, total_steps=len(batches), rates=phase.trainable)
        trained, self._frozen = split(params, phase.trainable)
        # The step gives its input's buffers away; the caller keeps its own parameters.
        self._state = init_state(jax.tree.map(jax.numpy.array, trained), optimizer)
        self._best_step: int | None = None
        self._best_score: float | None = None
        step = functools.partial(train_step, phase=phase, optimizer=optimizer, key=key)
        self._step = jax.jit(step, donate_argnums=0)

    def restore(self, step: int, position: Position) -> None:
        """Go to a checkpoint of this phase."""
        self._state, self._frozen = self._checkpoints.load(step, (self._state, self._frozen))
        self._best_step, self._best_score = position.best_step, position.best_score
        self._journal.say(f"{self._phase.name}: resumed at step {position.phase_step} of {len(self._batches)}")

    def finish(self) -> Tree:
        """Run the steps that are left; the parameters the phase hands on."""
        done, total = int(self._state.step), len(self._batches)
        unread: tuple[int, StepMetrics] | None = None
        with progress_bar(self._phase.name, total=total, unit="steps", done=done) as advance:
            for step, batch in enumerate(self._batches.stream(done), start=done + 1):
                self._state, metrics = self._step(self._state, self._frozen, batch)
                # A step's metrics are read when the next step is under way, so that the device never waits.
                if unread is not None:
                    advance(1, self._log(*unread))
                unread = (step, metrics)
                if self._is_time_to_evaluate(step):
                    advance(1, self._log(*unread))
                    unread = None
                    self._evaluate_and_save(step)
        if self._phase.keep is Keep.BEST and self._best_step not in (None, self._first_step + total):
            self._state, self._frozen = self._checkpoints.load(self._best_step, (self._state, self._frozen))
        return merge(self._state.trained, self._frozen)

    def _is_time_to_evaluate(self, step: int) -> bool:
        """As often per epoch as asked, spread evenly, the end of every epoch always among them."""
        evaluations = self._phase.settings.evaluations_per_epoch
        in_epoch = self._batches.batches_per_epoch
        return step * evaluations // in_epoch > (step - 1) * evaluations // in_epoch

    def _evaluate_and_save(self, step: int) -> None:
        run_step, total = self._first_step + step, len(self._batches)
        evaluation = self._evaluate(merge(self._state.trained, self._frozen))
        self._journal.log("dev", step=run_step, values=evaluation.values)
        self._journal.say(f"{self._phase.name} step {step} of {total}: {evaluation.words}")
        score = evaluation.score if self._phase.keep is Keep.BEST else None
        # Equal scores: the later step, which is also the one that the checkpoints' policy keeps.
        if score is not None and (self._best_score is None or score >= self._best_score):
            self._best_step, self._best_score = run_step, score
        position = Position(self._phase.name, step, self._best_step, self._best_score)
        rank = None if score is None else (self._index, score)
        self._checkpoints.save(run_step, (self._state, self._frozen), position, rank=rank)

    def _log(self, step: int, metrics: StepMetrics) -> str:
        """Journal a step and say its loss; raises when that is no number."""
        loss, gradient_norm = float(metrics.loss), float(metrics.gradient_norm)
        if not math.isfinite(loss) or not math.isfinite(gradient_norm):
            raise UserError(
                f"{self._phase.name}: expected a finite loss, found {loss} with gradient norm {gradient_norm} "
                f"at step {step}; lower the learning rate or use float32"
            )
        terms = {name: np.asarray(value).tolist() for name, value in metrics.terms.items()}
        values = {"loss": loss, "terms": terms, "gradient_norm": gradient_norm}
        self._journal.log(self._phase.name, step=self._first_step + step, values=values)
        return f"loss {loss:.4f}"

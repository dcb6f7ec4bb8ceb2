"""The one training loop: any recipe, phase by phase, on any mesh, resumed where its checkpoints end."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastbert_jax import processes, stopping
from fastbert_jax.errors import UserError
from fastbert_jax.log import progress_bar
from fastbert_jax.model.sharding import share_batch
from fastbert_jax.processes import StopRequest
from fastbert_jax.training.checkpoints import Checkpoints, Position, Restored
from fastbert_jax.training.journal import DEV_EVENT, Journal
from fastbert_jax.training.performance import Meter, Profiler
from fastbert_jax.training.recipe import Recipe
from fastbert_jax.training.step import PlacedStep, StepMetrics, TrainState
from fastbert_jax.training.streams import BatchStream
from fastbert_jax.training.terms import Keep, Phase, Tree, Views, merge


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the dev set says of some parameters."""

    score: float
    """The number that chooses the best step; more is better."""
    values: Mapping[str, Any]
    """Plain numbers for the journal."""
    words: str
    """The same for a person, in one line."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a recipe runs in."""

    mesh: Mesh
    evaluate: Callable[[Tree], Evaluation]
    """Measures parameters on the dev set, `evaluations_per_epoch` times an epoch."""
    checkpoints: Checkpoints
    journal: Journal
    meter: Meter
    stop: StopRequest
    save_every: int = 0
    """Steps between saves; 0: only where dev is measured."""
    profiler: Profiler = dataclasses.field(default_factory=Profiler)


def run_recipe(
    recipe: Recipe,
    streams: Mapping[str, BatchStream],
    *,
    seed: int,
    surroundings: Surroundings,
) -> Tree:
    """Run the phases that are not done yet; the parameters that the last one hands on.

    Args:
      streams: the batches of each phase, by its name; their number is the phase's length.

    Raises:
      PreemptedError, KeyboardInterrupt: SIGTERM or Ctrl-C asked to stop, and the state is saved.
      UserError: a loss that is no number, weights that cannot be read, a checkpoint that cannot be written or read.
    """
    checkpoints, journal, mesh = surroundings.checkpoints, surroundings.journal, surroundings.mesh
    names = [phase.name for phase in recipe.phases]
    first_steps = list(itertools.accumulate((len(streams[name]) for name in names), initial=0))
    shapes = {name: start.abstract_params(mesh) for name, start in recipe.starts.items()}
    runs = [
        _PhaseRun(
            phase,
            streams[phase.name],
            {name: shapes[name] for name in recipe.sources_from(index) if name in shapes},
            index=index,
            first_step=first_steps[index],
            key=jax.random.fold_in(jax.random.key(seed), index),
            surroundings=surroundings,
        )
        for index, phase in enumerate(recipe.phases)
    ]
    with surroundings.meter.spending("restore"):
        restored = checkpoints.newest(lambda position: runs[names.index(position.phase)].abstract)
    resumed_at = 0 if restored is None else restored.step
    journal.resume(resumed_at)
    surroundings.profiler.resume(resumed_at, total=first_steps[-1])
    if restored is None:
        left, params = runs, {name: start.params(seed=seed, mesh=mesh) for name, start in recipe.starts.items()}
    else:
        left, params = runs[names.index(restored.position.phase) :], {}
    for run in left:
        if restored is None:
            run.begin(params)
        else:
            run.restore(restored)
        restored, params = None, {}  # the run's own from here on
        params = run.finish()
    checkpoints.wait()
    return params


class _PhaseRun:
    """One phase under way."""

    def __init__(
        self,
        phase: Phase,
        stream: BatchStream,
        shapes: Tree,
        *,
        index: int,
        first_step: int,
        key: jax.Array,
        surroundings: Surroundings,
    ) -> None:
        self._phase, self._index, self._stream, self._first_step = phase, index, stream, first_step
        self._sources = tuple(shapes)
        self._around = surroundings
        decay_steps = phase.settings.decay_epochs * stream.batches_per_epoch
        rate_steps = min(decay_steps or len(stream), len(stream))
        self._step = PlacedStep(phase, shapes, mesh=surroundings.mesh, total_steps=rate_steps, key=key)
        self._state: TrainState
        self._frozen: Tree
        self._best_step: int | None = None
        self._best_score: float | None = None

    @property
    def abstract(self) -> tuple[TrainState, Tree]:
        """What a checkpoint of this phase holds, as abstract arrays."""
        return self._step.state, self._step.frozen

    def begin(self, params: Tree) -> None:
        """Start at the first step; the parameters are this phase's from now on."""
        self._state, self._frozen = self._step.begin({name: params[name] for name in self._sources})

    def restore(self, restored: Restored) -> None:
        """Start where a checkpoint of this phase was taken."""
        self._state, self._frozen = restored.tree
        position = restored.position
        self._best_step, self._best_score = position.best_step, position.best_score
        processes.say(f"{self._phase.name}: resumed at step {position.phase_step} of {len(self._stream)}")

    def finish(self) -> Tree:
        """Run the steps that are left; the parameters the phase hands on."""
        around, done, total = self._around, int(self._state.step), len(self._stream)
        unread: tuple[int, StepMetrics, str, Views] | None = None
        with around.meter.spending("restore"):
            self._stream.open(self._frozen, done=done)
        self._stop_by(around.stop.anywhere(), done)
        name, hidden = self._phase.name, not processes.is_first()
        compiled: set[tuple[str, int]] = set()
        with (
            contextlib.closing(self._views(done)) as steps,
            progress_bar(name, total=total, unit="steps", done=done, hidden=hidden) as advance,
        ):
            for step, kind, views in steps:
                rows, length = self._phase.settings.batch_size, views["batch"].text_BxS.shape[1]
                if (kind, length) not in compiled:
                    compiled.add((kind, length))
                    advance(0, f"compiling [{rows}, {length}]")
                with around.profiler.step(self._first_step + step), jax.set_mesh(around.mesh):
                    shared = share_batch(around.mesh, views, rows)
                    self._state, metrics = self._step.steps[kind](self._state, self._frozen, shared)
                # A step's metrics are read when the next step is under way, so that the device never waits.
                if unread is not None:
                    advance(1, self._log(*unread))
                unread = (step, metrics, kind, views)
                around.profiler.end_after(self._first_step + step, metrics)
                asked = around.stop.agreed()
                evaluating = self._is_time_to_evaluate(step)
                if evaluating or asked or (around.save_every and step % around.save_every == 0):
                    advance(1, self._log(*unread))
                    unread = None
                    if evaluating:
                        advance(0, "measuring")
                    self._save(step, score=self._evaluate(step) if evaluating else None)
                self._stop_by(asked or (around.stop.anywhere() if evaluating else 0), step)
        if self._phase.keep is Keep.BEST and self._best_step not in (None, self._first_step + total):
            self._go_to_the_best(self._best_step)
        params = merge(self._state.trained, self._frozen)
        del self._state, self._frozen  # the optimizer's moments would fill the devices during the next phase
        return params

    def _stop_by(self, signal: int, step: int) -> None:
        """Stop the run after a step that is saved, or before the first one, if a signal asks to (0: none does)."""
        if not signal:
            return
        self._around.checkpoints.wait()
        where = f"and saved at step {step} of {len(self._stream)}" if step else "before its first step"
        words = f"{self._phase.name}: stopped by {stopping.name_of(signal)} {where}; the same command goes on"
        raise stopping.stop_by(signal, words)

    def _views(self, done: int) -> Generator[tuple[int, str, Views]]:
        """Steps from `done` on with the kinds and the views of their batches; the wait for them is measured."""
        with contextlib.closing(self._stream.views(done)) as stream:
            for step in range(done + 1, len(self._stream) + 1):
                with self._around.meter.spending("data"):
                    kind, views = next(stream)
                yield step, kind, views

    def _go_to_the_best(self, step: int) -> None:
        around = self._around
        try:
            with around.meter.spending("restore"):
                self._state, self._frozen = around.checkpoints.load(step, self.abstract)
        except UserError as error:
            processes.say(f"{error}\n{self._phase.name}: its best step is lost; its last one goes on instead")
            if step in around.checkpoints.steps():
                around.checkpoints.put_aside(step, str(error))

    def _is_time_to_evaluate(self, step: int) -> bool:
        """As often per epoch as asked, spread evenly, the end of every epoch and of the phase always among them."""
        evaluations = self._phase.settings.evaluations_per_epoch
        in_epoch = min(self._stream.batches_per_epoch, len(self._stream))
        return step == len(self._stream) or step * evaluations // in_epoch > (step - 1) * evaluations // in_epoch

    def _evaluate(self, step: int) -> float | None:
        """Measure dev and log it; the score where it chooses the step that is handed on."""
        run_step, around = self._first_step + step, self._around
        with around.meter.spending("evaluation"), jax.set_mesh(around.mesh):
            evaluation = around.evaluate(merge(self._state.trained, self._frozen))
        around.journal.log(DEV_EVENT, step=run_step, values=evaluation.values)
        processes.say(f"{self._phase.name} step {step} of {len(self._stream)}: {evaluation.words}")
        speed = around.meter.report(self._phase.name, step=run_step)
        if speed:
            processes.say(f"  {speed}")
        return evaluation.score if self._phase.keep is Keep.BEST else None

    def _save(self, step: int, *, score: float | None) -> None:
        run_step = self._first_step + step
        # Equal scores: the later step, which is also the one that the checkpoints' policy keeps.
        if score is not None and (self._best_score is None or score >= self._best_score):
            self._best_step, self._best_score = run_step, score
        position = Position(self._phase.name, step, self._best_step, self._best_score)
        rank = None if score is None else (self._index, score)
        with self._around.meter.spending("checkpoint"):
            self._stream.settle(step)
            self._around.checkpoints.save(run_step, (self._state, self._frozen), position, rank=rank)

    def _log(self, step: int, metrics: StepMetrics, kind: str, views: Views) -> str:
        """Write a step to the journal, count it, keep its values; its loss in words. Raises when that is no number."""
        loss, gradient_norm = float(metrics.loss), float(metrics.gradient_norm)
        if not math.isfinite(loss) or not math.isfinite(gradient_norm):
            raise UserError(
                f"{self._phase.name}: expected a finite loss, found {loss} with gradient norm {gradient_norm} "
                f"at step {step}; lower the learning rate or use float32"
            )
        terms = {name: np.asarray(value).tolist() for name, value in metrics.terms.items()}
        values = {"loss": loss, "terms": terms, "gradient_norm": gradient_norm}
        self._around.journal.log(self._phase.name, step=self._first_step + step, values=values)
        if metrics.kept_BxKxN is not None:
            self._stream.keep(step - 1, metrics.kept_BxKxN)
        batch, rows = views["batch"], self._phase.settings.batch_size
        length, places = batch.text_BxS.shape[1], batch.valid_BxK.shape[1]
        self._around.meter.count(
            texts=float(metrics.texts),
            tokens=float(metrics.tokens),
            places=rows * length,
            flops=rows * self._phase.cases[kind].row_flops(length, places),
        )
        return f"loss {loss:.4f}"

"""A whole run, from settings to a model that answers: read, fine-tune, distil, save, compare."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError

from fastbert_jax import processes
from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.config import ProcessesConfig, TrainConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.report_page import DESCRIPTION, report_page
from fastbert_jax.log import result, status
from fastbert_jax.model.fastbert import Params
from fastbert_jax.model.sharding import make_mesh, param_shardings, sharding_of
from fastbert_jax.model.weights import inference_settings, save_model
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render
from fastbert_jax.text.baseline import tfidf_svm_accuracy
from fastbert_jax.text.batches import EpochBatches
from fastbert_jax.training.answer_cache import AnswerCache
from fastbert_jax.training.card import write_card
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.evaluation import dev_evaluation
from fastbert_jax.training.fastbert_recipe import forward
from fastbert_jax.training.file_checksums import write_checksums
from fastbert_jax.training.initial import abstract_params, initial_params
from fastbert_jax.training.journal import Journal, dev_points
from fastbert_jax.training.loggers.every_logger import Loggers, check_installed
from fastbert_jax.training.loop import Surroundings, run_recipe
from fastbert_jax.training.preemption import StopRequest, stop_on_sigterm
from fastbert_jax.training.prepare import Prepared, prepare
from fastbert_jax.training.profiler import Profiler
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.training.throughput import Meter


def train(config: TrainConfig) -> Comparison | None:
    """Do the run that `config` describes, or what is left of it, and measure it on the test texts.

    The same call in every process; the first one writes and measures, the others return None.

    Raises:
      UserError: data, settings or files that cannot be used, or a run that is under way.
      PreemptedError: stopped by SIGTERM, and saved.
    """
    config = config.resolved
    with stop_on_sigterm() as stop, contextlib.ExitStack() as held:
        processes.join(config.processes)
        processes.first_alone(lambda: check_installed(config.log.to))
        mesh = make_mesh(config.mesh)
        prepared = processes.together(lambda: prepare(config, mesh))
        run = RunDirectory(Path(config.run))
        settings = dataclasses.replace(config, processes=ProcessesConfig())
        processes.check_same(repr((settings, prepared.task.labels, prepared.data)))
        processes.first_alone(lambda: run.claim(config, prepared.task.labels, prepared.data))
        processes.first_alone(lambda: held.enter_context(run.locked()))
        processes.first_alone(lambda: run.list_rejected(prepared.task.rejected))
        if processes.is_first():
            for note in prepared.notes:
                status(note)
        loggers = Loggers()
        held.callback(loggers.close)
        processes.first_alone(lambda: loggers.open(config, run))
        if not processes.all_well(run.model.exists()):
            params = _train(config, prepared, run, mesh, stop, loggers)
            host = on_host(params, mesh)
            processes.first_alone(lambda: _save(config, prepared, run, host))
        elif config.profile and processes.is_first():
            status(
                f"profile: expected steps that are still to come, found {config.profile}; "
                "the run is done: none is written"
            )
        measures = processes.is_first()
        processes.part()
        return _compare(config, prepared, run, loggers) if measures else None


def on_host(params: Params, mesh: Mesh) -> Params | None:
    """Whole copies in the memory of the first process, one leaf after the other; None in the others."""

    gather = jax.jit(lambda array: array, out_shardings=sharding_of(mesh, ()))

    def fetch(leaf: jax.Array) -> np.ndarray | None:
        whole = leaf if leaf.is_fully_addressable else gather(leaf)
        return np.asarray(whole) if processes.is_first() else None

    return jax.tree.map(fetch, params)


def _train(
    config: TrainConfig, prepared: Prepared, run: RunDirectory, mesh: Mesh, stop: StopRequest, loggers: Loggers
) -> Params:
    shardings = {name: param_shardings(mesh, start.config) for name, start in prepared.starts.items()}
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoints.keep)
    journal = Journal(run.metrics, loggers)
    profiler = Profiler(run.profile if processes.is_first() else None, config.profiled, say=journal.say)
    surroundings = Surroundings(
        mesh=mesh,
        evaluate=dev_evaluation(
            forward(prepared.model, noisy=frozenset()),
            prepared.dev,
            prepared.dev_labels,
            buckets=config.data.lengths,
            mesh=mesh,
        ),
        checkpoints=checkpoints,
        journal=journal,
        meter=Meter(run.throughput if processes.is_first() else None, dtype=prepared.model.dtype, loggers=loggers),
        stop=stop,
        save_every=config.checkpoints.every,
        memories=_memories(prepared, run, journal),
        profiler=profiler,
    )
    try:
        stop.heeded = True
        params = run_recipe(
            prepared.recipe,
            lambda: {
                name: initial_params(start, seed=config.seed, shardings=shardings[name])
                for name, start in prepared.starts.items()
            },
            prepared.batches,
            shapes={name: abstract_params(start.config, shardings[name]) for name, start in prepared.starts.items()},
            seed=config.seed,
            surroundings=surroundings,
        )
        if stop.anywhere():
            raise PreemptedError("stopped by SIGTERM after the last step was saved; the same command goes on")
    except KeyboardInterrupt:
        journal.say(f"stopped; the same command goes on from step {checkpoints.latest() or 0}")
        raise
    finally:
        stop.heeded = False
        profiler.close()
        journal.close()
        checkpoints.close()
    return params["model"]


def _memories(prepared: Prepared, run: RunDirectory, journal: Journal) -> dict[str, AnswerCache]:
    """The memory of each phase that has a shortcut, by the phase's name."""
    return {
        phase.name: AnswerCache(
            run.teacher_answers,
            batches,
            corpus=prepared.data["unlabelled"],
            classes=prepared.config.num_classes,
            say=journal.say,
        )
        for phase in prepared.recipe.phases
        if phase.shortcut is not None and isinstance(batches := prepared.batches[phase.name], EpochBatches)
    }


def _save(config: TrainConfig, prepared: Prepared, run: RunDirectory, params: Params | None) -> None:
    """Write `model/` beside its place, then rename it there: a model directory is always a whole one."""
    assert params is not None
    unfinished = run.path / "model.tmp"
    extra = inference_settings(
        labels=prepared.task.labels,
        max_length=config.data.max_length,
        length_buckets=config.data.lengths,
        precision=config.model.precision,
    )
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        prepared.tokenizer.save(unfinished)
        save_model(unfinished, params, prepared.config, extra=extra)
        write_checksums(unfinished)
        run.comparison.unlink(missing_ok=True)  # one that is there is of another model
        unfinished.rename(run.model)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{run.model}: expected to write the model, found: {error}\nMake room and run the same command again."
        ) from error
    write_card(run)


def _compare(config: TrainConfig, prepared: Prepared, run: RunDirectory, loggers: Loggers) -> Comparison:
    """Measure the saved model on the test texts, print the table, keep the numbers, the report and the model's card."""
    task = prepared.task
    baseline = tfidf_svm_accuracy(task.train, task.test) if config.evaluate.baseline else None
    texts = [example.text for example in task.test]
    evaluated = EvaluatedTexts.of(
        load(run.path), texts, prepared.test_labels, batch_tokens=config.evaluate.batch_tokens
    )
    comparison = compare(evaluated, measure=config.evaluate, baseline_accuracy=baseline)
    points = dev_points(run.metrics)
    page = report_page(evaluated, comparison, model=config.run, data="the run's test set", training=points)
    write_json(run.comparison, comparison.to_json())
    write_text(run.report, page)
    write_card(run)
    loggers.conclude(comparison)
    result(render(comparison))
    status(f"{run.report}: {DESCRIPTION}")
    return comparison

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
from fastbert_jax.config import BertConfig, ProcessesConfig, TrainConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.report_contents import report_of
from fastbert_jax.log import result, status
from fastbert_jax.model.config_json import inference_settings
from fastbert_jax.model.network import Params, Part
from fastbert_jax.model.sharding import make_mesh, param_shardings, sharding_of
from fastbert_jax.model.weights import save_model
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.comparison_table import render
from fastbert_jax.report.html.page import WHAT_A_REPORT_IS, render_page
from fastbert_jax.text.baseline import tfidf_svm_accuracy
from fastbert_jax.text.batches import Batches, EpochBatches
from fastbert_jax.training.card import write_card
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.dev_curves import dev_points
from fastbert_jax.training.evaluation import dev_evaluation
from fastbert_jax.training.file_checksums import write_checksums
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.kept_values import KeptValues
from fastbert_jax.training.loggers.every_logger import Loggers, check_installed
from fastbert_jax.training.loop import Surroundings, run_recipe
from fastbert_jax.training.preemption import StopRequest, stop_on_sigterm
from fastbert_jax.training.prepare import Prepared, prepare
from fastbert_jax.training.profiler import Profiler
from fastbert_jax.training.recipe import RecipeModule
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.training.streams import BatchStream
from fastbert_jax.training.terms import KEPT, Phase
from fastbert_jax.training.throughput import Meter


def train(config: TrainConfig, recipe: RecipeModule) -> Comparison | None:
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
        prepared = processes.together(lambda: prepare(config, mesh, recipe))
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
    starts = prepared.made.starts
    shardings = {name: param_shardings(mesh, start.network) for name, start in starts.items()}
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoints.keep)
    journal = Journal(run.metrics, loggers)
    profiler = Profiler(run.profile if processes.is_first() else None, config.profiled, say=journal.say)
    surroundings = Surroundings(
        mesh=mesh,
        evaluate=dev_evaluation(
            prepared.made.network,
            prepared.dev,
            prepared.dev_labels,
            buckets=config.data.lengths,
            mesh=mesh,
        ),
        checkpoints=checkpoints,
        journal=journal,
        meter=Meter(
            run.throughput if processes.is_first() else None, dtype=prepared.made.network.dtype, loggers=loggers
        ),
        stop=stop,
        save_every=config.checkpoints.every,
        profiler=profiler,
    )
    try:
        stop.heeded = True
        params = run_recipe(
            prepared.made.recipe,
            lambda: {name: start.params(seed=config.seed, shardings=shardings[name]) for name, start in starts.items()},
            _streams(prepared, run, journal),
            shapes={name: start.abstract_params(shardings[name]) for name, start in starts.items()},
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


def _streams(prepared: Prepared, run: RunDirectory, journal: Journal) -> dict[str, BatchStream]:
    """The batches of each phase, with the values that a phase keeps in the run's directory."""

    def kept(phase: Phase, batches: Batches) -> KeptValues | None:
        if KEPT not in phase.cases or not isinstance(batches, EpochBatches):
            return None
        corpus, classes = prepared.data["unlabelled"], prepared.config.num_classes
        return KeptValues(run.kept_values, batches, corpus=corpus, classes=classes, warn=journal.say)

    return {
        phase.name: BatchStream(prepared.batches[phase.name], kept(phase, prepared.batches[phase.name]))
        for phase in prepared.made.recipe.phases
    }


def _with_trained_exits(prepared: Prepared, params: Params) -> tuple[Params, BertConfig]:
    """The model without lower exits that nothing has trained, which would give random answers."""
    trained = {
        path for phase in prepared.made.recipe.phases if len(prepared.batches[phase.name]) for path in phase.trains
    }
    start, config = prepared.made.starts["model"], prepared.config
    was_trained = start.stored is not None and start.stored.lower_exit_layers
    if was_trained or "model/lower_exits" in trained or not config.lower_exit_layers:
        return params, config
    without = {part: tree for part, tree in params.items() if part != Part.LOWER_EXITS.value}
    return without, dataclasses.replace(config, exit_layers=config.exit_layers[-1:])


def _save(config: TrainConfig, prepared: Prepared, run: RunDirectory, params: Params | None) -> None:
    """Write `model/` beside its place, then rename it there: a model directory is always a whole one."""
    assert params is not None
    unfinished = run.path / "model.tmp"
    extra = inference_settings(
        labels=prepared.task.labels,
        max_length=config.data.max_length,
        length_buckets=config.data.lengths,
        precision=config.model.precision,
    ) | {"story": prepared.made.story}
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        prepared.tokenizer.save(unfinished)
        save_model(unfinished, *_with_trained_exits(prepared, params), extra=extra)
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
    asked = AskedTexts.of(load(run.path), texts, prepared.test_labels, batch_tokens=config.evaluate.batch_tokens)
    comparison = compare(asked, evaluate=config.evaluate, baseline_accuracy=baseline)
    report = report_of(asked, comparison, model=config.run, data="the run's test set", training=dev_points(run.metrics))
    write_json(run.comparison, comparison.to_json())
    write_text(run.report, render_page(report))
    write_card(run)
    loggers.conclude(comparison)
    result(render(comparison))
    status(f"{run.report}: {WHAT_A_REPORT_IS}")
    return comparison

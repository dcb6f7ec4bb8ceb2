"""A whole run, from settings to a model that answers: read, fine-tune, distil, save, compare."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError

from fastbert_jax import processes
from fastbert_jax.atomic_files import atomic_directory, write_checksums, write_json, write_text
from fastbert_jax.config import BertConfig, ProcessesConfig, TrainConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.report_page import DESCRIPTION, report_page
from fastbert_jax.log import result, status
from fastbert_jax.model.config_json import inference_settings
from fastbert_jax.model.network import Params, Part
from fastbert_jax.model.sharding import make_mesh, param_shardings, sharding_of
from fastbert_jax.model.weights import save_model
from fastbert_jax.processes import StopRequest, stop_on_sigterm
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render
from fastbert_jax.text.labelled_data import tfidf_svm_accuracy
from fastbert_jax.text.training_batches import Batches, EpochBatches
from fastbert_jax.training.card import write_card
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.evaluation import dev_evaluation
from fastbert_jax.training.kept_values import KeptValues
from fastbert_jax.training.loggers import Journal, check_installed, dev_points
from fastbert_jax.training.loop import Surroundings, run_recipe
from fastbert_jax.training.performance import Meter, Profiler
from fastbert_jax.training.prepare import Prepared, prepare
from fastbert_jax.training.recipe import RecipeModule
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.training.streams import BatchStream
from fastbert_jax.training.terms import KEPT, Phase


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
        journal = Journal(run.metrics)
        held.callback(journal.close)
        processes.first_alone(lambda: journal.open_loggers(config))
        if not processes.all_well(run.model.exists()):
            params = _train(config, prepared, run, mesh, stop, journal)
            host = on_host(params, mesh)
            processes.first_alone(lambda: _save(config, prepared, run, host))
        elif config.profile and processes.is_first():
            status(f"profile: of the steps {config.profile}, none left: the run is done")
        measures = processes.is_first()
        processes.part()
        return _compare(config, prepared, run, journal) if measures else None


def on_host(params: Params, mesh: Mesh) -> Params | None:
    """Whole copies in the memory of the first process, one leaf after the other; None in the others."""

    gather = jax.jit(lambda array: array, out_shardings=sharding_of(mesh, ()))

    def fetch(leaf: jax.Array) -> np.ndarray | None:
        whole = leaf if leaf.is_fully_addressable else gather(leaf)
        return np.asarray(whole) if processes.is_first() else None

    host: Params = jax.tree.map(fetch, params)
    return host


def _train(
    config: TrainConfig, prepared: Prepared, run: RunDirectory, mesh: Mesh, stop: StopRequest, journal: Journal
) -> Params:
    starts = prepared.made.starts
    shardings = {name: param_shardings(mesh, start.network.config) for name, start in starts.items()}
    checkpoints = Checkpoints(run.checkpoints, keep=config.checkpoints.keep)
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
            run.throughput if processes.is_first() else None, dtype=prepared.made.network.dtype, journal=journal
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
        checkpoints.close()
    model: Params = params["model"]
    return model


def _streams(prepared: Prepared, run: RunDirectory, journal: Journal) -> dict[str, BatchStream]:
    """The batches of each phase, with the values that a phase keeps in the run's directory."""

    def kept(phase: Phase, batches: Batches) -> KeptValues | None:
        if KEPT not in phase.cases or not isinstance(batches, EpochBatches):
            return None
        corpus, classes = prepared.data["unlabelled"], prepared.config.num_classes
        return KeptValues(run.teacher_answers, batches, corpus=corpus, classes=classes, warn=journal.say)

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
    """Write `model/`, which is there only when it is complete."""
    assert params is not None
    extra = inference_settings(
        labels=prepared.task.labels,
        max_length=config.data.max_length,
        length_buckets=config.data.lengths,
        precision=config.model.precision,
    ) | {"story": prepared.made.story}
    try:
        with atomic_directory(run.model) as directory:
            prepared.tokenizer.save(directory)
            save_model(directory, *_with_trained_exits(prepared, params), extra=extra)
            write_checksums(directory)
            run.comparison.unlink(missing_ok=True)  # one that is there is of another model
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{run.model}: expected to write the model, found: {error}\nMake room and run the same command again."
        ) from error
    write_card(run)


def _compare(config: TrainConfig, prepared: Prepared, run: RunDirectory, journal: Journal) -> Comparison:
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
    journal.conclude(comparison)
    result(render(comparison))
    status(f"{run.report}: {DESCRIPTION}")
    return comparison

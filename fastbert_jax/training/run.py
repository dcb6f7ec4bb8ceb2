"""A whole run, from settings to a model that answers: read, fine-tune, distil, save, compare."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastbert_jax import processes, stopping
from fastbert_jax.atomic_files import (
    MAKE_ROOM,
    atomic_directory,
    unless_refused,
    write_checksums,
    write_json,
    write_text,
)
from fastbert_jax.config import BertConfig, ProcessesConfig, TrainConfig
from fastbert_jax.inference.calibrate import recommend
from fastbert_jax.inference.calibration import recommended_calibration
from fastbert_jax.inference.compare import compare, evenly, passes
from fastbert_jax.inference.exit_outputs import EvaluatedTexts
from fastbert_jax.inference.loading import EXCLUDED, load
from fastbert_jax.inference.report_page import DESCRIPTION, mislabelled, page_values
from fastbert_jax.log import info, result, status
from fastbert_jax.model.config_json import inference_settings, reading_values
from fastbert_jax.model.flops import Count, text_flops
from fastbert_jax.model.network import Params, Part
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.model.weights import save_model
from fastbert_jax.processes import StopRequest
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import MislabelledText, mislabelled_csv, ranked, render, render_page, texts_to_check
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids, tfidf_svm_right
from fastbert_jax.text.training_batches import Batches, TrainingBatches
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.evaluation import dev_evaluation
from fastbert_jax.training.export import write_card
from fastbert_jax.training.journal import Journal, dev_points, loss_points
from fastbert_jax.training.loggers import check_installed
from fastbert_jax.training.loop import Surroundings, run_recipe
from fastbert_jax.training.performance import Meter, Profiler
from fastbert_jax.training.prepare import Prepared, prepare
from fastbert_jax.training.recipe import RecipeModule
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.training.step import PlacedStep
from fastbert_jax.training.streams import BatchStream, KeptValues
from fastbert_jax.training.terms import KEPT, Phase, Tree


def train(config: TrainConfig, recipe: RecipeModule) -> Comparison | None:
    """Do the run that `config` describes, or what is left of it, and measure it on the test texts.

    The same call in every process; the first one writes and measures, the others return None.

    Raises:
      UserError: data, settings or files that cannot be used, or a run that is under way.
      LostProcessError: another process of the run has ended.
      PreemptedError, KeyboardInterrupt: stopped by SIGTERM or Ctrl-C, and saved; the words say what and how to go on.
    """
    with (
        processes.needing_all(),
        stopping.explained("; nothing is lost that was saved before, and the same command goes on"),
        stopping.stoppable(signal.SIGINT, signal.SIGTERM),
        contextlib.ExitStack() as held,
    ):
        processes.join(config.processes)
        processes.first_alone(lambda: check_installed(config.log.to))
        mesh = make_mesh(config.mesh)
        prepared = processes.together(lambda: prepare(config, mesh, recipe))
        settings, run = prepared.settings, RunDirectory(config.run)
        shared = dataclasses.replace(settings, processes=ProcessesConfig())
        processes.check_same(repr((shared, prepared.task.labels, prepared.data)))
        journal = Journal(run.metrics)

        def begin() -> None:
            run.claim(settings, prepared.task.labels, prepared.data)
            held.enter_context(run.locked())
            run.list_rejected(prepared.task.rejected)
            for note in prepared.notes:
                status(note)
            held.callback(journal.close)
            journal.open_loggers(settings)

        processes.first_alone(begin)
        asked = 0
        if not processes.all_well(run.model.exists()):
            asked = _train_and_save(settings, prepared, run, mesh, journal)
        elif config.profile:
            processes.say(f"profile: of the steps {config.profile}, none left: the run is done")
        measures = processes.is_first()
        processes.part()
        saved = f"; the model is already saved in {run.model} and can be used; the same command measures it"
        with stopping.explained(saved):
            if asked:
                raise stopping.stop_by(asked)
            return _compare(settings, prepared, run, journal) if measures else None


def _train_and_save(config: TrainConfig, prepared: Prepared, run: RunDirectory, mesh: Mesh, journal: Journal) -> int:
    """Train, or the rest of it, and write `model/`. A request to stop is kept until the state or the model is saved.

    Returns the signal that has asked any process to stop meanwhile; 0: none.
    """
    stop = StopRequest()
    with stopping.holding():
        params = _on_host(_train(config, prepared, run, mesh, stop, journal))
        processes.first_alone(lambda: _save(config, prepared, run, params))
        return stop.anywhere()


def _on_host(params: Params) -> Params:
    """Whole copies in the memory of the first process, one leaf after the other; None for each leaf in the others."""

    def fetch(leaf: jax.Array) -> np.ndarray | None:
        whole = processes.whole(leaf)
        return whole if processes.is_first() else None

    host: Params = jax.tree.map(fetch, params)
    return host


def _train(
    config: TrainConfig, prepared: Prepared, run: RunDirectory, mesh: Mesh, stop: StopRequest, journal: Journal
) -> Params:
    recipe, first = prepared.recipe, processes.is_first()
    evaluate = dev_evaluation(recipe.network, prepared.dev, prepared.dev_labels, buckets=config.data.lengths, mesh=mesh)
    with (
        contextlib.closing(Checkpoints(run.checkpoints, keep=config.checkpoints.keep)) as checkpoints,
        contextlib.closing(Profiler(run.profile, config.profiled if first else range(0))) as profiler,
    ):
        surroundings = Surroundings(
            mesh=mesh,
            evaluate=evaluate,
            checkpoints=checkpoints,
            journal=journal,
            meter=Meter(run.throughput if first else None, dtype=recipe.network.dtype, journal=journal),
            stop=stop,
            save_every=config.checkpoints.every,
            profiler=profiler,
        )
        params = run_recipe(recipe, _streams(prepared, run), seed=config.seed, surroundings=surroundings)
    model: Params = params["model"]
    return model


def _streams(prepared: Prepared, run: RunDirectory) -> dict[str, BatchStream]:
    """The batches of each phase, with the values that a phase keeps in the run's directory."""

    def stream(phase: Phase) -> BatchStream:
        batches = prepared.batches[phase.name]
        if KEPT not in phase.cases or not isinstance(batches, TrainingBatches):
            return BatchStream(batches)
        corpus, classes = prepared.data["unlabelled"], prepared.config.num_classes
        return KeptValues(run.teacher_answers, batches, corpus=corpus, classes=classes)

    return {phase.name: stream(phase) for phase in prepared.recipe.phases}


def _with_trained_exits(prepared: Prepared, params: Params) -> tuple[Params, BertConfig]:
    """The model without lower exits that nothing has trained, which would give random answers."""
    trained = {path for phase in prepared.recipe.phases if len(prepared.batches[phase.name]) for path in phase.trains}
    start, config = prepared.recipe.starts["model"], prepared.config
    was_trained = start.stored is not None and start.stored.lower_exit_layers
    if was_trained or "model/lower_exits" in trained or not config.lower_exit_layers:
        return params, config
    without = {part: tree for part, tree in params.items() if part != Part.LOWER_EXITS.value}
    return without, dataclasses.replace(config, exit_layers=config.exit_layers[-1:])


def _save(config: TrainConfig, prepared: Prepared, run: RunDirectory, params: Params) -> None:
    """Write `model/`, which is there only when it is complete."""
    extra = inference_settings(
        labels=prepared.task.labels,
        max_length=config.data.max_length,
        length_buckets=config.data.lengths,
        precision=config.model.precision,
    ) | {"story": prepared.recipe.story, "reading": reading_values(prepared.task.reading)}
    if config.data.exclude_labels:
        extra[EXCLUDED] = list(config.data.exclude_labels)
    with unless_refused(run.model, "write the model", remedy=MAKE_ROOM):
        with atomic_directory(run.model) as directory:
            prepared.tokenizer.save(directory, max_length=config.data.max_length)
            save_model(directory, *_with_trained_exits(prepared, params), extra=extra)
            write_checksums(directory)
            run.comparison.unlink(missing_ok=True)  # one that is there is of another model
        write_card(run)


def _compare(config: TrainConfig, prepared: Prepared, run: RunDirectory, journal: Journal) -> Comparison:
    """Choose the recommended speed on dev, measure the saved model on test, keep the numbers, report and card."""
    task = prepared.task
    if config.evaluate.baseline:
        info(f"training a TF-IDF + linear SVM on {len(task.train):,} texts, to compare with")
    baseline_right_B = tfidf_svm_right(task.train, task.test) if config.evaluate.baseline else None
    evaluate = functools.partial(EvaluatedTexts.of, load(run.path), batch_tokens=config.evaluate.batch_tokens)
    texts = [example.text for example in task.test]
    info(
        f"measuring on {len(texts):,} texts: {passes(config.evaluate)} passes; the model is saved in {run.model} and "
        "can be used, and after Ctrl-C the same command measures it"
    )
    evaluated = evaluate(texts, prepared.test_labels, groups=prepared.test_groups)
    dev = evaluated
    if task.dev is not task.test:
        dev = evaluate([example.text for example in task.dev], prepared.dev_labels)
    if recommended_calibration(run.model) is None:  # else this is not the first measurement, or `calibrate` chose one
        data = "the training texts" if task.dev is task.train else "the run's dev set"
        recommend(dev.predictor, dev.outputs, prepared.dev_labels, data=data)
    contradicted, note = _mislabelled(config, prepared, evaluate, {"dev": dev, "test": evaluated})
    comparison = compare(evaluated, measure=config.evaluate, baseline_right_B=baseline_right_B)
    values = page_values(evaluated, comparison, dev_points(run.metrics), loss_points(run.metrics))
    page = render_page(comparison, values, model=config.run, data="the run's test set", mislabelled=contradicted)
    with unless_refused(run.path, "write the measurements", remedy=MAKE_ROOM):
        write_json(run.comparison, comparison.to_json())
        write_text(run.report, page)
        write_text(run.mislabelled, mislabelled_csv(contradicted))
        write_card(run)
    journal.conclude(comparison)
    result(render(comparison))
    status(f"{run.report}: {DESCRIPTION}")
    status(f"{run.mislabelled}: {texts_to_check(contradicted)}; {note}")
    return comparison


def _mislabelled(
    config: TrainConfig,
    prepared: Prepared,
    evaluate: Callable[[list[Text], np.ndarray], EvaluatedTexts],
    evaluated: Mapping[str, EvaluatedTexts],
) -> tuple[list[MislabelledText], str]:
    """The texts of train, dev and test whose label the model contradicts, ranked; and how many were looked at.

    Args:
      evaluated: dev and test.
    """
    most, task = config.evaluate.mislabelled, prepared.task
    if most == 0:
        return [], "--evaluate.mislabelled 0: not looked for"
    found, looked_at = [], []
    sets = {id(examples): (role, examples) for role in ("dev", "test", "train") if (examples := getattr(task, role))}
    for role, examples in sets.values():  # one that stands in for another counts once
        total = len(examples)
        if role == "train":
            examples = [examples[i] for i in evenly(total, most)]
            texts = evaluate([example.text for example in examples], label_ids(examples, task.labels))
        else:
            texts = evaluated[role]
        found += mislabelled(texts, [example.where for example in examples])
        looked_at.append(f"{len(examples)} of {total} {role} texts")
    return ranked(found), f"looked at {', '.join(looked_at)}"


def describe(config: TrainConfig, recipe: RecipeModule) -> str:
    """The plan of the run in words: texts, shapes, steps, FLOPs, and the memory of each device. Writes nothing.

    Raises:
      UserError: what `prepare` raises.
    """
    mesh = make_mesh(config.mesh)
    prepared = prepare(config, mesh, recipe)
    architecture, task = prepared.config, prepared.task
    shapes = {name: start.abstract_params(mesh) for name, start in prepared.recipe.starts.items()}
    sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in shapes["model"].items()}
    lines = [
        f"texts       train {len(task.train)}, dev {len(task.dev)}, test {len(task.test)}, "
        f"unlabelled {len(task.unlabelled) or config.data.unlabelled}",
        f"labels      {', '.join(task.labels)}",
        *(f"            {note}" for note in prepared.notes),
        f"model       {architecture.num_layers} layers of width {architecture.hidden_size}, "
        f"{sum(sizes.values()):,} parameters: " + ", ".join(f"{part} {size:,}" for part, size in sizes.items()),
    ]
    lines.append("devices     " + " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items()))
    for phase in prepared.recipe.phases:
        lines += _phase_lines(phase, prepared.batches[phase.name], shapes, mesh)
    length = config.data.max_length
    network = prepared.recipe.network
    full = text_flops(Count.TRUE, network, length, network.num_layers, exits_evaluated=1)
    first = text_flops(Count.TRUE, network, length, 1)
    lines.append(
        f"FLOPs       {full:,} for a text of {length} tokens at full depth, {first:,} if it exits at the first layer"
    )
    return "\n".join(lines)


def _phase_lines(phase: Phase, batches: Batches, shapes: Tree, mesh: Mesh) -> list[str]:
    rows = phase.settings.batch_size
    plan = batches.plan(0)
    lengths = Counter(planned.length for planned in plan)
    part = f" of the first {len(plan)}" if len(plan) < batches.batches_per_epoch else ""
    placed = PlacedStep(phase, shapes, mesh=mesh, total_steps=max(len(batches), 1), key=jax.random.key(0))
    held = bytes_per_device((placed.state, placed.frozen))
    return [
        f"{phase.name:<11} {len(batches)} steps of {rows} rows, {batches.batches_per_epoch} an epoch; "
        f"trains {', '.join(phase.trains)}",
        f"            each device holds {held / 1e6:,.1f} MB of parameters and optimizer state",
        *(f"            {count} x [{rows}, {length}]{part}" for length, count in sorted(lengths.items())),
    ]


def bytes_per_device(tree: Any) -> int:
    """What one device holds of (abstract) arrays."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )

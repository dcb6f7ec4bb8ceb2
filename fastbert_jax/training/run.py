"""A whole run, from settings to a model that answers: read, fine-tune, distil, save, compare."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp

from fastbert_jax.config import BertConfig, TrainConfig
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.predictor import load
from fastbert_jax.model.fastbert import Params, init_params
from fastbert_jax.model.weights import save_model
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.comparison_table import render
from fastbert_jax.report.flops import true_flops
from fastbert_jax.text.baseline import tfidf_svm_accuracy
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.evaluation import dev_evaluation
from fastbert_jax.training.fastbert_recipe import forward
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.loop import run_recipe
from fastbert_jax.training.prepare import Prepared, prepare
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.whole_files import write_json


def train(config: TrainConfig) -> Comparison:
    """Do the run that `config` describes, or what is left of it, and measure it on the test texts.

    Raises:
      UserError: data, settings or files that cannot be used.
    """
    prepared = prepare(config)
    run = RunDirectory(Path(config.run))
    run.claim(config, prepared.task.labels, prepared.data)
    for note in prepared.notes:
        print(note)
    if not run.model.exists():
        params = _train(config, prepared, run)
        _save(config, prepared, run, params)
    return _compare(config, prepared, run)


def initial_params(architecture: BertConfig, backbone: Params | None, *, seed: int) -> Params:
    """Random parameters, the backbone's replaced by pretrained ones where there are any."""
    params = init_params(architecture, jax.random.key(seed))
    if backbone is not None:
        params["backbone"] = jax.tree.map(jnp.asarray, backbone)
    return params


def _train(config: TrainConfig, prepared: Prepared, run: RunDirectory) -> Params:
    checkpoints = Checkpoints(run.checkpoints)
    journal = Journal(run.metrics, start_step=checkpoints.latest() or 0)
    try:
        params = run_recipe(
            prepared.recipe,
            {"model": initial_params(prepared.config, prepared.backbone, seed=config.seed)},
            prepared.batches,
            seed=config.seed,
            evaluate=dev_evaluation(
                forward(prepared.model, noisy=frozenset()),
                prepared.dev,
                prepared.dev_labels,
                buckets=config.data.lengths,
            ),
            checkpoints=checkpoints,
            journal=journal,
        )
    except KeyboardInterrupt:
        journal.say(f"stopped; the same command goes on from step {checkpoints.latest() or 0}")
        raise
    finally:
        journal.close()
        checkpoints.close()
    return params["model"]


def _save(config: TrainConfig, prepared: Prepared, run: RunDirectory, params: Params) -> None:
    """Write `model/` beside its place, then rename it there: a model directory is always a whole one."""
    unfinished = run.path / "model.tmp"
    unfinished.mkdir(exist_ok=True)
    prepared.tokenizer.save(unfinished)
    save_model(
        unfinished,
        jax.device_get(params),
        prepared.config,
        extra={
            "labels": list(prepared.task.labels),
            "max_length": config.data.max_length,
            "length_buckets": list(config.data.lengths),
            "precision": config.model.precision.value,
        },
    )
    unfinished.rename(run.model)


def _compare(config: TrainConfig, prepared: Prepared, run: RunDirectory) -> Comparison:
    """Measure the saved model on the test texts, print the table, keep the numbers."""
    task = prepared.task
    baseline = tfidf_svm_accuracy(task.train, task.test) if config.evaluate.baseline else None
    comparison = compare(
        load(run.path),
        [example.text for example in task.test],
        prepared.test_labels,
        evaluate=config.evaluate,
        baseline_accuracy=baseline,
    )
    write_json(run.comparison, comparison.to_json())
    print(render(comparison))
    return comparison


def describe(config: TrainConfig) -> str:
    """What `train` would do, in words: texts, shapes, steps, parameters, FLOPs. Trains nothing, writes nothing."""
    prepared = prepare(config)
    architecture, task = prepared.config, prepared.task
    shapes = jax.eval_shape(lambda: init_params(architecture, jax.random.key(0)))
    sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in shapes.items()}
    lines = [
        f"texts       train {len(task.train)}, dev {len(task.dev)}, test {len(task.test)}, "
        f"unlabelled {len(task.unlabelled)}",
        f"labels      {', '.join(task.labels)}",
        *(f"            {note}" for note in prepared.notes),
        f"model       {architecture.num_layers} layers of width {architecture.hidden_size}, "
        f"{sum(sizes.values()):,} parameters: " + ", ".join(f"{part} {size:,}" for part, size in sizes.items()),
    ]
    for phase in prepared.recipe.phases:
        batches = prepared.batches[phase.name]
        lines.append(
            f"{phase.name:<11} {len(batches)} steps of {phase.settings.batch_size} texts, "
            f"{batches.batches_per_epoch} an epoch; trains {', '.join(phase.trainable)}"
        )
        lines += [
            f"            {count} x [{phase.settings.batch_size}, {length}]"
            for length, count in sorted(Counter(rows.length for rows in batches.plan(0)).items())
        ]
    length = config.data.max_length
    full = true_flops(architecture, length, architecture.num_layers, exits_evaluated=1)
    first = true_flops(architecture, length, 1)
    lines.append(
        f"FLOPs       {full:,} for a text of {length} tokens at full depth, {first:,} if it leaves at the first layer"
    )
    return "\n".join(lines)

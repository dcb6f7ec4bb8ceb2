"""The plan of a run in words: texts, shapes, steps, FLOPs, and the memory of each device. Trains nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastbert_jax.config import TrainConfig
from fastbert_jax.model.sharding import make_mesh, param_shardings
from fastbert_jax.report.flops import Count, text_flops
from fastbert_jax.text.training_batches import Batches
from fastbert_jax.training.prepare import prepare
from fastbert_jax.training.recipe import RecipeModule
from fastbert_jax.training.step import placed_step
from fastbert_jax.training.terms import Phase, Tree


def describe(config: TrainConfig, recipe: RecipeModule) -> str:
    """The run that `config` asks for. Writes nothing.

    Raises:
      UserError: what `prepare` raises.
    """
    config = config.resolved
    mesh = make_mesh(config.mesh)
    prepared = prepare(config, mesh, recipe)
    architecture, task = prepared.config, prepared.task
    shapes = {
        name: start.abstract_params(param_shardings(mesh, start.network.config))
        for name, start in prepared.made.starts.items()
    }
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
    for phase in prepared.made.recipe.phases:
        lines += _phase_lines(phase, prepared.batches[phase.name], shapes, mesh)
    length = config.data.max_length
    network = prepared.made.network
    full = text_flops(Count.TRUE, network, length, network.num_layers, exits_evaluated=1)
    first = text_flops(Count.TRUE, network, length, 1)
    lines.append(
        f"FLOPs       {full:,} for a text of {length} tokens at full depth, {first:,} if it exits at the first layer"
    )
    return "\n".join(lines)


def _phase_lines(phase: Phase, batches: Batches, shapes: Tree, mesh: Mesh) -> list[str]:
    rows = phase.settings.batch_size
    lengths = Counter(planned.length for planned in batches.plan(0))
    placed = placed_step(phase, shapes, mesh=mesh, total_steps=max(len(batches), 1), key=jax.random.key(0))
    held = bytes_per_device((placed.state, placed.frozen))
    return [
        f"{phase.name:<11} {len(batches)} steps of {rows} rows, {batches.batches_per_epoch} an epoch; "
        f"trains {', '.join(phase.trains)}",
        f"            each device holds {held / 1e6:,.1f} MB of parameters and optimizer state",
        *(f"            {count} x [{rows}, {length}]" for length, count in sorted(lengths.items())),
    ]


def bytes_per_device(tree: Any) -> int:
    """What one device holds of (abstract) arrays."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )

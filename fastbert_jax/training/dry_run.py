"""What a run would do, in words: texts, shapes, steps, FLOPs, and what each device would hold. Trains nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastbert_jax.config import TrainConfig
from fastbert_jax.model.sharding import make_mesh, param_shardings
from fastbert_jax.report.flops import true_flops
from fastbert_jax.text.training_batches import Batches
from fastbert_jax.training.initial import abstract_params
from fastbert_jax.training.prepare import prepare
from fastbert_jax.training.recipe import Phase, Tree
from fastbert_jax.training.step import placed_step


def describe(config: TrainConfig) -> str:
    """The run that `config` asks for. Writes nothing.

    Raises:
      UserError: what `prepare` raises.
    """
    config = config.resolved
    mesh = make_mesh(config.mesh)
    prepared = prepare(config, mesh)
    architecture, task = prepared.config, prepared.task
    shapes = {
        name: abstract_params(start.config, param_shardings(mesh, start.config))
        for name, start in prepared.starts.items()
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
    for phase in prepared.recipe.phases:
        lines += _phase_lines(phase, prepared.batches[phase.name], shapes, mesh)
    length = config.data.max_length
    full = true_flops(architecture, length, architecture.num_layers, exits_evaluated=1)
    first = true_flops(architecture, length, 1)
    lines.append(
        f"FLOPs       {full:,} for a text of {length} tokens at full depth, {first:,} if it leaves at the first layer"
    )
    return "\n".join(lines)


def _phase_lines(phase: Phase, batches: Batches, shapes: Tree, mesh: Mesh) -> list[str]:
    rows = phase.settings.batch_size
    lengths = Counter(planned.length for planned in batches.plan(0))
    placed = placed_step(phase, shapes, mesh=mesh, total_steps=max(len(batches), 1), key=jax.random.key(0))
    held = bytes_per_device((placed.state, placed.frozen))
    return [
        f"{phase.name:<11} {len(batches)} steps of {rows} rows, {batches.batches_per_epoch} an epoch; "
        f"trains {', '.join(phase.trainable)}",
        f"            each device holds {held / 1e6:,.1f} MB of parameters and optimizer state",
        *(f"            {count} x [{rows}, {length}]" for length, count in sorted(lengths.items())),
    ]


def bytes_per_device(tree: Any) -> int:
    """What one device holds of (abstract) arrays."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )

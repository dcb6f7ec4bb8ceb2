"""Accuracy and cross entropy of every exit on the dev set, and where texts would exit.

Shapes in names: B batch, K texts per row, L exits, N classes, U speeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastbert_jax.inference.policies import entropy_uncertainty
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import local_rows, sharding_of, share_batch, shares_of
from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.training.loop import Evaluation
from fastbert_jax.training.losses import cross_entropy
from fastbert_jax.training.terms import Tree

BATCH_SIZE = 64
"""Rows of a batch, or the next multiple of what the mesh shares a batch out to."""
SPEEDS = (0.1, 0.3, 0.5, 0.8)
"""Where the exits' histogram is taken."""


class EvaluationSums(NamedTuple):
    """Sums over texts; those of several batches add up."""

    texts: jax.Array
    correct_L: jax.Array
    """Texts that each exit answers rightly."""
    loss_L: jax.Array
    """Cross entropy of each exit."""
    leaving_UxL: jax.Array
    """Texts that leave at each layer, for each of the U `SPEEDS`."""


def evaluation_step(params: Tree, batch: Batch, *, network: Bert) -> EvaluationSums:
    """The result of every exit on one labelled batch; padding rows count nothing."""
    logits_LxBxKxN = network.trace(params, batch).exit_logits_LxBxKxN
    correct_LxBxK = (logits_LxBxKxN.argmax(-1) == batch.label_BxK[None]) & batch.valid_BxK[None]
    loss_LxBxK = jnp.where(batch.valid_BxK[None], cross_entropy(logits_LxBxKxN, batch.label_BxK), 0.0)
    sure_UxLxBxK = jnp.stack([entropy_uncertainty(logits_LxBxKxN) < speed for speed in SPEEDS])
    leaving_UxBxK = jnp.argmax(sure_UxLxBxK.at[:, -1].set(True), axis=1)
    layers_L = jnp.arange(len(logits_LxBxKxN))
    leaving_UxLxBxK = (leaving_UxBxK[:, None] == layers_L[None, :, None, None]) & batch.valid_BxK[None, None]
    return EvaluationSums(
        batch.valid_BxK.sum(), correct_LxBxK.sum((1, 2)), loss_LxBxK.sum((1, 2)), leaving_UxLxBxK.sum((2, 3))
    )


def dev_evaluation(
    network: Bert, dev: Encoded, labels: np.ndarray, *, buckets: tuple[int, ...], mesh: Mesh
) -> Callable[[Tree], Evaluation]:
    """A function from a recipe's parameters to their evaluation on dev; the accuracy of the last exit is the score.

    Every process calls it with the same parameters, and gets the same values.
    """
    shares = shares_of(mesh, "batch")
    size = -(-BATCH_SIZE // shares) * shares
    rows = local_rows(mesh, size)
    whole = sharding_of(mesh, ())
    step = jax.jit(functools.partial(evaluation_step, network=network), out_shardings=whole)
    plan = inference_plan(dev.lengths, buckets=buckets, batch_sizes=size)
    batches = [
        Batch(*(array[rows] for array in collate(dev, part.rows, batch_size=size, length=part.length, labels=labels)))
        for part in plan
    ]

    def by_layer(values_L: np.ndarray) -> list[float | None]:
        """One value for each layer, None where it has no exit."""
        found = dict(zip(network.config.exit_layers, values_L.tolist(), strict=True))
        return [found.get(layer) for layer in range(1, network.num_layers + 1)]

    def evaluate(params: Tree) -> Evaluation:
        sums = [step(params["model"], share_batch(mesh, batch, size)) for batch in batches]
        texts, correct_L, loss_L, leaving_UxL = jax.tree.map(
            lambda *parts: np.sum([np.asarray(part) for part in parts], 0), *sums
        )
        accuracy_L = correct_L / texts
        return Evaluation(
            score=float(accuracy_L[-1]),
            values={
                "accuracy": by_layer(accuracy_L),
                "loss": by_layer(loss_L / texts),
                "leaving": {str(speed): by_layer(texts_L) for speed, texts_L in zip(SPEEDS, leaving_UxL, strict=True)},
            },
            words="dev accuracy by exit "
            + " ".join(f"{accuracy:.4f}" for accuracy in accuracy_L)
            + "; mean depth "
            + ", ".join(
                f"{float(texts_L @ np.array(network.config.exit_layers)) / float(texts):.2f} at speed {speed}"
                for speed, texts_L in zip(SPEEDS, leaving_UxL, strict=True)
            ),
        )

    return evaluate

"""What the dev set says of some parameters: accuracy and cross entropy of every exit.

Shapes in names: B batch, K texts per row, L layers, N classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.training.loop import Evaluation
from fastbert_jax.training.losses import cross_entropy
from fastbert_jax.training.recipe import Apply, Tree

BATCH_SIZE = 64


class EvaluationSums(NamedTuple):
    """Sums over texts; those of several batches add up."""

    texts: jax.Array
    correct_L: jax.Array
    """Texts that each exit answers rightly."""
    loss_L: jax.Array
    """Cross entropy of each exit."""


def evaluation_step(params: Tree, batch: Batch, *, apply: Apply) -> EvaluationSums:
    """What every exit answers to one labelled batch; padding rows count nothing.

    Args:
      apply: FastBERT as a source without dropout, `fastbert_recipe.forward`.
    """
    logits_LxBxKxN = apply(params, batch, None).logits_LxBxKxN
    label_LxBxK = jnp.broadcast_to(batch.label_BxK[None], logits_LxBxKxN.shape[:-1])
    valid_LxBxK = jnp.broadcast_to(batch.valid_BxK[None], label_LxBxK.shape)
    correct_LxBxK = (logits_LxBxKxN.argmax(-1) == label_LxBxK) & valid_LxBxK
    loss_LxBxK = jnp.where(valid_LxBxK, cross_entropy(logits_LxBxKxN, label_LxBxK), 0.0)
    return EvaluationSums(batch.valid_BxK.sum(), correct_LxBxK.sum((1, 2)), loss_LxBxK.sum((1, 2)))


def dev_evaluation(
    apply: Apply, dev: Encoded, labels: np.ndarray, *, buckets: tuple[int, ...]
) -> Callable[[Tree], Evaluation]:
    """A function from a recipe's parameters to what the dev set says; the teacher's accuracy is the score."""
    step = jax.jit(functools.partial(evaluation_step, apply=apply))
    plan = inference_plan(dev.lengths, buckets=buckets, batch_sizes=BATCH_SIZE)
    batches = [collate(dev, rows.rows, batch_size=BATCH_SIZE, length=rows.length, labels=labels) for rows in plan]

    def evaluate(params: Tree) -> Evaluation:
        sums = [step(params["model"], batch) for batch in batches]
        texts, correct_L, loss_L = jax.tree.map(lambda *parts: np.sum([np.asarray(p) for p in parts], 0), *sums)
        accuracy_L, loss_L = correct_L / texts, loss_L / texts
        return Evaluation(
            score=float(accuracy_L[-1]),
            values={"accuracy": accuracy_L.tolist(), "loss": loss_L.tolist()},
            words="dev accuracy by exit " + " ".join(f"{accuracy:.4f}" for accuracy in accuracy_L),
        )

    return evaluate

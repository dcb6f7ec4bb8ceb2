"""Losses: one value per text, the reduction left to the caller.

All take `(student, target)` with any leading axes, compute in float32 and say their direction. The caller stops the
gradient of the target. B batch, K texts per row, N classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, label_BxK: jax.Array) -> jax.Array:
    """`-log softmax(logits)[label]`; labels are int32 in 0..N-1 (others give NaN, never a silent value).

    `logits` are `[B, K, N]`, or have more leading axes: all exits learn the same labels.
    """
    labels = jnp.broadcast_to(label_BxK, logits.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def kl_student_teacher(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """KL(student || teacher) of two arrays of logits: equation 5 of the FastBERT paper.

    `student` may have more leading axes than `teacher`: all exits are taught at once.
    """
    log_student, log_teacher = _log_softmax(student), _log_softmax(teacher)
    return jnp.sum(jnp.exp(log_student) * (log_student - _lead(log_teacher, log_student)), axis=-1)


def kl_teacher_student(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """KL(teacher || student) of two arrays of logits: what the released FastBERT code computes."""
    log_student, log_teacher = _log_softmax(student), _log_softmax(teacher)
    log_teacher = _lead(log_teacher, log_student)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def _log_softmax(logits: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def _lead(array: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.expand_dims(array, tuple(range(like.ndim - array.ndim)))

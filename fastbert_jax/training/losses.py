"""Losses: one value per text or token, the reduction left to the caller.

All take `(student, target)` with any leading axes and compute in float32. The caller stops the gradient of the target.
B batch, K texts per row, H hidden, N classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Float32, Int

from fastbert_jax.config import KLDirection
from fastbert_jax.model.network import Array


def cross_entropy(logits: Float[Array, "*lead B K N"], label_BxK: Int[Array, "B K"]) -> Float32[jax.Array, "*lead B K"]:
    """`-log softmax(logits)[label]`; labels are int32 in 0..N-1 (others give NaN, never a silent value).

    `logits` are `[B, K, N]`, or have more leading axes: all exits learn the same labels.
    """
    labels = jnp.broadcast_to(label_BxK, logits.shape[:-1])
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits, jnp.float32), labels)
    return losses


def kl_student_teacher(
    student: Float[Array, "*lead B K N"], teacher: Float[Array, "B K N"], *, temperature: float = 1.0
) -> Float32[jax.Array, "*lead B K"]:
    """KL(student || teacher) of two arrays of logits: equation 5 of the FastBERT paper.

    `student` may have more leading axes than `teacher`: all exits learn from one target.
    """
    log_student, log_teacher = _log_softmaxes(student, teacher, temperature)
    return jnp.sum(jnp.exp(log_student) * (log_student - log_teacher), axis=-1)


def kl_teacher_student(
    student: Float[Array, "*lead B K N"], teacher: Float[Array, "B K N"], *, temperature: float = 1.0
) -> Float32[jax.Array, "*lead B K"]:
    """KL(teacher || student) of two arrays of logits: that of Hinton et al. 2015, and of the released FastBERT code.

    Both arrays are divided by the temperature. The factor T^2, which keeps the gradient's size, is left to the weight.
    """
    log_student, log_teacher = _log_softmaxes(student, teacher, temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)


KL_LOSSES = {KLDirection.STUDENT_TEACHER: kl_student_teacher, KLDirection.TEACHER_STUDENT: kl_teacher_student}
"""The KL of each direction."""


def squared_error(student: Float[Array, "*lead H"], target: Float[Array, "*lead H"]) -> Float32[jax.Array, "*lead"]:
    """The squared distance of two arrays of vectors: summed over the last axis."""
    return jnp.square(jnp.asarray(student, jnp.float32) - jnp.asarray(target, jnp.float32)).sum(-1)


def directions_squared_error(
    student: Float[Array, "*lead H"], target: Float[Array, "*lead H"]
) -> Float32[jax.Array, "*lead"]:
    """The squared distance of two arrays of vectors at length 1, in [0, 4] (Sun et al. 2019, equation 7).

    Of a vector of zeros, whose direction is not defined, nothing is learned.
    """

    def unit(vectors: Array) -> jax.Array:
        vectors = jnp.asarray(vectors, jnp.float32)
        squares = jnp.square(vectors).sum(-1, keepdims=True)
        is_zero = squares == 0
        return jnp.where(is_zero, 0.0, vectors * jax.lax.rsqrt(jnp.where(is_zero, 1.0, squares)))

    return squared_error(unit(student), unit(target))


def _log_softmaxes(student: Array, teacher: Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Float32 log-probabilities; the teacher's with leading axes to fit the student's."""
    log_student, log_teacher = (
        jax.nn.log_softmax(jnp.asarray(x, jnp.float32) / temperature) for x in (student, teacher)
    )
    return log_student, jnp.expand_dims(log_teacher, tuple(range(log_student.ndim - log_teacher.ndim)))

"""Properties of the losses: values, directions, finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from fastbert_jax.training import losses

KL = (losses.kl_student_teacher, losses.kl_teacher_student)


def _logits(seed: int, *shape: int) -> jax.Array:
    return 3.0 * jax.random.normal(jax.random.key(seed), shape)


def test_kl_directions_against_scipy():
    student, teacher = _logits(0, 4, 1, 5), _logits(1, 4, 1, 5)
    p_student, p_teacher = (scipy.special.softmax(np.asarray(x, np.float64), -1) for x in (student, teacher))
    paper = scipy.special.rel_entr(p_student, p_teacher).sum(-1)
    released = scipy.special.rel_entr(p_teacher, p_student).sum(-1)
    assert abs(paper - released).max() > 0.1  # else this test could not tell them apart
    np.testing.assert_allclose(losses.kl_student_teacher(student, teacher), paper, rtol=1e-4)
    np.testing.assert_allclose(losses.kl_teacher_student(student, teacher), released, rtol=1e-4)


@pytest.mark.parametrize("kl", KL)
def test_kl_teaches_all_exits_at_once(kl):
    students, teacher = _logits(0, 3, 4, 1, 5), _logits(1, 4, 1, 5)
    together = kl(students, teacher)
    assert together.shape == (3, 4, 1)
    for exit_index in range(3):
        np.testing.assert_allclose(together[exit_index], kl(students[exit_index], teacher), rtol=1e-6)


@pytest.mark.parametrize("kl", KL)
def test_kl_of_equal_logits_is_zero_with_zero_gradient(kl):
    logits = _logits(0, 4, 1, 5)
    np.testing.assert_allclose(kl(logits, logits), 0.0, atol=1e-6)
    gradient = jax.grad(lambda student: kl(student, logits).sum())(logits)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("kl", KL)
def test_kl_stays_finite_at_the_edges(kl):
    sure, other = jnp.array([[[200.0, 0.0]]]), jnp.array([[[0.0, 200.0]]])
    for dtype in (jnp.float32, jnp.bfloat16):
        value, gradient = jax.value_and_grad(lambda s: kl(s, other.astype(dtype)).sum())(sure.astype(dtype))  # noqa: B023
        assert value.dtype == jnp.float32
        assert np.isfinite(value) and np.isfinite(np.asarray(gradient, np.float32)).all()


def test_cross_entropy_is_the_negative_log_probability():
    logits, labels = _logits(0, 6, 1, 4), jnp.array([[0], [1], [2], [3], [0], [1]])
    expected = -scipy.special.log_softmax(np.asarray(logits, np.float64), -1)[np.arange(6), 0, labels[:, 0]]
    np.testing.assert_allclose(losses.cross_entropy(logits, labels)[:, 0], expected, rtol=1e-4)


def test_cross_entropy_of_a_wrong_label_is_never_a_silent_number():
    assert np.isnan(losses.cross_entropy(_logits(0, 1, 1, 4), jnp.array([[7]]))).all()

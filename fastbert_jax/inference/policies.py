"""How sure an exit is: policies that turn logits into an uncertainty, and the rule by which a text leaves.

A text leaves at the first layer whose uncertainty is below the threshold, `speed`; the last layer answers the rest.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.errors import UserError

Memory = Any
"""What a policy remembers of a text between layers: a tree of arrays `[B, ...]`, or `()`."""


class Policy(Protocol):
    """What every engine asks of a policy. It knows neither layers nor batches: one threshold per layer is `speed`'s."""

    def start(self, rows: int) -> Memory:
        """The memory of `rows` texts before the first layer."""
        ...

    def judge(self, memory: Memory, logits_BxN: jax.Array) -> tuple[Memory, jax.Array]:
        """The memory after one more exit, and the uncertainty of its answers, float32 `[B]` in [0, 1]."""
        ...


class Entropy:
    """The paper's policy (section 3.3): the entropy of each answer alone."""

    def start(self, rows: int) -> Memory:
        """Nothing is remembered."""
        return ()

    def judge(self, memory: Memory, logits_BxN: jax.Array) -> tuple[Memory, jax.Array]:
        """The normalised entropy of each answer."""
        return memory, entropy_uncertainty(logits_BxN)


def entropy_uncertainty(logits: jax.Array) -> jax.Array:
    """Entropy of softmax(logits) over log N, the paper's equation 7: 0 is certain, 1 is uniform.

    Args:
      logits: `[..., N]`, N of 2 or more.

    Returns:
      Float32 `[...]` in [0, 1]; logits that hold a NaN or +inf count as wholly uncertain, 1.
    """
    logits = logits.astype(jnp.float32)
    # With the largest logit at 0, entropy is log(sum exp z) - sum p z: exactly 0 and log N at the two ends.
    shifted = logits - logits.max(-1, keepdims=True)
    exponentials = jnp.exp(shifted)
    total = exponentials.sum(-1)
    weighted = jnp.where(exponentials > 0, exponentials * shifted, 0).sum(-1)
    entropy = jnp.log(total) - weighted / total
    uncertainty = jnp.clip(entropy / np.log(np.float32(logits.shape[-1])), 0, 1)
    return jnp.nan_to_num(uncertainty, nan=1.0)


def layer_thresholds(speed: float | np.ndarray, num_layers: int) -> np.ndarray:
    """`speed`, one number or one per layer, as float32 `[L]`.

    Raises:
      UserError: anything else.
    """
    try:
        thresholds = np.asarray(speed)
    except ValueError:  # rows of unlike lengths
        thresholds = np.asarray(None)
    is_number = thresholds.dtype.kind in "buif"
    fits = is_number and thresholds.shape in ((), (num_layers,))
    if not fits:
        raise UserError(f"speed: expected one number or {num_layers} numbers in [0, 1], found {speed!r}")
    return np.broadcast_to(thresholds.astype(np.float32), (num_layers,))


def exit_indices(uncertainty_LxB: np.ndarray, speed: float | np.ndarray) -> np.ndarray:
    """Which exit answers each text, counting from 0, when every exit's uncertainty is known: int `[B]`."""
    sure_LxB = uncertainty_LxB < layer_thresholds(speed, len(uncertainty_LxB))[:, None]
    sure_LxB[-1] = True
    return sure_LxB.argmax(0)

"""Exit policies: how uncertain an exit is, and at which layer a text exits.

A text exits at the first layer whose uncertainty is below the threshold, `speed`; the last layer takes the rest.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from fastbert_jax.config import ExitConfig, PolicyName
from fastbert_jax.errors import UserError
from fastbert_jax.model.network import Array

PolicyState = Any
"""What a policy keeps of a text between layers: a tree of arrays `[B, ...]`, or `()`."""


@runtime_checkable
class Policy(Protocol):
    """What every engine asks of a policy. Thresholds per layer are not its part: `speed` has them."""

    def start(self, rows: int) -> PolicyState:
        """The state of `rows` texts before the first layer."""
        ...

    def judge(
        self, state: PolicyState, logits_BxN: Float[Array, "B N"]
    ) -> tuple[PolicyState, Float32[jax.Array, " B"]]:
        """The state after one more exit, and its uncertainty, float32 `[B]` in [0, 1]."""
        ...


class _Stateless:
    """A policy that judges each exit alone."""

    def start(self, rows: int) -> PolicyState:
        """Nothing is kept."""
        return ()

    def judge(
        self, state: PolicyState, logits_BxN: Float[Array, "B N"]
    ) -> tuple[PolicyState, Float32[jax.Array, " B"]]:
        """The uncertainty of each text."""
        return state, self.uncertainty(logits_BxN)

    def uncertainty(self, logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
        """Float32 `[B]` in [0, 1]."""
        raise NotImplementedError


class Entropy(_Stateless):
    """The paper's policy (section 3.3): normalised entropy, equation 7."""

    def uncertainty(self, logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
        """See `entropy_uncertainty`."""
        return entropy_uncertainty(logits_BxN)


class TopEntropy(_Stateless):
    """The normalised entropy of the most probable classes, their probabilities made to sum to one.

    For tasks of many classes, where plain entropy stays near 1 and no text exits early (autoliuweijie/FastBERT, issue
    7, proposed by its author).
    """

    def __init__(self, top: int) -> None:
        self.top = top

    def uncertainty(self, logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
        """With `top` classes or fewer, that of `Entropy`."""
        top = min(self.top, logits_BxN.shape[-1])
        broken_B = jnp.isnan(logits_BxN).any(-1)  # top_k may or may not return a NaN
        top_BxT = jax.lax.top_k(jnp.asarray(logits_BxN, jnp.float32), top)[0]
        return jnp.where(broken_B, 1.0, entropy_uncertainty(top_BxT))


class MaxProbability(_Stateless):
    """1 - the largest probability: from 0 to 1 - 1 / N."""

    def uncertainty(self, logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
        """Logits with a NaN count as wholly uncertain."""
        probabilities_BxN = jax.nn.softmax(jnp.asarray(logits_BxN, jnp.float32))
        return jnp.nan_to_num(1 - probabilities_BxN.max(-1), nan=1.0)


class Margin(_Stateless):
    """1 - the lead of the largest probability over the second."""

    def uncertainty(self, logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
        """Logits with a NaN count as wholly uncertain."""
        probabilities_BxN = jax.nn.softmax(jnp.asarray(logits_BxN, jnp.float32))
        top_Bx2 = jax.lax.top_k(probabilities_BxN, 2)[0]
        return jnp.nan_to_num(1 - (top_Bx2[:, 0] - top_Bx2[:, 1]), nan=1.0)


class Patience:
    """PABEE (Zhou et al. 2020): a text exits when `patience` exits in a row gave the label of the one before them.

    The uncertainty is 0 then and 1 before, so that every speed above 0 has the same effect.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def start(self, rows: int) -> PolicyState:
        """The last label, none yet, and how many exits in a row agreed with the one before."""
        return np.full(rows, -1, np.int32), np.zeros(rows, np.int32)

    def judge(
        self, state: PolicyState, logits_BxN: Float[Array, "B N"]
    ) -> tuple[PolicyState, Float32[jax.Array, " B"]]:
        """0 where enough exits agree, else 1; a NaN agrees with nothing."""
        label_B, agreed_B = state
        broken_B = jnp.isnan(logits_BxN).any(-1)
        new_label_B = jnp.where(broken_B, -1, logits_BxN.argmax(-1).astype(jnp.int32))
        agrees_B = (new_label_B == label_B) & ~broken_B
        agreed_B = jnp.where(agrees_B, agreed_B + 1, 0)
        return (new_label_B, agreed_B), jnp.where(agreed_B >= self.patience, 0.0, 1.0)


def make_policy(exits: ExitConfig) -> Policy:
    """The policy that the settings name."""
    match exits.policy:
        case PolicyName.ENTROPY:
            return Entropy()
        case PolicyName.TOP_ENTROPY:
            return TopEntropy(exits.top)
        case PolicyName.MAX_PROBABILITY:
            return MaxProbability()
        case PolicyName.MARGIN:
            return Margin()
        case PolicyName.PATIENCE:
            return Patience(exits.patience)
    raise ValueError(f"expected a policy of {[name.value for name in PolicyName]}, found {exits.policy!r}")


def entropy_uncertainty(logits: Float[Array, "*lead N"]) -> Float32[jax.Array, "*lead"]:
    """Entropy of softmax(logits) over log N, equation 7 of the paper: exactly 0 is certain, exactly 1 is uniform.

    Args:
      logits: `[..., N]` of any float dtype, judged in float32; -inf is a probability of 0.

    Returns:
      Float32 `[...]` in [0, 1]; logits that hold a NaN or +inf count as wholly uncertain, 1.

    Raises:
      ValueError: fewer than two classes: log N is 0.
    """
    num_classes = logits.shape[-1]
    if num_classes < 2:
        raise ValueError(f"expected logits of two classes or more, found {num_classes}")
    logits = jnp.asarray(logits, jnp.float32)
    # With the largest logit at 0, entropy is log(sum exp z) - sum p z: exactly 0 and log N at the two ends.
    shifted = logits - logits.max(-1, keepdims=True)
    exponentials = jnp.exp(shifted)
    total = exponentials.sum(-1)
    weighted = jnp.where(exponentials > 0, exponentials * shifted, 0).sum(-1)
    entropy = jnp.log(total) - weighted / total
    uncertainty = jnp.clip(entropy / np.log(np.float32(num_classes)), 0, 1)
    # The device's log N may be a digit below numpy's, as XLA's is for 6, 10 and 37 classes on a CPU.
    return jnp.where(total == num_classes, 1.0, jnp.nan_to_num(uncertainty, nan=1.0))


def layer_thresholds(speed: Any, num_layers: int) -> Float32[np.ndarray, " L"]:
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


def exit_indices(uncertainty_LxB: Float[np.ndarray, "L B"], speed: Any) -> Int[np.ndarray, " B"]:
    """The exit of each text, counting from 0, when the uncertainty of every exit is known: int `[B]`."""
    sure_LxB = uncertainty_LxB < layer_thresholds(speed, len(uncertainty_LxB))[:, None]
    sure_LxB[-1] = True
    exits_B: np.ndarray = sure_LxB.argmax(0)
    return exits_B

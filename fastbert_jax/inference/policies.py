"""Exit policies: how uncertain an exit is, and at which layer a text exits.

A text exits at the first layer whose uncertainty is below the threshold, `speed`; the last layer takes the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from fastbert_jax.config import ExitConfig, PolicyName
from fastbert_jax.errors import UserError
from fastbert_jax.model.network import Array

PolicyState = Any
"""What a policy keeps of a text between layers: a tree of arrays `[B, ...]`, or `()`."""


class Policy(NamedTuple):
    """What every engine asks of a policy. Thresholds per layer are not its part: `speed` has them."""

    judge: Callable[[PolicyState, Array], tuple[PolicyState, jax.Array]]
    """From the state and an exit's logits `[B, N]`, the state after it and its uncertainty, float32 `[B]` in [0, 1]."""
    start: Callable[[int], PolicyState] = lambda rows: ()
    """The state of so many texts before the first layer."""


Uncertainty = Callable[[Array], jax.Array]
"""From an exit's logits `[B, N]` to its uncertainty, float32 `[B]` in [0, 1]: a policy without a state."""


def make_policy(exits: ExitConfig, own: Any = None) -> Policy:
    """The policy that the settings name, or a user's `own`: a `Policy`, or an `Uncertainty`.

    Raises:
      UserError: an own policy beside a named one, or something else in its place.
    """
    if own is not None:
        if exits.policy is not PolicyName.ENTROPY:
            raise UserError(f"policy: expected none beside exits.policy {exits.policy.value}, found {own!r}")
        if not callable(own) and not isinstance(own, Policy):
            raise UserError(f"policy: expected a Policy, or a function of an exit's logits, found {own!r}")
        return own if isinstance(own, Policy) else _of_logits(own)
    if exits.policy is PolicyName.PATIENCE:
        return patience(exits.patience)
    alone: dict[PolicyName, Uncertainty] = {
        PolicyName.ENTROPY: entropy_uncertainty,
        PolicyName.TOP_ENTROPY: functools.partial(top_entropy, top=exits.top),
        PolicyName.MAX_PROBABILITY: max_probability,
        PolicyName.MARGIN: margin,
    }
    return _of_logits(alone[exits.policy])


def _of_logits(uncertainty: Uncertainty) -> Policy:
    return Policy(lambda state, logits_BxN: (state, uncertainty(logits_BxN)))


def top_entropy(logits_BxN: Float[Array, "B N"], top: int) -> Float32[jax.Array, " B"]:
    """The normalised entropy of the `top` most probable classes, their probabilities made to sum to one.

    For tasks of many classes, where plain entropy stays near 1 and no text exits early (autoliuweijie/FastBERT, issue
    7, proposed by its author). With `top` classes or fewer, it is plain entropy.
    """
    broken_B = jnp.isnan(logits_BxN).any(-1)  # top_k may or may not return a NaN
    top_BxT = jax.lax.top_k(jnp.asarray(logits_BxN, jnp.float32), min(top, logits_BxN.shape[-1]))[0]
    return jnp.where(broken_B, 1.0, entropy_uncertainty(top_BxT))


def max_probability(logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
    """1 - the largest probability: from 0 to 1 - 1 / N; 1 where a logit is NaN."""
    probabilities_BxN = jax.nn.softmax(jnp.asarray(logits_BxN, jnp.float32))
    return jnp.nan_to_num(1 - probabilities_BxN.max(-1), nan=1.0)


def margin(logits_BxN: Float[Array, "B N"]) -> Float32[jax.Array, " B"]:
    """1 - the lead of the largest probability over the second; 1 where a logit is NaN."""
    probabilities_BxN = jax.nn.softmax(jnp.asarray(logits_BxN, jnp.float32))
    top_Bx2 = jax.lax.top_k(probabilities_BxN, 2)[0]
    return jnp.nan_to_num(1 - (top_Bx2[:, 0] - top_Bx2[:, 1]), nan=1.0)


def patience(exits: int) -> Policy:
    """PABEE (Zhou et al. 2020): a text exits when so many exits in a row gave the label of the one before them.

    The uncertainty is 0 then and 1 before, so that every speed above 0 has the same effect. A NaN agrees with nothing.
    The state is the last label, -1 before the first, and how many exits in a row agreed with the one before.
    """

    def judge(state: PolicyState, logits_BxN: Array) -> tuple[PolicyState, jax.Array]:
        label_B, agreed_B = state
        broken_B = jnp.isnan(logits_BxN).any(-1)
        new_label_B = jnp.where(broken_B, -1, logits_BxN.argmax(-1).astype(jnp.int32))
        agrees_B = (new_label_B == label_B) & ~broken_B
        agreed_B = jnp.where(agrees_B, agreed_B + 1, 0)
        return (new_label_B, agreed_B), jnp.where(agreed_B >= exits, 0.0, 1.0)

    return Policy(judge, lambda rows: (np.full(rows, -1, np.int32), np.zeros(rows, np.int32)))


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
    """`speed`, one number or one per layer, in [0, 1], as float32 `[L]`.

    Raises:
      UserError: anything else.
    """
    try:
        thresholds = np.asarray(speed)
    except ValueError:  # rows of unlike lengths
        thresholds = np.asarray(None)
    fits = thresholds.dtype.kind in "uif" and thresholds.shape in ((), (num_layers,))
    if not fits or not np.all((thresholds >= 0) & (thresholds <= 1)):
        raise UserError(f"speed: expected one number or {num_layers} numbers in [0, 1], found {speed!r}")
    return np.broadcast_to(thresholds.astype(np.float32), (num_layers,))


def exit_indices(uncertainty_LxB: Float[np.ndarray, "L B"], speed: Any) -> Int[np.ndarray, " B"]:
    """The exit of each text, counting from 0, when the uncertainty of every exit is known: int `[B]`.

    `speed` is one threshold, or one per layer `[L]`.
    """
    thresholds_L = np.broadcast_to(np.asarray(speed, np.float32), (len(uncertainty_LxB),))
    sure_LxB = uncertainty_LxB < thresholds_L[:, None]
    sure_LxB[-1] = True
    exits_B: np.ndarray = sure_LxB.argmax(0)
    return exits_B

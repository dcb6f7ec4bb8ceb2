"""What every setting's check needs."""

from __future__ import annotations

from fastbert_jax.errors import UserError


def require(condition: bool, key: str, expected: str, found: object) -> None:
    """Raise `UserError` unless a setting's value is one that is expected."""
    if not condition:
        raise UserError(f"{key}: expected {expected}, found {found!r}")


def require_batches(batch_size: int, batch_tokens: int) -> None:
    """Check the two settings of a batch's size."""
    require(batch_size >= 0, "batch_size", "1 or more, or 0 to go by batch_tokens", batch_size)
    require(batch_tokens >= 1, "batch_tokens", "1 or more", batch_tokens)

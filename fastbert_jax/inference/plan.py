"""Texts laid out in batches of static shape, and what that costs in padding and in tokens cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastbert_jax.config import BATCH_TOKENS
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines.static_sizes import batch_buckets, smallest_bucket
from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded


class PlannedBatch(NamedTuple):
    """A batch, and which text each of its first rows holds."""

    texts: np.ndarray
    batch: Batch


@dataclass(frozen=True)
class BatchedTexts:
    """All batches of some texts, the shortest texts first."""

    batches: tuple[PlannedBatch, ...]
    truncated_texts: int
    """Texts that were longer than the model's longest, and lost their end."""
    truncated_tokens: int

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return sum(len(planned.texts) for planned in self.batches)

    @property
    def padded_lengths(self) -> np.ndarray:
        """The length that each text is padded to, int `[texts]`, in the texts' order."""
        lengths = np.zeros(self.texts, int)
        for planned in self.batches:
            lengths[planned.texts] = planned.batch.text_BxS.shape[1]
        return lengths

    @property
    def padding_share(self) -> float:
        """The share of all places in the batches, rows without a text included, that hold no token."""
        places = sum(planned.batch.text_BxS.size for planned in self.batches)
        tokens = sum(int(np.count_nonzero(planned.batch.text_BxS)) for planned in self.batches)
        return 1 - tokens / places if places else 0.0


def batch_rows(lengths: Sequence[int], *, batch_size: int, batch_tokens: int) -> dict[int, int]:
    """How many texts of each length a full batch holds.

    Raises:
      UserError: a batch of less than one text.
    """
    if batch_size < 0:
        raise UserError(f"batch_size: expected 1 or more, or 0 to go by batch_tokens, found {batch_size}")
    if batch_tokens < 1:
        raise UserError(f"batch_tokens: expected 1 or more, found {batch_tokens}")
    return {length: batch_size or max(1, batch_tokens // length) for length in lengths}


def plan_batches(
    encoded: Encoded, *, lengths: Sequence[int], batch_size: int = 0, batch_tokens: int = BATCH_TOKENS
) -> BatchedTexts:
    """Lay texts out in batches of like lengths; a batch that is not full takes a smaller bucket of rows.

    Args:
      lengths: rising static lengths, the last as long as the longest text or longer.
      batch_size: texts per batch; 0: as many as `batch_tokens` holds, so that short texts share large batches.
      batch_tokens: tokens per batch, padding included.

    Raises:
      UserError: a batch of less than one text.
    """
    sizes = batch_rows(lengths, batch_size=batch_size, batch_tokens=batch_tokens)
    batches = []
    for part in inference_plan(encoded.lengths, buckets=tuple(sizes), batch_sizes=tuple(sizes.values())):
        rows = smallest_bucket(batch_buckets(sizes[part.length]), len(part.rows))
        batches.append(PlannedBatch(part.rows, collate(encoded, part.rows, batch_size=rows, length=part.length)))
    return BatchedTexts(tuple(batches), encoded.truncated_texts, encoded.truncated_tokens)

"""A plan: texts laid out in batches of static shape, and what that cost in padding and in tokens cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastbert_jax.inference.bucketed import batch_buckets, smallest_bucket
from fastbert_jax.text.batches import Batch, collate, inference_plan
from fastbert_jax.text.tokenizer import Encoded


class PlannedBatch(NamedTuple):
    """A batch, and which text each of its first rows holds."""

    texts: np.ndarray
    batch: Batch


@dataclass(frozen=True)
class Plan:
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


def plan_batches(encoded: Encoded, *, batch_size: int, lengths: Sequence[int]) -> Plan:
    """Lay texts out in batches of like lengths; a batch that is not full takes a smaller bucket of rows.

    Args:
      lengths: rising static lengths, the last as long as the longest text or longer.
    """
    buckets = batch_buckets(batch_size)
    batches = tuple(
        PlannedBatch(
            part.rows,
            collate(encoded, part.rows, batch_size=smallest_bucket(buckets, len(part.rows)), length=part.length),
        )
        for part in inference_plan(encoded.lengths, buckets=tuple(lengths), batch_size=batch_size)
    )
    return Plan(batches, encoded.truncated_texts, encoded.truncated_tokens)

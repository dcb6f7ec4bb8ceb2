"""Queues of texts on the device: ring buffers of static size, taken from and added to without leaving the device.

Shapes in names: B texts (one per row), Q places of a queue, S sequence, H hidden, K = 1 text per row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastbert_jax.inference.engines.runtime import Array
from fastbert_jax.inference.policies import Memory


class Texts(NamedTuple):
    """Texts between two layers, one per row; the first axis is B in a batch and Q in a queue."""

    hidden_BxSxH: jax.Array
    text_BxS: Array
    cls_BxK: Array
    memory: Memory
    """What the policy remembers of each."""
    ticket_B: Array
    """int32; which text it is."""


class Queue(NamedTuple):
    """Texts that wait for one layer, the oldest first from `head` on, round the end of the buffer."""

    texts: Texts
    """Leaves `[Q, ...]`."""
    head: jax.Array
    """int32 scalar: the place of the oldest."""
    size: jax.Array
    """int32 scalar: how many there are."""


def empty_queue(like: Texts, *, places: int) -> Queue:
    """A queue of `places` for texts shaped as `like` (arrays or their shapes), whose rows it leaves out."""
    texts = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape[1:]), leaf.dtype), like)
    return Queue(texts, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def pop(queue: Queue, rows: int) -> tuple[Queue, Texts, jax.Array]:
    """The queue without its `rows` oldest, these `[B, ...]`, and which of them are texts, bool `[B]`."""
    row_B = jnp.arange(rows, dtype=jnp.int32)
    places = queue.texts.ticket_B.shape[0]
    place_B = (queue.head + row_B) % places
    texts = jax.tree.map(lambda leaf: leaf[place_B], queue.texts)
    taken = jnp.minimum(queue.size, rows)
    return Queue(queue.texts, (queue.head + taken) % places, queue.size - taken), texts, row_B < taken


def push(queue: Queue, texts: Texts, chosen_B: jax.Array) -> Queue:
    """The queue with the texts that `chosen_B` says at its end, in their order.

    There must be room: a text beyond the queue's places would overwrite the oldest.
    """
    places = queue.texts.ticket_B.shape[0]
    number_B = jnp.cumsum(chosen_B, dtype=jnp.int32)
    # Out of range where a text is not chosen, and dropped there.
    place_B = jnp.where(chosen_B, (queue.head + queue.size + number_B - 1) % places, places)
    held = jax.tree.map(lambda all_, new: all_.at[place_B].set(new, mode="drop"), queue.texts, texts)
    return Queue(held, queue.head, queue.size + number_B[-1])

"""The cascade engine, driven from the host: a queue of texts before every layer, so that batches stay full.

Always the deepest full batch runs; when none is full, new texts are embedded; when there are no more, what is left runs
from the shallowest layer up, so that stragglers merge on their way.
Queues are ring buffers of static size on the device, taken from and added to without leaving it.
Shapes in names: B texts (one per row), Q places of a queue, S sequence, H hidden, K = 1 text per row, L layers,
N classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.inference.engines.runtime import Runtime, Texts
from fastbert_jax.inference.plan import (
    RowsByLength,
    device_sizes,
    first_rows,
    full_batch,
    smallest_bucket,
    step_sizes,
    texts_of,
)
from fastbert_jax.model.network import Params
from fastbert_jax.text.batches import Batch


class Queue(NamedTuple):
    """Texts that wait for one layer, the oldest first from `head` on, round the end of the buffer."""

    texts: Texts
    """Leaves `[Q, ...]`."""
    head: jax.Array
    """int32 scalar: the place of the oldest."""
    size: jax.Array
    """int32 scalar: how many there are."""


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


class StepResults(NamedTuple):
    """What the host reads of one layer step, on the device; rows without a text neither exit nor stay."""

    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array
    ticket_B: jax.Array
    exits_B: jax.Array
    stay: jax.Array
    """int32 scalar: how many texts went on to the next queue."""


class Cascade(Engine):
    """Hidden states wait in one queue per layer, on the device, for a full batch.

    Device memory beside the parameters, for steps of B texts of S tokens: L x 3B x S x H hidden states (4B where two
    steps are in flight, as on a GPU or a TPU), their masks and the policy's state; only one length is in the queues at
    a time. It depends neither on the number of texts nor on the size of the batches that come in. Programs: one to
    embed and one to run a layer per (step size, length).
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.rows = RowsByLength()
        self.empty_queues = runtime.jit(self._empty_queues, static_argnames=("rows", "length"))
        self.embed = runtime.jit(self._embed, donate_argnums=2)
        self.advance = runtime.jit(self._advance, donate_argnums=(3, 4), static_argnames="rows")

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        if self.runtime.network.num_layers == 1:  # nothing to wait for
            yield from self._run_full_depth(batches)
            return

        def step_shape(batch: Batch) -> tuple[int, int]:
            return self.rows.of(batch), batch.text_BxS.shape[1]

        for (rows, length), alike in itertools.groupby(batches, step_shape):
            flow = _Flow(self, rows, length, thresholds_L)
            for batch in alike:
                yield from flow.add(batch)
            yield from flow.finish()

    def _warm_up_early(self, batch: Batch) -> None:
        rows, (_, length) = self.rows.of(batch), batch.text_BxS.shape
        always = np.zeros(self.runtime.network.num_layers, np.float32)
        flow = _Flow(self, rows, length, always)
        for size in step_sizes(rows):
            list(flow.add(first_rows(batch, size)))
            list(flow.finish())

    def _empty_queues(self, *, rows: int, length: int) -> list[Queue]:
        # Less than a step waits in a queue whose turn has not come; those in flight and the next may add one each.
        runtime, places = self.runtime, (device_sizes().steps_in_flight + 2) * rows
        like = jax.eval_shape(runtime.enter, runtime.params, full_batch(rows, length), np.arange(rows, dtype=np.int32))

        def empty() -> Queue:
            texts = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape[1:]), leaf.dtype), like)
            return Queue(texts, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

        return [empty() for _ in range(runtime.network.num_layers)]

    def _embed(self, params: Params, batch: Batch, queue: Queue, first_ticket: jax.Array) -> Queue:
        ticket_B = first_ticket + jnp.arange(len(batch.text_BxS), dtype=jnp.int32)
        return push(queue, self.runtime.enter(params, batch, ticket_B), jnp.asarray(batch.valid_BxK[:, 0]))

    def _advance(
        self, layer: Params, exit_: Params | None, threshold: jax.Array, queue: Queue, following: Queue, *, rows: int
    ) -> tuple[Queue, Queue, StepResults | None]:
        """Run one layer on the oldest `rows` of its queue; those that stay go to the `following` one.

        Without an exit all of them stay, and there are no results.
        """
        queue, texts, is_text_B = pop(queue, rows)
        texts, result = self.runtime.step(layer, exit_, texts)
        if result is None:
            return queue, push(following, texts, is_text_B), None
        exits_B = result.uncertainty_B < threshold
        stays_B = is_text_B & ~exits_B
        results = StepResults(*result, texts.ticket_B, is_text_B & exits_B, stays_B.sum(dtype=jnp.int32))
        return queue, push(following, texts, stays_B), results


class _Flow:
    """The texts of one length between the layers, and the results until their batch is whole."""

    def __init__(self, engine: Cascade, rows: int, length: int, thresholds_L: np.ndarray) -> None:
        self.rows = rows
        self._engine, self._sizes = engine, step_sizes(rows)
        # Whatever the last exit says, it is the last.
        self._thresholds_L = np.append(thresholds_L[:-1], np.float32(np.inf))
        self._queues = engine.empty_queues(rows=rows, length=length)
        self._waiting = [0] * len(self._queues)
        """Texts in each queue, without those of steps in flight."""
        self._in_flight: deque[tuple[int, StepResults]] = deque()
        self._open: deque[_PendingBatch] = deque()
        """Batches whose results are not given back yet."""
        self._tickets = 0

    def add(self, batch: Batch) -> Iterator[Results]:
        """Take a batch in and run all steps that are full; the results of batches that are now whole."""
        total = len(batch.text_BxS)
        results = Results.empty(total, self._engine.runtime.network.num_classes)
        self._open.append(_PendingBatch(self._tickets, texts_of(batch), results))
        for start in range(0, total, self.rows):
            part: Batch = Batch(*(leaf[start : start + self.rows] for leaf in batch))
            if texts := texts_of(part):
                part = first_rows(part, smallest_bucket(self._sizes, len(part.text_BxS)))
                ticket = np.int32(self._tickets + start)
                self._queues[0] = self._engine.embed(self._engine.runtime.params, part, self._queues[0], ticket)
                self._waiting[0] += texts
            while (depth := self._deepest_full()) is not None:
                self._step(depth, self.rows)
                yield from self._whole_batches()
        self._tickets += total

    def finish(self) -> Iterator[Results]:
        """Run what is left, from the shallowest layer up; the results of all batches not given back yet."""
        while True:
            depth = self._deepest_full()
            if depth is None and self._in_flight:
                self._settle()
                continue
            if depth is None:
                depth = next((depth for depth, texts in enumerate(self._waiting) if texts), None)
            if depth is None:
                break
            self._step(depth, smallest_bucket(self._sizes, min(self._waiting[depth], self.rows)))
        yield from self._whole_batches()

    def _deepest_full(self) -> int | None:
        full = (depth for depth, texts in enumerate(self._waiting) if texts >= self.rows)
        return max(full, default=None)

    def _step(self, depth: int, rows: int) -> None:
        runtime, following = self._engine.runtime, (depth + 1) % len(self._queues)  # no text stays after the last
        self._queues[depth], self._queues[following], results = self._engine.advance(
            *runtime.steps[depth],
            self._thresholds_L[depth],
            self._queues[depth],
            self._queues[following],
            rows=rows,
        )
        taken = min(rows, self._waiting[depth])
        self._waiting[depth] -= taken
        if results is None:
            self._waiting[following] += taken
            return
        for array in results:
            array.copy_to_host_async()
        self._in_flight.append((depth, results))
        if len(self._in_flight) > device_sizes().steps_in_flight:
            self._settle()

    def _settle(self) -> None:
        """Read the results of the oldest step in flight."""
        depth, results = self._in_flight.popleft()
        results = jax.device_get(results)
        if stay := int(results.stay):
            self._waiting[depth + 1] += stay
        if not results.exits_B.any():
            return
        left = (
            array[results.exits_B] for array in (results.ticket_B, results.probabilities_BxN, results.uncertainty_B)
        )
        ticket_B, probabilities_BxN, uncertainty_B = left
        number_B = np.searchsorted([batch.first_ticket for batch in self._open], ticket_B, side="right") - 1
        for number in np.unique(number_B):
            batch, of_batch_B = self._open[number], number_B == number
            rows = ticket_B[of_batch_B] - batch.first_ticket
            batch.results.probabilities_BxN[rows] = probabilities_BxN[of_batch_B]
            batch.results.exit_layer_B[rows] = depth + 1
            batch.results.uncertainty_B[rows] = uncertainty_B[of_batch_B]
            batch.missing -= len(rows)

    def _whole_batches(self) -> Iterator[Results]:
        while self._open and self._open[0].missing == 0:
            yield self._open.popleft().results


@dataclasses.dataclass
class _PendingBatch:
    """A batch with texts that have not exited yet."""

    first_ticket: int
    missing: int
    """Texts that have not exited."""
    results: Results

"""The cascade engine, driven from the host: a queue of texts before every layer, so that batches stay full.

Always the deepest full batch runs; when none is full, new texts are embedded; when there are no more, what is left runs
from the shallowest layer up, so that stragglers merge on their way.
Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.engine import Answers, Engine
from fastbert_jax.inference.engines.queues import Queue, Texts, empty_queue, pop, push
from fastbert_jax.inference.engines.runtime import Array, Runtime
from fastbert_jax.inference.engines.static_sizes import RowsByLength, first_rows, smallest_bucket, step_sizes, texts_of
from fastbert_jax.model.fastbert import Params
from fastbert_jax.text.batches import Batch

STEPS_UNDER_WAY = 1
"""Layer steps whose answers the host has not read when it starts the next."""
STEPS_PER_QUEUE = STEPS_UNDER_WAY + 2
"""A queue whose turn has not come holds less than one; the steps under way and the next may each add a whole one."""


class StepAnswers(NamedTuple):
    """What one layer step tells the host, on the device; rows without a text neither leave nor stay."""

    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array
    ticket_B: Array
    leaves_B: jax.Array
    stay: jax.Array
    """int32 scalar: how many texts went on to the next queue."""


class Cascade(Engine):
    """Hidden states wait in one queue per layer, on the device, for a full batch.

    Device memory beside the parameters, for steps of B texts of S tokens: L x 3B x S x H hidden states, their masks and
    the policy's memory; only one length is in the queues at a time. It depends neither on the number of texts nor on
    the size of the batches that come in. Programs: one to embed and one to run a layer per (step size, length).
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.rows = RowsByLength()
        self.empty_queues = runtime.jit(self._empty_queues, static_argnames=("rows", "length"))
        self.embed = runtime.jit(self._embed, donate_argnums=2)
        self.advance = runtime.jit(self._advance, donate_argnums=(3, 4), static_argnames="rows")

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        if self.runtime.config.num_layers == 1:  # nothing to wait for
            yield from self._run_full_depth(batches)
            return
        flow: _Flow | None = None
        for batch in batches:
            rows, length = self.rows.of(batch), batch.text_BxS.shape[1]
            if flow is None or (rows, length) != (flow.rows, flow.length):
                if flow is not None:
                    yield from flow.finish()
                flow = _Flow(self, rows, length, thresholds_L)
            yield from flow.add(batch)
        if flow is not None:
            yield from flow.finish()

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need."""
        rows, (_, length) = self.rows.of(batch), batch.text_BxS.shape
        always = np.zeros(self.runtime.config.num_layers, np.float32)
        flow = _Flow(self, rows, length, always)
        for size in step_sizes(rows):
            for _ in flow.add(first_rows(batch, size)):
                pass
            for _ in flow.finish():
                pass

    def _empty_queues(self, *, rows: int, length: int) -> list[Queue]:
        config = self.runtime.config
        like = Texts(
            jnp.zeros((rows, length, config.hidden_size), self.runtime.dtype),
            jnp.zeros((rows, length), jnp.int32),
            jnp.zeros((rows, 1), jnp.int32),
            self.runtime.policy.start(rows),
            jnp.zeros(rows, jnp.int32),
        )
        return [empty_queue(like, places=STEPS_PER_QUEUE * rows) for _ in range(config.num_layers)]

    def _embed(self, params: Params, batch: Batch, queue: Queue, first_ticket: jax.Array) -> Queue:
        rows = len(batch.text_BxS)
        texts = Texts(
            self.runtime.embed(params, batch),
            jnp.asarray(batch.text_BxS),
            jnp.asarray(batch.cls_BxK),
            self.runtime.policy.start(rows),
            first_ticket + jnp.arange(rows, dtype=jnp.int32),
        )
        return push(queue, texts, jnp.asarray(batch.valid_BxK[:, 0]))

    def _advance(
        self, layer: Params, exit_: Params | None, threshold: jax.Array, queue: Queue, following: Queue, *, rows: int
    ) -> tuple[Queue, Queue, StepAnswers | None]:
        """Run one layer on the oldest `rows` of its queue; those that stay go to the `following` one.

        Without an exit all of them stay, and there are no answers.
        """
        queue, texts, is_text_B = pop(queue, rows)
        hidden_BxSxH = self.runtime.run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
        if exit_ is None:
            return queue, push(following, texts._replace(hidden_BxSxH=hidden_BxSxH), is_text_B), None
        memory, answer = self.runtime.run_exit(exit_, texts.memory, hidden_BxSxH, texts.text_BxS, texts.cls_BxK)
        leaves_B = answer.uncertainty_B < threshold
        stays_B = is_text_B & ~leaves_B
        following = push(following, texts._replace(hidden_BxSxH=hidden_BxSxH, memory=memory), stays_B)
        answers = StepAnswers(*answer, texts.ticket_B, is_text_B & leaves_B, stays_B.sum(dtype=jnp.int32))
        return queue, following, answers


class _Flow:
    """The texts of one length on their way through all layers, and the answers until their batch is whole."""

    def __init__(self, engine: Cascade, rows: int, length: int, thresholds_L: np.ndarray) -> None:
        self.rows, self.length = rows, length
        self._engine, self._sizes = engine, step_sizes(rows)
        # Whatever the last exit says, it is the last.
        self._thresholds_L = np.append(thresholds_L[:-1], np.float32(np.inf))
        self._queues = engine.empty_queues(rows=rows, length=length)
        self._waiting = [0] * len(self._queues)
        """Texts in each queue, without those of steps under way."""
        self._under_way: deque[tuple[int, StepAnswers]] = deque()
        self._open: deque[_OpenBatch] = deque()
        """Batches whose answers are not given back yet."""
        self._tickets = 0

    def add(self, batch: Batch) -> Iterator[Answers]:
        """Take a batch in and run all steps that are full; the answers of batches that are now whole."""
        total = len(batch.text_BxS)
        self._open.append(_OpenBatch.of(batch, self._tickets, self._engine.runtime.config.num_classes))
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

    def finish(self) -> Iterator[Answers]:
        """Run what is left, from the shallowest layer up; the answers of all batches not given back yet."""
        while True:
            depth = self._deepest_full()
            if depth is None and self._under_way:
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
        runtime, following = self._engine.runtime, (depth + 1) % len(self._queues)  # nobody stays after the last
        self._queues[depth], self._queues[following], answers = self._engine.advance(
            runtime.layers[depth],
            runtime.exits[depth] if runtime.asked[depth] else None,
            self._thresholds_L[depth],
            self._queues[depth],
            self._queues[following],
            rows=rows,
        )
        taken = min(rows, self._waiting[depth])
        self._waiting[depth] -= taken
        if answers is None:
            self._waiting[following] += taken
            return
        self._under_way.append((depth, answers))
        if len(self._under_way) > STEPS_UNDER_WAY:
            self._settle()

    def _settle(self) -> None:
        """Read the answers of the oldest step under way."""
        depth, answers = self._under_way.popleft()
        if stay := int(answers.stay):
            self._waiting[depth + 1] += stay
        leaves_B = np.asarray(answers.leaves_B)
        left = (
            np.asarray(array)[leaves_B]
            for array in (answers.ticket_B, answers.probabilities_BxN, answers.uncertainty_B)
        )
        ticket_B, probabilities_BxN, uncertainty_B = left
        number_B = np.searchsorted([batch.first_ticket for batch in self._open], ticket_B, side="right") - 1
        for number in np.unique(number_B):
            batch, of_batch_B = self._open[number], number_B == number
            rows = ticket_B[of_batch_B] - batch.first_ticket
            batch.answers.probabilities_BxN[rows] = probabilities_BxN[of_batch_B]
            batch.answers.exit_layer_B[rows] = depth + 1
            batch.answers.uncertainty_B[rows] = uncertainty_B[of_batch_B]
            batch.missing -= len(rows)

    def _whole_batches(self) -> Iterator[Answers]:
        while self._open and self._open[0].missing == 0:
            yield self._open.popleft().answers


@dataclasses.dataclass
class _OpenBatch:
    """A batch that texts still have to come back to."""

    first_ticket: int
    missing: int
    answers: Answers

    @classmethod
    def of(cls, batch: Batch, first_ticket: int, num_classes: int) -> _OpenBatch:
        rows = len(batch.text_BxS)
        nothing = Answers(
            np.zeros((rows, num_classes), np.float32), np.zeros(rows, np.int32), np.zeros(rows, np.float32)
        )
        return cls(first_ticket, texts_of(batch), nothing)

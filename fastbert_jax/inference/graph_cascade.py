"""The cascade in the graph: the scheduler of `cascade.py` as one compiled loop, with no word from the host on the way.

Static shapes only, so that it runs on a TPU as it is. Shapes in names: B texts (one per row), Q places of a queue,
T texts of a call, S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engine import Answers, Engine
from fastbert_jax.inference.queues import Texts
from fastbert_jax.inference.runtime import Array, Runtime
from fastbert_jax.model.fastbert import Params
from fastbert_jax.text.batches import Batch

BATCHES_PER_CALL = 64
"""Batches that one call of the program answers. What is left at its end runs in batches that are not full."""
SMALL_STEP = 4
"""What is left runs in batches of this part of a full one, which waste less."""


class Queues(NamedTuple):
    """One ring buffer before every layer, stacked, as the layer is a number in the graph.

    What `queues.py` does to one queue is done here at a depth: taking that queue out and putting it back would copy
    all of its places at every turn.
    """

    texts: Texts
    """Leaves `[L, Q, ...]`."""
    head_L: jax.Array
    size_L: jax.Array


class Found(NamedTuple):
    """The answers to the texts of a call, on the device; the exit layer of a text that has none is 0."""

    probabilities_TxN: jax.Array
    exit_layer_T: jax.Array
    uncertainty_T: jax.Array


class Moved(NamedTuple):
    """What one turn of the loop brings: texts that go on to a queue, and answers of those that leave."""

    texts: Texts
    stays_B: Array
    leaves_B: jax.Array
    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array


class Loop(NamedTuple):
    """What the loop carries."""

    queues: Queues
    entered: jax.Array
    """Batches embedded so far."""
    found: Found
    rows_run: jax.Array
    """Rows of all layer steps so far."""


class GraphCascade(Engine):
    """One program per length answers `BATCHES_PER_CALL` batches; the host hands them in and reads the answers.

    Device memory beside the parameters, for batches of B texts of S tokens: L x 2B x S x H hidden states, their masks
    and the policy's memory, and `BATCHES_PER_CALL` batches of token ids. It does not depend on the number of texts.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.program = runtime.jit(self._answer_all)
        self.rows_run = 0
        """Texts times layers computed so far, rows without a text included."""

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        unread: tuple[list[int], tuple[Found, jax.Array]] | None = None
        for group in _alike(batches, BATCHES_PER_CALL):
            stacked, count = _stack(group, BATCHES_PER_CALL)
            done = self.program(self.runtime.params, self.runtime.stacked_exits, stacked, np.int32(count), thresholds_L)
            if unread is not None:  # the answers of a call are read while the next one runs
                yield from self._read(*unread)
            unread = [len(batch.text_BxS) for batch in group], done
        if unread is not None:
            yield from self._read(*unread)

    def _read(self, sizes: Sequence[int], done: tuple[Found, jax.Array]) -> Iterator[Answers]:
        answers = Answers(*map(np.asarray, done[0]))
        self.rows_run += int(done[1])
        rows = len(answers.exit_layer_B) // BATCHES_PER_CALL
        for number, size in enumerate(sizes):
            yield Answers(*(array[number * rows : number * rows + size] for array in answers))

    def _answer_all(
        self, params: Params, exits: Params, batches: Batch, count: jax.Array, thresholds_L: jax.Array
    ) -> tuple[Found, jax.Array]:
        """The answers to the first `count` of batches stacked `[BATCHES_PER_CALL, B, ...]`; the rows of all steps."""
        # Whatever the last exit says, it is the last.
        task = _Task(self.runtime, params, exits, batches, count, jnp.append(thresholds_L[:-1], jnp.inf))
        done = jax.lax.while_loop(task.goes_on, task.turn, task.start())
        return done.found, done.rows_run


class _Task:
    """What the loop does, traced once: the texts of one call, the model, and the turns that bring them through it."""

    def __init__(
        self,
        runtime: Runtime,
        params: Params,
        exits: Params,
        batches: Batch,
        count: jax.Array,
        thresholds_L: jax.Array,
    ) -> None:
        self._runtime, self._params, self._batches, self._count = runtime, params, batches, count
        self._layer_parts = (params["backbone"]["layers"], exits, jnp.array(runtime.asked), thresholds_L)
        self._num_layers = runtime.config.num_layers
        self._calls, self._rows, _ = batches.text_BxS.shape
        self._small = max(self._rows // SMALL_STEP, 1)
        self._places = 2 * self._rows

    def start(self) -> Loop:
        """Empty queues, no answers."""
        layers, total = self._num_layers, self._calls * self._rows
        like = jax.eval_shape(self._embed, jnp.int32(0)).texts
        texts = jax.tree.map(lambda leaf: jnp.zeros((layers, self._places, *leaf.shape[1:]), leaf.dtype), like)
        return Loop(
            Queues(texts, jnp.zeros(layers, jnp.int32), jnp.zeros(layers, jnp.int32)),
            jnp.int32(0),
            Found(jnp.zeros((total, self._runtime.config.num_classes)), jnp.zeros(total, jnp.int32), jnp.zeros(total)),
            jnp.int32(0),
        )

    def goes_on(self, loop: Loop) -> jax.Array:
        """Whether there is a text without an answer."""
        return (loop.entered < self._count) | (loop.queues.size_L > 0).any()

    def turn(self, loop: Loop) -> Loop:
        """Embed a batch or run one layer on one, whichever is due, and put the texts where they go."""
        queues, last = loop.queues, self._num_layers - 1
        depth_L = jnp.arange(self._num_layers, dtype=jnp.int32)
        deepest_full = jnp.where(queues.size_L >= self._rows, depth_L, -1).max()
        shallowest = jnp.where(queues.size_L > 0, depth_L, last).min()
        is_full = deepest_full >= 0
        action = jnp.where(is_full, 1, jnp.where(loop.entered < self._count, 0, 2))
        depth = jnp.where(is_full, deepest_full, shallowest)
        taken_at_most = jnp.array([0, self._rows, self._small], jnp.int32)[action]
        # The branches only read the queues: a branch that wrote them would have them copied at every turn.
        moved = jax.lax.switch(
            action,
            [
                lambda: self._embed(loop.entered),
                lambda: self._step(queues, depth, rows=self._rows),
                lambda: self._step(queues, depth, rows=self._small),
            ],
        )
        queues = self._take(queues, depth, taken_at_most)
        # Nobody stays after the last layer.
        queues = self._put(queues, jnp.where(action == 0, 0, jnp.minimum(depth + 1, last)), moved)
        ticket_B = jnp.where(moved.leaves_B, moved.texts.ticket_B, self._calls * self._rows)
        found = Found(
            loop.found.probabilities_TxN.at[ticket_B].set(moved.probabilities_BxN, mode="drop"),
            loop.found.exit_layer_T.at[ticket_B].set(depth + 1, mode="drop"),
            loop.found.uncertainty_T.at[ticket_B].set(moved.uncertainty_B, mode="drop"),
        )
        return Loop(queues, loop.entered + (action == 0).astype(jnp.int32), found, loop.rows_run + taken_at_most)

    def _embed(self, number: jax.Array) -> Moved:
        """The texts of a batch, all of them to the first queue."""
        batch: Batch = jax.tree.map(lambda leaf: leaf[number], self._batches)
        rows = self._rows
        texts = Texts(
            self._runtime.embed(self._params, batch),
            batch.text_BxS,
            batch.cls_BxK,
            jax.tree.map(jnp.asarray, self._runtime.policy.start(rows)),
            number * rows + jnp.arange(rows, dtype=jnp.int32),
        )
        nothing_BxN = jnp.zeros((rows, self._runtime.config.num_classes))
        return Moved(texts, jnp.asarray(batch.valid_BxK[:, 0]), jnp.zeros(rows, bool), nothing_BxN, jnp.zeros(rows))

    def _step(self, queues: Queues, depth: jax.Array, *, rows: int) -> Moved:
        """One layer and its exit on the oldest `rows` of its queue."""
        row_B = jnp.arange(rows, dtype=jnp.int32)
        place_B = (queues.head_L[depth] + row_B) % self._places
        texts: Texts = jax.tree.map(lambda leaf: leaf[depth, place_B], queues.texts)
        layer, exit_, asked, threshold = jax.tree.map(lambda leaf: leaf[depth], self._layer_parts)
        hidden_BxSxH = self._runtime.run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
        memory, answer = self._runtime.run_exit_if_asked(
            asked, exit_, texts.memory, hidden_BxSxH, texts.text_BxS, texts.cls_BxK
        )
        is_text_B = row_B < queues.size_L[depth]
        leaves_B = is_text_B & asked & (answer.uncertainty_B < threshold)
        texts = texts._replace(hidden_BxSxH=hidden_BxSxH, memory=memory)
        moved = Moved(texts, is_text_B & ~leaves_B, leaves_B, *answer)
        missing = self._rows - rows
        return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), moved)

    def _take(self, queues: Queues, depth: jax.Array, at_most: jax.Array) -> Queues:
        taken = jnp.minimum(queues.size_L[depth], at_most)
        head = (queues.head_L[depth] + taken) % self._places
        return queues._replace(head_L=queues.head_L.at[depth].set(head), size_L=queues.size_L.at[depth].add(-taken))

    def _put(self, queues: Queues, depth: jax.Array, moved: Moved) -> Queues:
        number_B = jnp.cumsum(moved.stays_B, dtype=jnp.int32)
        place_B = (queues.head_L[depth] + queues.size_L[depth] + number_B - 1) % self._places
        place_B = jnp.where(moved.stays_B, place_B, self._places)  # out of range, and dropped
        texts = jax.tree.map(lambda held, new: held.at[depth, place_B].set(new, mode="drop"), queues.texts, moved.texts)
        return Queues(texts, queues.head_L, queues.size_L.at[depth].add(number_B[-1]))


def _alike(batches: Iterable[Batch], most: int) -> Iterator[list[Batch]]:
    """Batches in groups of up to `most` of one length, none with more rows than the group's first."""
    group: list[Batch] = []
    for batch in batches:
        rows, length = batch.text_BxS.shape
        if group and (length != group[0].text_BxS.shape[1] or rows > len(group[0].text_BxS) or len(group) == most):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def _stack(group: Sequence[Batch], places: int) -> tuple[Any, int]:
    """Batches as one `[places, B, ...]`, rows and batches that are missing padded with zeros; how many there are."""
    stacked = []
    for leaves in itertools.zip_longest(*group):
        whole = np.zeros((places, *leaves[0].shape), leaves[0].dtype)
        for number, leaf in enumerate(leaves):
            whole[number, : len(leaf)] = leaf
        stacked.append(whole)
    return Batch(*stacked), len(group)

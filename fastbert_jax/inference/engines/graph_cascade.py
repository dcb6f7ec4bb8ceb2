"""The cascade in the graph: the scheduler of `cascade.py` as one compiled loop that needs no host.

Static shapes only, so that it runs on a TPU as it is. Shapes in names: B rows of a step, T texts of a call,
S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.cascade import QueuedTexts
from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.engines.static_sizes import RowsByLength, first_rows, step_sizes, texts_of
from fastbert_jax.model.network import Array, Params
from fastbert_jax.text.batches import Batch

SHARDS = "data"
"""The mesh axis that texts are shared out over."""
STEPS_PER_CALL = 64
"""Full steps that the texts of one call fill at the first layer. What is left at its end runs in smaller steps."""


class Model(NamedTuple):
    """The parameters as the loop reads them.

    Indexing a stack in a loop copies a layer at every step, which costs a CPU 2 to 4 % of the layer. So full steps,
    which are most, have a branch for each layer with arrays of its own, and only smaller ones index the stacks. The
    layers are on the device twice for that.
    """

    params: Params
    exits: Params
    """Stacked `[L, ...]`."""
    layers: list[Params]
    layer_exits: list[Params]


class Stacks(NamedTuple):
    """The texts that wait for each layer, one stack of 2B places per layer, the last in on top.

    Stacks and not queues, as all that enters a loop leaves it: a batch is then one contiguous block to read at the top,
    and the survivors one contiguous block to write, where a queue's would be scattered round the end of a ring.
    """

    texts: QueuedTexts
    """Leaves `[L, 2B, ...]`."""
    size_L: jax.Array


class Moved(NamedTuple):
    """What one turn of the loop brings: texts that go on to a stack, and the results of those that exit."""

    texts: QueuedTexts
    stays_B: Array
    exits_B: jax.Array
    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array


class Loop(NamedTuple):
    """What the loop carries."""

    stacks: Stacks
    entered: jax.Array
    """Steps embedded so far."""
    found: Results
    rows_run: jax.Array
    """Rows of all layer steps so far."""


class GraphCascade(Engine):
    """One program per length runs up to `STEPS_PER_CALL` full steps; the host hands texts in and reads the results.

    On several devices it is one program under `shard_map`: each runs its own loop on its share of the texts, and they
    do not wait for each other before the end of a call.

    Device memory beside the parameters, whose layers are there twice (see `Model`), for steps of B texts of S tokens:
    L x 2B x S x H hidden states, their masks and the policy's state, and the token ids of `STEPS_PER_CALL` x B texts.
    It does not depend on the number of texts.
    """

    def __init__(self, runtime: Runtime, *others: Runtime) -> None:
        """Build on one runtime, or on those of several devices with a copy of the model each."""
        super().__init__(runtime)
        self._runtimes = (runtime, *others)
        self._shards = len(self._runtimes)
        self.program = runtime.jit(self._run_shards if others else self._run_all, static_argnames="rows")
        self._rows = RowsByLength()
        self.rows_run = 0
        """QueuedTexts times layers computed so far, rows without a text included."""

    @functools.cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        devices = [device for one in self._runtimes for device in one.devices]
        return jax.make_mesh((self._shards,), (SHARDS,), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))

    @functools.cached_property
    def _model(self) -> Model:
        """The model; on several devices the copies that these hold already, as one tree."""
        models = [Model(one.params, one.stacked_exits, one.layers, one.exits) for one in self._runtimes]
        if self._shards == 1:
            return models[0]
        everywhere = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
        whole: Model = jax.tree.map(
            lambda *copies: jax.make_array_from_single_device_arrays(copies[0].shape, everywhere, list(copies)), *models
        )
        return whole

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        unread: tuple[list[Batch], tuple[Results, jax.Array]] | None = None
        for group, rows in self._groups(batches):
            done = self._call(group, rows, thresholds_L)
            if unread is not None:  # the results of a call are read while the next one runs
                yield from self._read(*unread)
            unread = group, done
        if unread is not None:
            yield from self._read(*unread)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need."""
        never = np.zeros(self.runtime.network.num_layers, np.float32)
        for rows in {1, self._rows.of(batch)}:
            jax.block_until_ready(self._call([first_rows(batch, rows)], rows, never))

    def _groups(self, batches: Iterable[Batch]) -> Iterator[tuple[list[Batch], int]]:
        """Batches of one length, as many as a call takes, and the rows of its full steps."""
        group: list[Batch] = []
        rows = length = texts = 0
        for batch in batches:
            new = texts_of(batch)
            same = batch.text_BxS.shape[1] == length and self._rows.of(batch) == rows
            if group and not (same and texts + new <= STEPS_PER_CALL * rows * self._shards):
                yield group, rows if texts > 1 else 1
                group, texts = [], 0
            rows, length = self._rows.of(batch), batch.text_BxS.shape[1]
            group.append(batch)
            texts += new
        if group:
            yield group, rows if texts > 1 else 1

    def _call(self, group: Sequence[Batch], rows: int, thresholds_L: np.ndarray) -> tuple[Results, jax.Array]:
        texts = sum(map(texts_of, group))
        places = rows * (1 if texts == 1 else STEPS_PER_CALL)
        shares = np.array([len(share) for share in np.array_split(np.arange(texts), self._shards)], np.int32)
        together = _together(group, shares, places)
        done: tuple[Results, jax.Array] = self.program(self._model, together, shares, thresholds_L, rows=rows)
        return done

    def _read(self, group: Sequence[Batch], done: tuple[Results, jax.Array]) -> Iterator[Results]:
        self.rows_run += int(np.asarray(done[1]).sum())
        shares = np.array_split(np.arange(sum(map(texts_of, group))), self._shards)
        by_shard = (np.asarray(array) for array in done[0])
        results = Results(
            *(
                np.concatenate([part[: len(s)] for part, s in zip(np.split(array, self._shards), shares, strict=True)])
                for array in by_shard
            )
        )
        start = 0
        for batch in group:
            valid_B = batch.valid_BxK[:, 0]
            part = slice(start, start := start + texts_of(batch))
            whole = (np.zeros((len(valid_B), *array.shape[1:]), array.dtype) for array in results)
            yield Results(
                *(_put_rows(rows, valid_B, np.asarray(array[part])) for rows, array in zip(whole, results, strict=True))
            )

    def _run_shards(
        self, model: Model, together: Batch, texts: jax.Array, thresholds_L: jax.Array, *, rows: int
    ) -> tuple[Results, jax.Array]:
        """`_run_all` on every device, with its share of the rows of `together` and its one of `texts`."""
        own, same = jax.sharding.PartitionSpec(SHARDS), jax.sharding.PartitionSpec()
        run = jax.shard_map(
            functools.partial(self._run_all, rows=rows),
            mesh=self._mesh,
            in_specs=(same, own, own, same),
            out_specs=own,
            check_vma=False,  # the loops start from constants, which are alike on all devices, and part from there
        )
        return run(model, together, texts, thresholds_L)

    def _run_all(
        self, model: Model, together: Batch, texts: jax.Array, thresholds_L: jax.Array, *, rows: int
    ) -> tuple[Results, jax.Array]:
        """The results of the first `texts` `[1]` rows of a batch, in steps of `rows`; the rows of all steps `[1]`."""
        # Whatever the last exit says, it is the last.
        thresholds_L = jnp.append(thresholds_L[:-1], jnp.inf)
        schedule = _Schedule(self.runtime, model, together, texts[0], thresholds_L, rows)
        done = jax.lax.while_loop(schedule.goes_on, schedule.turn, schedule.start())
        return done.found, done.rows_run[None]


class _Schedule:
    """What the loop does, traced once: the texts of one call, the model, and the turns that bring them through it."""

    def __init__(
        self,
        runtime: Runtime,
        model: Model,
        batch: Batch,
        texts: jax.Array,
        thresholds_L: jax.Array,
        rows: int,
    ) -> None:
        self._runtime, self._model, self._batch, self._texts, self._rows = runtime, model, batch, texts, rows
        self._asked_L, self._thresholds_L = jnp.array(runtime.asked), thresholds_L
        self._num_layers = runtime.network.num_layers
        # Smaller steps than an eighth are not worth their compiling.
        self._sizes = tuple(size for size in step_sizes(rows) if 8 * size >= rows)

    def start(self) -> Loop:
        """Empty stacks, no results."""
        layers, total, classes = self._num_layers, len(self._batch.text_BxS), self._runtime.network.config.num_classes
        like = jax.eval_shape(self._embed, jnp.int32(0)).texts
        texts = jax.tree.map(lambda leaf: jnp.zeros((layers, 2 * self._rows, *leaf.shape[1:]), leaf.dtype), like)
        found = Results(jnp.zeros((total, classes)), jnp.zeros(total, jnp.int32), jnp.zeros(total))
        return Loop(Stacks(texts, jnp.zeros(layers, jnp.int32)), jnp.int32(0), found, jnp.int32(0))

    def goes_on(self, loop: Loop) -> jax.Array:
        """Whether there is a text without a result."""
        return (loop.entered * self._rows < self._texts) | (loop.stacks.size_L > 0).any()

    def turn(self, loop: Loop) -> Loop:
        """Embed new texts or run one layer on a batch, whichever is due, and put the texts where they go."""
        stacks, last = loop.stacks, self._num_layers - 1
        depth_L = jnp.arange(self._num_layers, dtype=jnp.int32)
        deepest_full = jnp.where(stacks.size_L >= self._rows, depth_L, -1).max()
        shallowest = jnp.where(stacks.size_L > 0, depth_L, last).min()
        is_full = deepest_full >= 0
        embeds = ~is_full & (loop.entered * self._rows < self._texts)
        depth = jnp.where(is_full, deepest_full, shallowest)
        sizes = jnp.array(self._sizes, jnp.int32)
        size = jnp.searchsorted(sizes, jnp.minimum(stacks.size_L[depth], self._rows))
        *smaller, full = self._sizes
        # The branches only read the stacks: a branch that wrote them would have them copied at every turn.
        branches = [
            *(lambda rows=rows: self._step(stacks, depth, *self._parts(depth), rows=rows) for rows in smaller),
            *(
                lambda parts=parts: self._step(stacks, depth, *parts, rows=full)
                for parts in zip(self._model.layers, self._model.layer_exits, strict=True)
            ),
            lambda: self._embed(loop.entered),
        ]
        branch = jnp.where(size < len(smaller), size, len(smaller) + depth)
        moved = jax.lax.switch(jnp.where(embeds, len(branches) - 1, branch), branches)
        run = jnp.where(embeds, 0, sizes[size])
        stacks = stacks._replace(size_L=stacks.size_L.at[depth].add(-jnp.minimum(stacks.size_L[depth], run)))
        # No text stays after the last layer.
        stacks = self._put(stacks, jnp.where(embeds, 0, jnp.minimum(depth + 1, last)), moved)
        ticket_B = jnp.where(moved.exits_B, moved.texts.ticket_B, len(self._batch.text_BxS))
        found = Results(
            jnp.asarray(loop.found.probabilities_BxN).at[ticket_B].set(moved.probabilities_BxN, mode="drop"),
            jnp.asarray(loop.found.exit_layer_B).at[ticket_B].set(depth + 1, mode="drop"),
            jnp.asarray(loop.found.uncertainty_B).at[ticket_B].set(moved.uncertainty_B, mode="drop"),
        )
        return Loop(stacks, loop.entered + embeds.astype(jnp.int32), found, loop.rows_run + run)

    def _embed(self, number: jax.Array) -> Moved:
        """The next B texts, all of them to the first stack."""
        rows = self._rows
        start = number * rows
        batch: Batch = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, rows), self._batch)
        ticket_B = start + jnp.arange(rows, dtype=jnp.int32)
        state = jax.tree.map(jnp.asarray, self._runtime.policy.start(rows))
        texts = QueuedTexts(
            self._runtime.network.embed(self._model.params, batch), batch.text_BxS, batch.cls_BxK, state, ticket_B
        )
        nothing_BxN = jnp.zeros((rows, self._runtime.network.config.num_classes))
        return Moved(texts, ticket_B < self._texts, jnp.zeros(rows, bool), nothing_BxN, jnp.zeros(rows))

    def _parts(self, depth: jax.Array) -> tuple[Params, Params]:
        """The layer and the exit at a depth, out of the stacks."""
        stacked = self._runtime.network.stacked_layers(self._model.params), self._model.exits
        parts: tuple[Params, Params] = jax.tree.map(lambda leaf: leaf[depth], stacked)
        return parts

    def _step(self, stacks: Stacks, depth: jax.Array, layer: Params, exit_: Params, *, rows: int) -> Moved:
        """One layer and its exit on the top `rows` of its stack."""
        size = stacks.size_L[depth]
        texts: QueuedTexts = jax.tree.map(
            lambda leaf: block(leaf, depth, jnp.maximum(size - rows, 0), rows), stacks.texts
        )
        asked = self._asked_L[depth]
        hidden_BxSxH = self._runtime.run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
        state, result = self._runtime.run_exit_if_asked(
            asked, exit_, texts.state, hidden_BxSxH, texts.text_BxS, texts.cls_BxK
        )
        is_text_B = jnp.arange(rows) < size
        exits_B = is_text_B & asked & (result.uncertainty_B < self._thresholds_L[depth])
        texts = texts._replace(hidden_BxSxH=hidden_BxSxH, state=state)
        moved = Moved(texts, is_text_B & ~exits_B, exits_B, *result)
        missing = self._rows - rows
        padded: Moved = jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), moved)
        return padded

    def _put(self, stacks: Stacks, depth: jax.Array, moved: Moved) -> Stacks:
        """Those that stay on top of a stack; what else is in their block lies above the top, and means nothing."""
        stays_first_B = jnp.argsort(~moved.stays_B, stable=True)
        top = stacks.size_L[depth]
        texts = jax.tree.map(
            lambda held, new: jax.lax.dynamic_update_slice(
                held, new[stays_first_B][None], (depth, top, *(0,) * (new.ndim - 1))
            ),
            stacks.texts,
            moved.texts,
        )
        return Stacks(texts, stacks.size_L.at[depth].add(moved.stays_B.sum(dtype=jnp.int32)))


def block(stacked: jax.Array, depth: jax.Array, start: jax.Array, rows: int) -> jax.Array:
    """`rows` of a `[L, Q, ...]` array at a depth, from `start` on: `[rows, ...]`."""
    inner = stacked.shape[2:]
    return jax.lax.dynamic_slice(stacked, (depth, start, *(0,) * len(inner)), (1, rows, *inner))[0]


def _together(group: Sequence[Batch], shares: np.ndarray, places: int) -> Batch:
    """The texts of all batches one after the other, shared out, each share padded to `places` rows."""
    valid = [batch.valid_BxK[:, 0] for batch in group]
    ends = np.cumsum(shares)[:-1]

    def shared_out(leaves: Sequence[np.ndarray]) -> np.ndarray:
        texts = np.concatenate([leaf[valid_B] for leaf, valid_B in zip(leaves, valid, strict=True)])
        whole = np.zeros((len(shares), places, *texts.shape[1:]), texts.dtype)
        for place, share in zip(whole, np.split(texts, ends), strict=True):
            place[: len(share)] = share
        return whole.reshape(-1, *texts.shape[1:])

    return Batch(*(shared_out(leaves) for leaves in zip(*group, strict=True)))


def _put_rows(whole: np.ndarray, chosen_B: np.ndarray, rows: np.ndarray) -> np.ndarray:
    whole[chosen_B] = rows
    return whole

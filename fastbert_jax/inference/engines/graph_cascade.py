"""The cascade in the graph: the scheduler of `cascade.py` as one compiled loop that needs no host.

Static shapes only, so that it runs on a TPU as it is. Shapes in names: B rows of a step, T texts of a call,
S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.inference.engines.runtime import Runtime, Texts, if_asked
from fastbert_jax.inference.plan import RowsByLength, first_rows, step_sizes, texts_of
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
    parts: list[tuple[Params, Params]]
    """Layer and exit of every depth."""


class Moved(NamedTuple):
    """What one turn of the loop brings: texts that go on to a stack, and the results of those that exit."""

    texts: Texts
    stays_B: Array
    exits_B: jax.Array
    probabilities_BxN: jax.Array
    uncertainty_B: jax.Array


class Loop(NamedTuple):
    """What the loop carries.

    The texts that wait for a layer are a stack of 2B places, the last in on top. Stacks and not queues, as all that
    enters a loop leaves it: a batch is then one contiguous block to read at the top, and the survivors one contiguous
    block to write, where a queue's would be scattered round the end of a ring.
    """

    stacks: Texts
    """Leaves `[L, 2B, ...]`."""
    size_L: jax.Array
    """Texts on each stack."""
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
        super().__init__(runtime, *others)
        self._shards = len(self.runtimes)
        self.program = runtime.jit(self._run_shards if others else self._run_all, static_argnames="rows")
        self._rows = RowsByLength()
        self.rows_run = 0
        """Texts times layers computed so far, rows without a text included."""

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """Of all devices, along `SHARDS`."""
        devices = [device for one in self.runtimes for device in one.devices]
        return jax.make_mesh((self._shards,), (SHARDS,), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))

    @functools.cached_property
    def model(self) -> Model:
        """The model; on several devices the copies that these hold already, as one tree."""
        stack = jax.jit(lambda exits: jax.tree.map(lambda *leaves: jnp.stack(leaves), *exits))
        models = [Model(one.params, stack([exit_ for _, exit_ in one.parts]), one.parts) for one in self.runtimes]
        if self._shards == 1:
            return models[0]
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        whole: Model = jax.tree.map(
            lambda *copies: jax.make_array_from_single_device_arrays(copies[0].shape, everywhere, list(copies)), *models
        )
        return whole

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        calls = ((group, *self._call(group, rows, thresholds_L)) for group, rows in self._groups(batches))
        # The results of a call are read while the next one runs.
        for call, _ in itertools.pairwise(itertools.chain(calls, [None])):
            if call is not None:
                yield from self._read(*call)

    def _warm_up_early(self, batch: Batch) -> None:
        never = np.zeros(self.runtime.network.num_layers, np.float32)
        for rows in {1, self._rows.of(batch)}:
            jax.block_until_ready(self._call([first_rows(batch, rows)], rows, never)[1])

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

    def _call(
        self, group: Sequence[Batch], rows: int, thresholds_L: np.ndarray
    ) -> tuple[np.ndarray, tuple[Results, jax.Array]]:
        """Start a call on the texts of some batches; the row in it of each text, and what it gives."""
        texts = sum(map(texts_of, group))
        places = rows * (1 if texts == 1 else STEPS_PER_CALL)
        shares = [len(share) for share in np.array_split(np.arange(texts), self._shards)]
        row_T = np.concatenate([shard * places + np.arange(share) for shard, share in enumerate(shares)])
        valid = [batch.valid_BxK[:, 0] for batch in group]

        def together(leaves: Sequence[np.ndarray]) -> np.ndarray:
            whole = np.zeros((self._shards * places, *leaves[0].shape[1:]), leaves[0].dtype)
            whole[row_T] = np.concatenate([leaf[valid_B] for leaf, valid_B in zip(leaves, valid, strict=True)])
            return whole

        batch = Batch(*map(together, zip(*group, strict=True)))
        return row_T, self.program(self.model, batch, np.array(shares, np.int32), thresholds_L, rows=rows)

    def _read(self, group: Sequence[Batch], row_T: np.ndarray, done: tuple[Results, jax.Array]) -> Iterator[Results]:
        self.rows_run += int(np.asarray(done[1]).sum())
        found = [np.asarray(array)[row_T] for array in done[0]]
        start = 0
        for batch in group:
            valid_B = batch.valid_BxK[:, 0]
            part = slice(start, start := start + texts_of(batch))
            results = Results.empty(len(valid_B), self.runtime.network.num_classes)
            for whole, some in zip(results, found, strict=True):
                whole[valid_B] = some[part]
            yield results

    def _run_shards(
        self, model: Model, together: Batch, texts: jax.Array, thresholds_L: jax.Array, *, rows: int
    ) -> tuple[Results, jax.Array]:
        """`_run_all` on every device, with its share of the rows of `together` and its one of `texts`."""
        own, same = jax.sharding.PartitionSpec(SHARDS), jax.sharding.PartitionSpec()
        run = jax.shard_map(
            functools.partial(self._run_all, rows=rows),
            mesh=self.mesh,
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


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """What the loop does, traced once: the texts of one call, the model, and the turns that bring them through it."""

    runtime: Runtime
    model: Model
    batch: Batch
    texts: jax.Array
    """How many of the batch's first rows hold one."""
    thresholds_L: jax.Array
    rows: int
    """Of a full step."""

    def start(self) -> Loop:
        """Empty stacks, no results."""
        layers, classes = self.runtime.network.num_layers, self.runtime.network.num_classes
        total = len(self.batch.text_BxS)
        like = jax.eval_shape(self._embed, jnp.int32(0)).texts
        stacks = jax.tree.map(lambda leaf: jnp.zeros((layers, 2 * self.rows, *leaf.shape[1:]), leaf.dtype), like)
        found = Results(jnp.zeros((total, classes)), jnp.zeros(total, jnp.int32), jnp.zeros(total))
        return Loop(stacks, jnp.zeros(layers, jnp.int32), jnp.int32(0), found, jnp.int32(0))

    def goes_on(self, loop: Loop) -> jax.Array:
        """Whether there is a text without a result."""
        return (loop.entered * self.rows < self.texts) | (loop.size_L > 0).any()

    def turn(self, loop: Loop) -> Loop:
        """Embed new texts or run one layer on a batch, whichever is due, and put the texts where they go."""
        size_L, layers = loop.size_L, self.runtime.network.num_layers
        depth_L = jnp.arange(layers, dtype=jnp.int32)
        deepest_full = jnp.where(size_L >= self.rows, depth_L, -1).max()
        shallowest = jnp.where(size_L > 0, depth_L, layers - 1).min()
        is_full = deepest_full >= 0
        embeds = ~is_full & (loop.entered * self.rows < self.texts)
        depth = jnp.where(is_full, deepest_full, shallowest)
        # Smaller steps than an eighth are not worth their compiling.
        *smaller, full = [size for size in step_sizes(self.rows) if 8 * size >= self.rows]
        sizes = jnp.array([*smaller, full], jnp.int32)
        size = jnp.searchsorted(sizes, jnp.minimum(size_L[depth], self.rows))
        # The branches only read the stacks: a branch that wrote them would have them copied at every turn.
        stacked = self.runtime.network.stacked_layers(self.model.params), self.model.exits
        branches = [
            *(
                lambda rows=rows: self._step(loop, depth, *jax.tree.map(lambda leaf: leaf[depth], stacked), rows=rows)
                for rows in smaller
            ),
            *(lambda parts=parts: self._step(loop, depth, *parts, rows=full) for parts in self.model.parts),
            lambda: self._embed(loop.entered),
        ]
        branch = jnp.where(size < len(smaller), size, len(smaller) + depth)
        moved = jax.lax.switch(jnp.where(embeds, len(branches) - 1, branch), branches)
        run = jnp.where(embeds, 0, sizes[size])
        size_L = size_L.at[depth].add(-jnp.minimum(size_L[depth], run))
        following = jnp.where(embeds, 0, jnp.minimum(depth + 1, layers - 1))  # no text stays after the last layer
        stacks = put_on_top(loop.stacks, following, size_L[following], moved)
        size_L = size_L.at[following].add(moved.stays_B.sum(dtype=jnp.int32))
        ticket_B = jnp.where(moved.exits_B, moved.texts.ticket_B, len(self.batch.text_BxS))
        found = Results(
            jnp.asarray(loop.found.probabilities_BxN).at[ticket_B].set(moved.probabilities_BxN, mode="drop"),
            jnp.asarray(loop.found.exit_layer_B).at[ticket_B].set(depth + 1, mode="drop"),
            jnp.asarray(loop.found.uncertainty_B).at[ticket_B].set(moved.uncertainty_B, mode="drop"),
        )
        return Loop(stacks, size_L, loop.entered + embeds.astype(jnp.int32), found, loop.rows_run + run)

    def _embed(self, number: jax.Array) -> Moved:
        """The next B texts, all of them to the first stack."""
        rows = self.rows
        start = number * rows
        batch: Batch = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, rows), self.batch)
        ticket_B = start + jnp.arange(rows, dtype=jnp.int32)
        texts = self.runtime.enter(self.model.params, batch, ticket_B)
        nothing_BxN = jnp.zeros((rows, self.runtime.network.num_classes))
        return Moved(texts, ticket_B < self.texts, jnp.zeros(rows, bool), nothing_BxN, jnp.zeros(rows))

    def _step(self, loop: Loop, depth: jax.Array, layer: Params, exit_: Params, *, rows: int) -> Moved:
        """One layer and its exit on the top `rows` of its stack; where it is not asked, all stay as they are."""
        size, asked = loop.size_L[depth], jnp.array(self.runtime.asked)[depth]
        start = depth, jnp.maximum(size - rows, 0)

        def top(leaf: jax.Array) -> jax.Array:
            inner = leaf.shape[2:]
            return jax.lax.dynamic_slice(leaf, (*start, *(0,) * len(inner)), (1, rows, *inner))[0]

        before: Texts = jax.tree.map(top, loop.stacks)
        texts, result = self.runtime.step(layer, exit_, before)
        assert result is not None
        is_text_B = jnp.arange(rows) < size
        exits_B = is_text_B & asked & (result.uncertainty_B < self.thresholds_L[depth])
        texts = texts._replace(state=if_asked(asked, texts.state, before.state))
        moved = Moved(texts, is_text_B & ~exits_B, exits_B, *result)
        missing = self.rows - rows
        padded: Moved = jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), moved)
        return padded


def put_on_top(stacks: Texts, depth: jax.Array, top: jax.Array, moved: Moved) -> Texts:
    """Those that stay from place `top` of a stack on; what else their block holds is above them, and means nothing."""
    stays_first_B = jnp.argsort(~moved.stays_B, stable=True)
    texts: Texts = jax.tree.map(
        lambda held, new: jax.lax.dynamic_update_slice(
            held, new[stays_first_B][None], (depth, top, *(0,) * (new.ndim - 1))
        ),
        stacks,
        moved.texts,
    )
    return texts

"""The bucketed engine: a loop on the host that moves the survivors of each layer to the smallest batch that holds them.

Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fastbert_jax.inference.engines.engine import BATCHES_IN_FLIGHT, Engine, Results, side_by_side
from fastbert_jax.inference.engines.runtime import ExitResult, Runtime
from fastbert_jax.inference.engines.static_sizes import batch_buckets, first_rows, smallest_bucket
from fastbert_jax.inference.policies import PolicyState
from fastbert_jax.model.network import Array, Params
from fastbert_jax.text.batches import Batch


class Survivors(NamedTuple):
    """The texts that have not exited yet, on the device."""

    hidden_BxSxH: jax.Array
    text_BxS: Array
    cls_BxK: Array
    state: PolicyState


class Bucketed(Engine):
    """One call per layer; after a layer the survivors move to the smallest bucket that holds them.

    One program serves every layer, so that there is one per (bucket, length), and a gather, which takes little to
    compile, per pair of buckets met. Hidden states stay on the device: the host reads one number per text and layer.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._embed = runtime.jit(runtime.network.embed)
        self._advance = runtime.jit(self._layer_and_exit)
        self._run_layer = runtime.jit(runtime.run_layer)
        self._take = runtime.jit(take_rows)

    def _layer_and_exit(
        self, layer: Params, exit_: Params, texts: Survivors
    ) -> tuple[jax.Array, PolicyState, ExitResult]:
        hidden_BxSxH = self.runtime.run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
        state, result = self.runtime.run_exit(exit_, texts.state, hidden_BxSxH, texts.text_BxS, texts.cls_BxK)
        return hidden_BxSxH, state, result

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        works = (self._classify(batch, thresholds_L) for batch in batches)
        return side_by_side(works, width=BATCHES_IN_FLIGHT)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need: a program per bucket, a gather per pair."""
        runtime, buckets = self.runtime, batch_buckets(len(batch.text_BxS))
        for number, rows in enumerate(buckets):
            part = first_rows(batch, rows)
            hidden_BxSxH = self._embed(runtime.params, part)
            texts = Survivors(hidden_BxSxH, part.text_BxS, part.cls_BxK, runtime.policy.start(rows))
            self._advance(runtime.layers[0], runtime.exits[0], texts)
            if not all(runtime.asked):
                self._run_layer(runtime.layers[0], texts.hidden_BxSxH, texts.text_BxS)
            for fewer in buckets[:number]:
                self._take(texts, np.zeros(fewer, np.int32))

    def _classify(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Results]:
        runtime, batch_size = self.runtime, len(batch.text_BxS)
        buckets = batch_buckets(batch_size)
        results = Results.empty(batch_size, runtime.network.config.num_classes)
        row_of_slot, live = np.arange(batch_size), np.array(batch.valid_BxK[:, 0], bool)
        texts = Survivors(
            self._embed(runtime.params, batch), batch.text_BxS, batch.cls_BxK, runtime.policy.start(batch_size)
        )
        for depth, (layer, exit_) in enumerate(zip(runtime.layers, runtime.exits, strict=True), start=1):
            if not runtime.asked[depth - 1]:
                hidden_BxSxH = self._run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
                texts = texts._replace(hidden_BxSxH=hidden_BxSxH)
                continue
            hidden_BxSxH, state, result = self._advance(layer, exit_, texts)
            texts = texts._replace(hidden_BxSxH=hidden_BxSxH, state=state)
            yield
            uncertainty_B = np.asarray(result.uncertainty_B)
            exits_here = live & ((uncertainty_B < thresholds_L[depth - 1]) | (depth == runtime.network.num_layers))
            if exits_here.any():
                rows = row_of_slot[exits_here]
                results.probabilities_BxN[rows] = np.asarray(result.probabilities_BxN)[exits_here]
                results.exit_layer_B[rows] = depth
                results.uncertainty_B[rows] = uncertainty_B[exits_here]
            live &= ~exits_here
            slots = np.flatnonzero(live)
            if not slots.size:
                break
            bucket = smallest_bucket(buckets, slots.size)
            if bucket < live.size:
                # The first survivors again fill the bucket; what comes out for them is ignored.
                index = np.resize(slots, bucket).astype(np.int32)
                texts = self._take(texts, index)
                row_of_slot, live = row_of_slot[index], np.arange(bucket) < slots.size
        return results


def take_rows(tree: Any, index_B: jax.Array) -> Any:
    """The rows `index_B` of every array of a tree."""
    return jax.tree.map(lambda leaf: leaf[index_B], tree)

"""The bucketed engine: a loop on the host that moves the survivors of each layer to the smallest batch that holds them.

Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import jax
import numpy as np

from fastbert_jax.inference.engines.engine import Engine, Results, side_by_side
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import batch_buckets, first_rows, next_bucket
from fastbert_jax.text.batches import Batch


class Bucketed(Engine):
    """One call per layer; after a layer the survivors move to the smallest bucket that holds them.

    One program serves every layer, so that there is one per (bucket, length), and a gather per pair of buckets that
    texts move between (`next_bucket`). Hidden states stay on the device: the host reads one number per text and layer.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._enter = runtime.jit(runtime.enter)
        self._step = runtime.jit(runtime.step)
        self._take = runtime.jit(lambda texts, index_B: jax.tree.map(lambda leaf: leaf[index_B], texts))

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        return side_by_side(self._classify(batch, thresholds_L) for batch in batches)

    def _warm_up_early(self, batch: Batch) -> None:
        """A program per bucket, and a gather per move."""
        runtime, buckets = self.runtime, batch_buckets(len(batch.text_BxS))
        for number, rows in enumerate(buckets):
            texts = self._enter(runtime.params, first_rows(batch, rows))
            self._step(*runtime.parts[0], texts)
            if not all(runtime.asked):
                self._step(runtime.parts[0][0], None, texts)
            for fewer in {next_bucket(buckets, rows, texts) for texts in buckets[:number]}:
                self._take(texts, np.zeros(fewer, np.int32))

    def _classify(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Results]:
        runtime, batch_size = self.runtime, len(batch.text_BxS)
        buckets = batch_buckets(batch_size)
        results = Results.empty(batch_size, runtime.network.num_classes)
        row_of_slot, live = np.arange(batch_size), np.array(batch.valid_BxK[:, 0], bool)
        texts = self._enter(runtime.params, batch)
        for depth, (layer, exit_) in enumerate(runtime.steps, start=1):
            texts, result = self._step(layer, exit_, texts)
            if result is None:
                continue
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
            # The first survivors again fill the bucket; what comes out for them is ignored.
            while (bucket := next_bucket(buckets, live.size, slots.size)) < live.size:
                index = np.resize(np.flatnonzero(live), bucket).astype(np.int32)
                texts = self._take(texts, index)
                row_of_slot, live = row_of_slot[index], np.arange(bucket) < slots.size
        return results

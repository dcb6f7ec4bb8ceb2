"""The bucketed engine: a loop on the host that moves the survivors of each layer to the smallest batch that holds them.

Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import bisect
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fastbert_jax.inference.engine import BATCHES_UNDER_WAY, Answers, Engine, side_by_side
from fastbert_jax.inference.policies import Memory
from fastbert_jax.inference.runtime import Answer, Array, Runtime
from fastbert_jax.model.fastbert import Params
from fastbert_jax.text.batches import Batch


def batch_buckets(batch_size: int) -> tuple[int, ...]:
    """The static numbers of rows that batches of up to `batch_size` texts shrink to, rising, `batch_size` last.

    1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, ...: above 8, a fifth of a bucket is padding at most, and their
    number, each a program to compile, grows with the logarithm of the batch size. On a CPU a step costs nearly in
    proportion to its rows, so that padding is paid in full; `benchmarks/engine_efficiency.py` measures it.
    """
    fine = [quarter << shift for shift in range(1, batch_size.bit_length()) for quarter in (4, 5, 6, 7)]
    return (*(rows for rows in [1, 2, 3, 4, 6, *fine] if rows < batch_size), batch_size)


def smallest_bucket(buckets: tuple[int, ...], rows: int) -> int:
    """The smallest of the rising `buckets` that holds `rows`, which is at most the last of them."""
    return buckets[bisect.bisect_left(buckets, rows)]


class Survivors(NamedTuple):
    """The texts still on their way, on the device."""

    hidden_BxSxH: jax.Array
    text_BxS: Array
    cls_BxK: Array
    memory: Memory


class Bucketed(Engine):
    """One call per layer; after a layer the survivors move to the smallest bucket that holds them.

    One program serves every layer, so that there is one per (bucket, length), and a gather, which takes little to
    compile, per pair of buckets met. Hidden states stay on the device: the host reads one number per text and layer.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._embed = runtime.jit(runtime.embed)
        self._advance = runtime.jit(self._layer_and_exit)
        self._run_layer = runtime.jit(runtime.run_layer)
        self._take = runtime.jit(take_rows)

    def _layer_and_exit(self, layer: Params, exit_: Params, texts: Survivors) -> tuple[jax.Array, Memory, Answer]:
        hidden_BxSxH = self.runtime.run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
        memory, answer = self.runtime.run_exit(exit_, texts.memory, hidden_BxSxH, texts.text_BxS, texts.cls_BxK)
        return hidden_BxSxH, memory, answer

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        works = (self._answer(batch, thresholds_L) for batch in batches)
        return side_by_side(works, width=BATCHES_UNDER_WAY)

    def _answer(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Answers]:
        runtime, batch_size = self.runtime, len(batch.text_BxS)
        buckets = batch_buckets(batch_size)
        answers = Answers(
            np.zeros((batch_size, runtime.config.num_classes), np.float32),
            np.zeros(batch_size, np.int32),
            np.zeros(batch_size, np.float32),
        )
        row_of_slot, live = np.arange(batch_size), np.array(batch.valid_BxK[:, 0], bool)
        texts = Survivors(
            self._embed(runtime.params, batch), batch.text_BxS, batch.cls_BxK, runtime.policy.start(batch_size)
        )
        for depth, (layer, exit_) in enumerate(zip(runtime.layers, runtime.exits, strict=True), start=1):
            if not runtime.asked[depth - 1]:
                hidden_BxSxH = self._run_layer(layer, texts.hidden_BxSxH, texts.text_BxS)
                texts = texts._replace(hidden_BxSxH=hidden_BxSxH)
                continue
            hidden_BxSxH, memory, answer = self._advance(layer, exit_, texts)
            texts = texts._replace(hidden_BxSxH=hidden_BxSxH, memory=memory)
            yield
            uncertainty_B = np.asarray(answer.uncertainty_B)
            leaves = live & ((uncertainty_B < thresholds_L[depth - 1]) | (depth == runtime.config.num_layers))
            if leaves.any():
                rows = row_of_slot[leaves]
                answers.probabilities_BxN[rows] = np.asarray(answer.probabilities_BxN)[leaves]
                answers.exit_layer_B[rows] = depth
                answers.uncertainty_B[rows] = uncertainty_B[leaves]
            live &= ~leaves
            slots = np.flatnonzero(live)
            if not slots.size:
                break
            bucket = smallest_bucket(buckets, slots.size)
            if bucket < live.size:
                # The first survivors again fill the bucket; what comes out for them is ignored.
                index = np.resize(slots, bucket).astype(np.int32)
                texts = self._take(texts, index)
                row_of_slot, live = row_of_slot[index], np.arange(bucket) < slots.size
        return answers


def take_rows(tree: Any, index_B: jax.Array) -> Any:
    """The rows `index_B` of every array of a tree."""
    return jax.tree.map(lambda leaf: leaf[index_B], tree)

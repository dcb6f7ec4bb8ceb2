"""The masked engine: every layer on a fixed shape. It saves nothing, and defines what the others must give."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.engine import BATCHES_IN_FLIGHT, Engine, Results, side_by_side
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.engines.static_sizes import batch_buckets, first_rows
from fastbert_jax.model.network import Params
from fastbert_jax.text.batches import Batch


class Masked(Engine):
    """Every layer and every exit on a fixed shape, under one jit; a text's result is that of its first sure exit.

    This is what early exit costs without a host loop.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._program = runtime.jit(self._run_all_layers)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        works = (self._classify(batch, thresholds_L) for batch in batches)
        return side_by_side(works, width=BATCHES_IN_FLIGHT)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need."""
        never = np.zeros(self.runtime.network.num_layers, np.float32)
        for rows in batch_buckets(len(batch.text_BxS)):
            for _ in self._run_early([first_rows(batch, rows)], never):
                pass

    def _classify(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Results]:
        results = self._program(self.runtime.params, batch, thresholds_L)
        yield
        return Results(*jax.device_get(results))

    def _run_all_layers(self, params: Params, batch: Batch, thresholds_L: jax.Array) -> Results:
        probabilities_LxBxN, uncertainty_LxB = self.runtime.run_all_exits(params, batch)
        asked_Lx1 = jnp.array(self.runtime.asked)[:, None]
        sure_LxB = asked_Lx1 & (uncertainty_LxB < thresholds_L[:, None])
        exit_1xB = sure_LxB.at[-1].set(True).argmax(0)[None]
        return Results(
            jnp.take_along_axis(probabilities_LxBxN, exit_1xB[:, :, None], axis=0)[0],
            exit_1xB[0].astype(jnp.int32) + 1,
            jnp.take_along_axis(uncertainty_LxB, exit_1xB, axis=0)[0],
        )

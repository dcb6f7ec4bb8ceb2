"""The masked engine: every layer on a fixed shape. It saves nothing, and defines what the others must answer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.engine import BATCHES_UNDER_WAY, Answers, Engine, side_by_side
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.engines.static_sizes import batch_buckets, first_rows
from fastbert_jax.model.fastbert import Params
from fastbert_jax.text.batches import Batch


class Masked(Engine):
    """Every layer and every exit on a fixed shape, under one jit; a text's answer freezes at its first sure exit.

    This is what early exit costs without a host loop.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._program = runtime.jit(self._run_all_layers)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        works = (self._answer(batch, thresholds_L) for batch in batches)
        return side_by_side(works, width=BATCHES_UNDER_WAY)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need."""
        never = np.zeros(self.runtime.config.num_layers, np.float32)
        for rows in batch_buckets(len(batch.text_BxS)):
            for _ in self._run_early([first_rows(batch, rows)], never):
                pass

    def _answer(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Answers]:
        answers = self._program(self.runtime.params, self.runtime.stacked_exits, batch, thresholds_L)
        yield
        return Answers(*jax.device_get(answers))

    def _run_all_layers(self, params: Params, exits: Params, batch: Batch, thresholds_L: jax.Array) -> tuple:
        runtime, rows = self.runtime, len(batch.text_BxS)
        last = runtime.config.num_layers

        def step(carry: tuple, at: tuple) -> tuple[tuple, None]:
            hidden_BxSxH, memory, (probabilities_BxN, exit_layer_B, uncertainty_B) = carry
            layer, exit_, asked, threshold, depth = at
            hidden_BxSxH = runtime.run_layer(layer, hidden_BxSxH, batch.text_BxS)
            memory, answer = runtime.run_exit_if_asked(
                asked, exit_, memory, hidden_BxSxH, batch.text_BxS, batch.cls_BxK
            )
            sure_B = asked & (answer.uncertainty_B < threshold)
            leaves_B = (exit_layer_B == 0) & (sure_B | (depth == last))
            frozen = (
                jnp.where(leaves_B[:, None], answer.probabilities_BxN, probabilities_BxN),
                jnp.where(leaves_B, depth, exit_layer_B),
                jnp.where(leaves_B, answer.uncertainty_B, uncertainty_B),
            )
            return (hidden_BxSxH, memory, frozen), None

        nothing = (
            jnp.zeros((rows, runtime.config.num_classes)),
            jnp.zeros((rows,), jnp.int32),
            jnp.zeros((rows,)),
        )
        start = runtime.embed(params, batch), runtime.policy.start(rows), nothing
        depths_L = jnp.arange(1, last + 1, dtype=jnp.int32)
        over = (params["backbone"]["layers"], exits, jnp.array(runtime.asked), thresholds_L, depths_L)
        (_, _, answers), _ = jax.lax.scan(step, start, over)
        return answers

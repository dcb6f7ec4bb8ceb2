"""Whether the cascades' memory stays flat, however many texts come: a million of them, by repetition.

    python benchmarks/cascade_memory.py --output benchmarks/results/cascade_memory.json

The bytes of all arrays on the device and of the process are looked at as answers come back, beside those that the
engine's docstring promises for its queues.
"""

from __future__ import annotations

import dataclasses
import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import Mode
from fastbert_jax.inference.engines.auto import make_engines
from fastbert_jax.inference.engines.engine import Results
from fastbert_jax.inference.plan import plan_batches
from measured import publish, random_config, random_model, random_tokens

LOOKS = 20
"""How often memory is looked at, spread evenly."""
ROWS_PER_LAYER = {Mode.CASCADE: 3, Mode.GRAPH_CASCADE: 2}
"""Steps that a layer's queue or stack has places for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Watch the cascades' memory."""

    texts: int = 1_000_000
    """Texts to answer."""
    length: int = 16
    """Tokens of each."""
    layers: int = 4
    """Layers of the random model."""
    hidden_size: int = 64
    """Its width."""
    rows: int = 64
    """Texts of a batch, which is one step."""
    modes: tuple[Mode, ...] = (Mode.CASCADE, Mode.GRAPH_CASCADE)
    """Engines to watch."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Watch, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    config = random_config(layers=settings.layers, hidden_size=settings.hidden_size)
    model = random_model(config, lengths=(settings.length,))
    some = random_tokens(config, texts=32 * settings.rows, length=settings.length)
    plan = plan_batches(some, lengths=(settings.length,), batch_size=settings.rows)
    uncertainty_LxB = model.predictor.all_exits(plan)[1].T
    thresholds_L = np.median(uncertainty_LxB, axis=1)
    engines = make_engines([model.runtime])
    values = {}
    for mode in settings.modes:
        count = settings.texts // settings.rows
        batches = itertools.islice(itertools.cycle(plan.batches), count)
        looks = list(
            watched(engines[mode].run(batches, thresholds_L), every=max(count // LOOKS, 1), rows=settings.rows)
        )
        hidden = settings.layers * settings.rows * settings.length * settings.hidden_size * 4
        values[mode.value] = {"looks": looks, "queues_of_the_formula": ROWS_PER_LAYER[mode] * hidden}
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(model.runtime.params))
    publish({"engines": values, "parameters": parameters}, settings)


def watched(answers: Iterator[Results], *, every: int, rows: int) -> Iterator[dict[str, int]]:
    """The bytes in use after every so many batches."""
    for number, _ in enumerate(answers, start=1):
        if number % every == 0:
            yield {
                "texts": number * rows,
                "device_bytes": sum(array.nbytes for array in jax.live_arrays()),
                "process_bytes": resident_bytes(),
            }


def resident_bytes() -> int:
    """Of this process, now; its peak where the system tells no more."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    end_with(main)

"""The engines by their names: different ways to run early exit that give one answer."""

from __future__ import annotations

from collections.abc import Sequence

from fastbert_jax.config import Mode
from fastbert_jax.inference.engines.all_devices import AllDevices
from fastbert_jax.inference.engines.auto import Auto
from fastbert_jax.inference.engines.bucketed import Bucketed
from fastbert_jax.inference.engines.cascade import Cascade
from fastbert_jax.inference.engines.engine import Engine
from fastbert_jax.inference.engines.graph_cascade import GraphCascade
from fastbert_jax.inference.engines.masked import Masked
from fastbert_jax.inference.engines.runtime import Runtime

ENGINES: dict[Mode, type[Engine]] = {
    Mode.MASKED: Masked,
    Mode.BUCKETED: Bucketed,
    Mode.CASCADE: Cascade,
    Mode.GRAPH_CASCADE: GraphCascade,
}


def make_engines(runtimes: Sequence[Runtime]) -> dict[Mode, Engine]:
    """Every engine of one model, on all runtimes, a copy of it each, and `auto`, which picks among them."""
    engines: dict[Mode, Engine] = {}
    for mode, kind in ENGINES.items():
        one_each = [kind(runtime) for runtime in runtimes]
        engines[mode] = one_each[0] if len(one_each) == 1 else AllDevices(one_each)
    if len(runtimes) > 1 and all(len(runtime.devices) == 1 for runtime in runtimes):
        engines[Mode.GRAPH_CASCADE] = GraphCascade(*runtimes)
    return {Mode.AUTO: Auto(runtimes[0], engines), **engines}

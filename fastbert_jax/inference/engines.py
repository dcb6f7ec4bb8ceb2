"""The engines by their names: different ways to run early exit that give one answer."""

from __future__ import annotations

from fastbert_jax.config import Mode
from fastbert_jax.inference.auto import Auto
from fastbert_jax.inference.bucketed import Bucketed
from fastbert_jax.inference.cascade import Cascade
from fastbert_jax.inference.engine import Engine
from fastbert_jax.inference.graph_cascade import GraphCascade
from fastbert_jax.inference.masked import Masked
from fastbert_jax.inference.runtime import Runtime

ENGINES: dict[Mode, type[Engine]] = {
    Mode.MASKED: Masked,
    Mode.BUCKETED: Bucketed,
    Mode.CASCADE: Cascade,
    Mode.GRAPH_CASCADE: GraphCascade,
}


def make_engines(runtime: Runtime) -> dict[Mode, Engine]:
    """Every engine of one model, and `auto`, which picks among them."""
    engines = {mode: engine(runtime) for mode, engine in ENGINES.items()}
    return {Mode.AUTO: Auto(runtime, engines), **engines}

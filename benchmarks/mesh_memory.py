"""What each device holds, and how long compiling takes, on meshes that this machine need not have.

    python benchmarks/mesh_memory.py --output benchmarks/results/mesh_memory.json

The steps of both phases are compiled for eight devices that the CPU plays, from shapes alone: no parameter is made.
Parameters, optimizer state and batch are what the shardings say; working memory is what XLA's compiler says of its CPU
program, which is larger than an accelerator's where that has fused attention. Seconds of compiling are this machine's.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DistilConfig, FineTuneConfig, MeshConfig, Precision
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import make_mesh, sharding_of
from fastbert_jax.recipes.fastbert import fine_tuning, self_distillation
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.recipe import Start
from fastbert_jax.training.run import bytes_per_device
from fastbert_jax.training.step import PlacedStep
from fastbert_jax.training.terms import COMPUTED, Phase, Tree
from measured import publish
from scaling import MODELS, bert


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Compile for meshes, and look at their memory."""

    model: str = "BERT-large"
    """A name of scaling.py, or LAYERSxWIDTHxHEADS."""
    meshes: tuple[tuple[int, int, int], ...] = ((8, 1, 1), (1, 8, 1), (2, 2, 2))
    """Sizes of data, fsdp and tensor."""
    rows: int = 64
    """Rows of the global batch."""
    length: int = 128
    """Tokens of a row."""
    texts_per_row: int = 16
    """Texts that a row of distillation has room for."""
    precision: Precision = Precision.BFLOAT16
    """dtype of the arithmetic."""
    remat: bool = False
    """Compute layers again in the backward pass."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Compile, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    jax.config.update("jax_num_cpu_devices", max(data * fsdp * tensor for data, fsdp, tensor in settings.meshes))
    # What is read back from a cache was not compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    config = MODELS.get(settings.model) or bert(*map(int, settings.model.split("x")))
    publish({"meshes": [on_mesh(config, mesh, settings) for mesh in settings.meshes]}, settings)


def on_mesh(config: BertConfig, sizes: tuple[int, int, int], settings: Settings) -> dict:
    """Bytes per device and seconds of compiling, for each phase."""
    data, fsdp, tensor = sizes
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor), devices)
    network = Bert(config, dropout=0.1, dtype=jnp.dtype(settings.precision.value), remat=settings.remat)
    phases = (fine_tuning(network, FineTuneConfig()), *self_distillation(network, DistilConfig()))
    shapes = {"model": Start(network).abstract_params(mesh)}
    found: dict = {"data, fsdp, tensor": sizes}
    for phase, texts in zip(phases, (1, settings.texts_per_row), strict=True):
        batch = abstract_batch(settings.rows, settings.length, texts, mesh)
        seconds, held = compiled_step(phase, shapes, batch, mesh=mesh)
        found[phase.name] = {"bytes_per_device": held | {"all": sum(held.values())}, "compile_seconds": seconds}
    return found


def abstract_batch(rows: int, length: int, texts_per_row: int, mesh: Mesh) -> Batch:
    """The shapes of a batch, shared out."""
    sharding = sharding_of(mesh, ("batch",))

    def array(dtype: Any, size: int) -> Any:
        return jax.ShapeDtypeStruct((rows, size), dtype, sharding=sharding)

    tokens, texts = array(np.int32, length), array(np.int32, texts_per_row)
    return Batch(tokens, tokens, tokens, tokens, texts, texts, array(np.bool_, texts_per_row))


def compiled_step(phase: Phase, shapes: Tree, batch: Batch, *, mesh: Mesh) -> tuple[float, dict[str, int]]:
    """Compile a phase's step for shapes alone: seconds, and bytes on each device by what they are for.

    Args:
      shapes: of all parameters `{source: tree}`, as abstract arrays with their shardings.
      batch: abstract arrays.
    """
    placed = PlacedStep(phase, shapes, mesh=mesh, total_steps=1000, key=jax.random.key(0))
    with jax.set_mesh(mesh):
        lowered = placed.steps[COMPUTED].lower(placed.state, placed.frozen, {"batch": batch})
        began = time.perf_counter()
        memory = lowered.compile().memory_analysis()
    seconds = time.perf_counter() - began
    return seconds, {
        "trained": bytes_per_device(placed.state.trained),
        "optimizer": bytes_per_device(placed.state.opt_state),
        "frozen": bytes_per_device(placed.frozen),
        "batch": bytes_per_device(batch),
        "working memory": int(memory.temp_size_in_bytes),
    }


if __name__ == "__main__":
    end_with(main)

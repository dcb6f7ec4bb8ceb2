"""Compile the project's programs with the TPU compiler for slices of TPUs. No TPU is needed, and nothing runs.

    make tpu-check      (python benchmarks/tpu_check.py, where libtpu is installed)

Both phases of training and the programs of the engines are lowered from shapes alone and compiled for v5e-256, v5e-8
and v6e-8, in bfloat16. Of each: bytes on each chip, collectives, custom calls, seconds of compiling on this machine,
and the bytes that go through the chip's memory (HBM) against the least possible, which is:

- training: what trains and its optimizer state, read and written once; what is frozen, read once;
- inference: the parameters, in a cascade step those of the layer and its exit, read once;
- and the hidden states before, between and after the layers, written once and read once; in fine-tuning twice, as their
  gradients go the other way.

The result is written after every case. A program that has not changed since, by its text before XLA's passes, is not
compiled again, so that an interrupted check goes on, and one after a change compiles what the change has touched.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from compiled_text import CompiledText
from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DistilConfig, FineTuneConfig, KLDirection, MeshConfig, Precision
from fastbert_jax.errors import UserError
from fastbert_jax.inference.engines.cascade import Cascade
from fastbert_jax.inference.engines.engine import Masked
from fastbert_jax.inference.engines.graph_cascade import STEPS_PER_CALL, GraphCascade
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import copies_of, make_mesh, sharding_of
from fastbert_jax.recipes.fastbert import fine_tuning, self_distillation
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.recipe import Start
from fastbert_jax.training.run import bytes_per_device
from fastbert_jax.training.step import PlacedStep
from fastbert_jax.training.terms import COMPUTED
from fastbert_jax.version import commit
from scaling import CHIPS, FLOAT, MODELS, sizes

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-256",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs, so that two processes do not disturb each other
}
"""What libtpu reads from the environment instead of asking a TPU machine."""
TOPOLOGIES = {"v5e-256": "v5e:16x16", "v5e-8": "v5e:2x4", "v6e-8": "v6e:2x4"}
MEMORY = {name: CHIPS[f"TPU {name[:3]}"].memory for name in TOPOLOGIES}
"""Bytes of a chip."""
MESHES = {"data": (1, 1), "fsdp": (8, 1), "tensor": (1, 4)}
"""Sizes of fsdp and tensor; `data` takes the other chips."""
BATCHES = {
    "fine_tune": ("fine_tune", 64, 128, 1),
    "distil, packed": ("distil", 64, 128, 16),
    "distil, bucket of 64": ("distil", 128, 64, 1),
}
"""Phase, rows on each chip, tokens of a row, texts of a row. Labelled texts are padded, one a row."""
ENGINES = {"full depth": 256, "full depth, 64 rows": 64, "masked": 256, "cascade step": 256, "graph-cascade": 256}
"""Rows of a batch or step on each chip."""
INFERENCE_LENGTH = 128
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Compile for TPU slices."""

    only: str = ""
    """Part of the names of the cases to compile, such as `v5e-8, BERT-base`; empty: all."""
    texts: str = ""
    """Directory for the text of each compiled program; empty: none."""
    output: str = "benchmarks/results/tpu_check.json"
    """JSON file of the result."""


class Program(NamedTuple):
    """A program that is not compiled yet."""

    lowered: jax.stages.Lowered
    tokens: int
    """Of a run, on each chip."""
    least_bytes: int | None
    """What a run must move through each chip's memory, as above; None where it depends on the texts."""


class Case(NamedTuple):
    """What is compiled, and for what."""

    slice: str
    model: str
    mesh: str
    program: str
    rows: int
    """On each chip."""

    @property
    def name(self) -> str:
        """Unique among the cases."""
        return ", ".join(map(str, self[:-1]))


def main() -> None:
    """Compile every case, write what is found, and fail where a collective should not be there."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    # What is read back from a cache was not compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    path = Path(settings.output)
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else {}
    versions = {"libtpu": importlib.metadata.version("libtpu"), "jax": jax.__version__}
    order = [case.name for case in cases()]
    asked = [case for case in cases() if settings.only in case.name]
    now, wrong = commit(), []

    def note(case: Case, found: dict[str, Any]) -> None:
        known[case.name] = found
        write_json(path, {"command": "make tpu-check", "cases": {name: known[name] for name in order if name in known}})

    for case in asked:
        program = lower(case, devices_of(case.slice), MODELS[case.model])
        identity = versions | {"sha256": hashlib.sha256(program.lowered.as_text().encode()).hexdigest()}
        found = known.get(case.name, {})
        if not identity.items() <= found.items():
            print(case.name, flush=True)
            keep = Path(settings.texts, f"{case.name}.txt") if settings.texts else None
            found = case._asdict() | identity | compiled(program, keep)
        note(case, found | {"git_commit": now})
        wrong += unexpected(case, found, MODELS[case.model])
    for case in asked:
        if case.mesh == "data" and case.program in BATCHES and "largest_rows" not in known[case.name]:
            print(f"{case.name}: the largest batch", flush=True)
            note(case, known[case.name] | {"largest_rows": largest_rows(case, known[case.name])})
    if wrong:
        raise UserError("\n".join(wrong))


def cases() -> Iterator[Case]:
    """All cases, the most important first."""
    for model, slice_, mesh in itertools.product(("BERT-base", "BERT-large"), TOPOLOGIES, MESHES):
        for program, (_, rows, *_) in BATCHES.items():
            yield Case(slice_, model, mesh, program, rows)
        if mesh == "data":
            yield from (Case(slice_, model, mesh, program, rows) for program, rows in ENGINES.items())


@functools.cache
def devices_of(slice_: str) -> Sequence[jax.Device]:
    """The chips of a slice, none of which is attached."""
    os.environ.update(LIBTPU)
    return topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[slice_]).devices


def lower(case: Case, devices: Sequence[jax.Device], config: BertConfig) -> Program:
    """The program of a case."""
    if case.program in BATCHES:
        fsdp, tensor = MESHES[case.mesh]
        mesh = make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor), devices)
        return training_step(case, mesh, config)
    return inference_program(case, make_mesh(MeshConfig(), devices), config)


def training_step(case: Case, mesh: Mesh, config: BertConfig) -> Program:
    """A phase's step, as training compiles it."""
    name, _, length, texts = BATCHES[case.program]
    network = Bert(config, dropout=0.1, precision=Precision.BFLOAT16)
    distil = DistilConfig(learning_rate=2e-4, kl=KLDirection.STUDENT_TEACHER)  # the paper's
    phases = (fine_tuning(network, FineTuneConfig(learning_rate=2e-5)), *self_distillation(network, distil))
    (phase,) = (phase for phase in phases if phase.name == name)
    shapes = {"model": Start(network).abstract_params(mesh)}
    placed = PlacedStep(phase, shapes, mesh=mesh, total_steps=1000, key=jax.random.key(0))
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    batch = abstract_batch(case.rows * shares, length, texts, sharding_of(mesh, ("batch",)))
    with jax.set_mesh(mesh):
        lowered = placed.steps[COMPUTED].lower(placed.state, placed.frozen, {"batch": batch})
    tokens = case.rows * length
    hidden = hidden_bytes(network, tokens) * (2 if name == "fine_tune" else 1)
    return Program(lowered, tokens, 2 * bytes_per_device(placed.state) + bytes_per_device(placed.frozen) + hidden)


def inference_program(case: Case, mesh: Mesh, config: BertConfig) -> Program:
    """A program of an engine. Engines have a copy of the model on each chip; only graph-cascade runs on all at once."""
    network, rows, length = Bert(config, precision=Precision.BFLOAT16), case.rows, INFERENCE_LENGTH
    copies = copies_of(mesh)
    params, here = Start(network).abstract_params(copies[0]), sharding_of(copies[0], ())
    runtime = Runtime(params, network, mesh=copies[0])
    tokens, thresholds_L = rows * length, np.zeros(network.num_layers, np.float32)
    params = runtime.params  # in the dtype of their use
    least = hidden_bytes(network, tokens) + bytes_per_device(params)
    batch = abstract_batch(rows, length, 1, here)
    match case.program:
        case "full depth" | "full depth, 64 rows":
            return Program(runtime.full_depth.func.lower(params, batch), tokens, least)
        case "masked":
            return Program(Masked(runtime).program.lower(params, batch, thresholds_L), tokens, least)
        case "cascade step":
            engine = Cascade(runtime)
            queue, following, *_ = with_sharding(engine.empty_queues.eval_shape(rows=rows, length=length), here)
            layer, exit_ = with_sharding(jax.eval_shape(lambda tree: Runtime(tree, network).steps[0], params), here)
            lowered = engine.advance.lower(layer, exit_, thresholds_L[0], queue, following, rows=rows)
            hidden = hidden_bytes(network, tokens) // (network.num_layers + 1)
            return Program(lowered, tokens, hidden + bytes_per_device((layer, exit_)))
        case "graph-cascade":
            together = GraphCascade(*(Runtime(params, network, mesh=copy) for copy in copies))
            everywhere = NamedSharding(together.mesh, PartitionSpec())
            model = jax.eval_shape(lambda tree: GraphCascade(Runtime(tree, network)).model, params)
            shards = len(copies)
            batch = abstract_batch(shards * STEPS_PER_CALL * rows, length, 1, None)
            texts = np.zeros(shards, np.int32)
            lowered = together.program.lower(with_sharding(model, everywhere), batch, texts, thresholds_L, rows=rows)
            return Program(lowered, STEPS_PER_CALL * tokens, None)
    raise ValueError(f"expected one of {list(ENGINES)}, found {case.program!r}")


def abstract_batch(rows: int, length: int, texts_per_row: int, sharding: jax.sharding.Sharding | None) -> Batch:
    """The shapes of a batch."""

    def array(dtype: Any, size: int) -> Any:
        return jax.ShapeDtypeStruct((rows, size), dtype, sharding=sharding)

    tokens, texts = array(np.int32, length), array(np.int32, texts_per_row)
    return Batch(tokens, tokens, tokens, tokens, texts, texts, array(np.bool_, texts_per_row))


def with_sharding(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Abstract arrays that all have one sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def hidden_bytes(network: Bert, tokens: int) -> int:
    """The hidden states before, between and after the layers, written and read."""
    return 2 * (network.num_layers + 1) * tokens * network.hidden_size * jnp.dtype(network.dtype).itemsize


def compiled(program: Program, keep: Path | None = None) -> dict[str, Any]:
    """What the compiler says of a program, whose text goes to the file `keep`."""
    began = time.perf_counter()
    try:
        done = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        return {"fits": False, "error": str(error).splitlines()[0], "compile_seconds": time.perf_counter() - began}
    seconds = time.perf_counter() - began
    memory, text = done.memory_analysis(), done.as_text()
    read = CompiledText(text)
    if keep:
        write_text(keep, text)
    bytes_of = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    return {
        "fits": True,
        "bytes_per_chip": bytes_of | {"all": sum(bytes_of.values())},
        "collectives": [one._asdict() for one in read.collectives],
        "custom_calls": read.custom_calls,
        "compile_seconds": seconds,
        "tokens": program.tokens,
        "least_bytes": program.least_bytes,
        "moved_bytes": read.moved_bytes,
    }


def unexpected(case: Case, found: dict[str, Any], config: BertConfig) -> list[str]:
    """What a program sends that it should not, in words.

    Distilling with copies of the model sends the gradients of the lower exits, and a few numbers for the log. Engines
    send nothing.
    """
    if not found["fits"] or case.mesh != "data" or case.program == "fine_tune":
        return []
    allowed = "all-reduce" if case.program in BATCHES else None
    if others := [one for one in found["collectives"] if one["kind"] != allowed]:
        return [f"{case.name}: expected no collective but the all-reduce of the exits' gradients, found {others}"]
    sent = sum(one["bytes"] * one["times"] for one in found["collectives"])
    most = FLOAT * (sizes(config).lower_exits + config.num_layers + 16) if allowed else 0
    return [f"{case.name}: expected {most} bytes sent or less, found {sent}"] if sent > most else []


def largest_rows(case: Case, found: dict[str, Any]) -> int:
    """The most rows on each chip that fit, to an eighth, sought from where memory grows to as the rows do."""

    def fits(rows: int) -> bool:
        program = lower(case._replace(rows=rows), devices_of(case.slice), MODELS[case.model])
        return compiled(program)["fits"]

    if not found["fits"]:
        return largest_that_fits(fits, case.rows // 2)
    held = found["bytes_per_chip"]
    room = MEMORY[case.slice] - held["all"]
    return largest_that_fits(fits, case.rows + int(case.rows * room / held["temporaries"]))


def largest_that_fits(fits: Callable[[int], bool], guess: int) -> int:
    """The largest number that fits, to an eighth of `guess`; 0: there is none."""
    step = max(1, guess // 8)
    if fits(guess):
        while fits(guess + step):
            guess += step
        return guess
    guess -= step
    while guess > 0 and not fits(guess):
        guess -= step
    return max(guess, 0)


if __name__ == "__main__":
    end_with(main)

"""What distilling a billion texts on a TPU slice takes: the tables of docs/scaling.md, by arithmetic alone.

    python benchmarks/scaling.py

Nothing is measured here. FLOPs are counted by `model/flops.py`, bytes from the shapes of the parameters; the
constants below are the assumptions, each with its source. Two tables show what the TPU compiler made of the programs
(`benchmarks/tpu_check.py`), one the memory of making and reading a corpus (`benchmarks/input_memory.py`). Where
`benchmarks/results/distillation.json` holds a utilisation that was measured on an accelerator, it gets a row of its
own. `tests/test_scaling.py` fails when the page is not what this prints.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from fastbert_jax.config import BertConfig, PrepareConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.flops import distillation_flops
from fastbert_jax.model.leaves import bert_leaves
from fastbert_jax.model.sharding import MESH, MESH_AXES
from fastbert_jax.text.corpora import TEXT_DTYPE
from fastbert_jax.text.training_batches import WINDOW_BATCHES, WINDOW_TEXTS
from markdown_tables import markdown

TEXTS = 10**9
MEAN_TOKENS = 23.6
"""[CLS] and [SEP] included: 13,098 English posts, reviews and editorials by MiniLM's tokenizer, cut at 128. The public
set `builtin:movie_reviews#unlabelled` has 24.8."""
ROW_LENGTH = 128
REAL_TOKENS = 0.96
"""Share of a packed row's tokens that are no padding, on the safe side: `text/batches.py` reaches 0.995 with those."""
TEXT_SLOTS = 16
"""Texts that a packed row has room for, as `text/batches.py` chose for them; the exits compute for all of them, though
128 x 0.96 / 23.6 = 5.2 is what a row holds on average."""

CHIPS = 256
PEAK_FLOPS = 197e12
"""bfloat16 per v5e chip: https://cloud.google.com/tpu/docs/v5e"""
HBM_BYTES = 16e9
"""Memory of a v5e chip; the same page."""
HBM_BANDWIDTH = 819e9
"""Bytes per second of a v5e chip's memory; the same page."""
LINK_BANDWIDTH = 50e9
"""Bytes per second, one way, of one of the four inter-chip links: 1600 Gbit/s a chip on the same page, over 8 and 4. A
chip has four; reckoning with one is on the safe side."""
DOLLARS_PER_CHIP_HOUR = 1.20
"""An assumption: about what v5e was listed at on demand in us-central1. See https://cloud.google.com/tpu/pricing"""
CHIPS_PER_HOST = 4
"""https://cloud.google.com/tpu/docs/v5e: machines of 1, 4 or 8 chips; slices of several hosts are made of 4 on GKE."""

UTILISATIONS = (0.2, 0.3, 0.4, 0.5)
"""Shares of the peak; a variable, as nothing here was measured on a TPU."""
TYPICAL_UTILISATION = 0.3
ROWS_PER_CHIP = 64
"""Rows per chip and step, for what happens once a step."""
SMALL_SLICE = 8
"""Chips of the smaller slice in the table of times."""

FLOAT = 4
"""Bytes; parameters, gradients and Adam's moments are float32 whatever the precision of the arithmetic."""
MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2))
"""data, fsdp, tensor."""
RESULTS = Path(__file__).parent / "results"
MEASURED = RESULTS / "distillation.json"
COMPILED = RESULTS / "tpu_check.json"
CORPUS_MEMORY = RESULTS / "prepare_memory.json", RESULTS / "corpus_memory.json"

CORPUS_TEXTS = 5 * 10**9
PREPARING_MACHINES, PREPARING_CORES = 16, 32
"""Machines that prepare a corpus together, and the cores of each."""
TOKEN_BYTES = 2
"""On the disk: the vocabulary has fewer than 65,536 tokens."""
CORPUS_ROWS = CHIPS * ROWS_PER_CHIP
"""Packed rows of a batch, for what each host reads."""


def bert(layers: int, hidden_size: int, num_heads: int) -> BertConfig:
    """An English BERT (Devlin et al. 2019, or MiniLM, Wang et al. 2020) with exits for two classes."""
    return BertConfig(
        vocab_size=30522,
        hidden_size=hidden_size,
        num_layers=layers,
        num_heads=num_heads,
        feed_forward_size=4 * hidden_size,
    )


MODELS = {"MiniLM": bert(6, 384, 12), "BERT-base": bert(12, 768, 12), "BERT-large": bert(24, 1024, 16)}


class Sizes(NamedTuple):
    """Numbers of parameters."""

    backbone: int
    lower_exits: int
    last_exit: int


def main() -> None:
    """Print the tables."""
    print("\n\n".join(table() for table in TABLES.values()))


def rows() -> float:
    """Packed rows that the texts fill."""
    return TEXTS * MEAN_TOKENS / (ROW_LENGTH * REAL_TOKENS)


def row_flops(config: BertConfig) -> int:
    """FLOPs of a packed row in a step of distillation."""
    return distillation_flops(Bert(config), ROW_LENGTH, texts=TEXT_SLOTS)


def seconds(config: BertConfig, utilisation: float, *, chips: int = CHIPS) -> float:
    """One pass over the texts."""
    return rows() * row_flops(config) / (chips * PEAK_FLOPS * utilisation)


def step_seconds(config: BertConfig, utilisation: float) -> float:
    """One step of `ROWS_PER_CHIP` rows on each chip."""
    return ROWS_PER_CHIP * row_flops(config) / (PEAK_FLOPS * utilisation)


def times() -> str:
    """Time and price of one pass, by utilisation; and what was measured, if anything was."""
    cells = []
    for name, config in MODELS.items():
        texts = row_flops(config) * rows() / TEXTS
        for utilisation in UTILISATIONS:
            cells.append([name, f"{texts / 1e9:.2f}", f"{utilisation:.1f}", *pass_cells(config, utilisation)])
        measured = measured_utilisation(name)
        if measured is not None:
            cells.append([name, f"{texts / 1e9:.2f}", f"{measured[0]:.2f}, on {measured[1]}"])
            cells[-1] += pass_cells(config, measured[0])
    return markdown(
        ("model", "GFLOPs a text", "utilisation", f"{CHIPS} chips", f"{SMALL_SLICE} chips", "price", "texts/s a host"),
        cells,
    )


def pass_cells(config: BertConfig, utilisation: float) -> list[str]:
    """Time on the slice and on a small one, the price (the same for both), texts per second for each host to feed."""
    whole = seconds(config, utilisation)
    price = whole / 3600 * CHIPS * DOLLARS_PER_CHIP_HOUR
    small = seconds(config, utilisation, chips=SMALL_SLICE)
    return [words(whole), words(small), f"${price:.2f}", f"{TEXTS / whole / (CHIPS / CHIPS_PER_HOST):,.0f}"]


def once_a_step() -> str:
    """The all-reduce of the lower exits' gradients, and attention scores through memory, against the step."""
    cells = []
    for name, config in MODELS.items():
        gradient = sizes(config).lower_exits * FLOAT
        reduce = 2 * (CHIPS - 1) / CHIPS * gradient / LINK_BANDWIDTH
        step = step_seconds(config, TYPICAL_UTILISATION)
        scores = ROWS_PER_CHIP * config.num_layers * config.num_heads * ROW_LENGTH**2 * FLOAT
        traffic = 2 * scores / HBM_BANDWIDTH
        arithmetic = step * TYPICAL_UTILISATION
        bytes_and_times = f"{gradient / 1e6:.1f} MB", f"{1e3 * reduce:.2f} ms", f"{1e3 * step:.1f} ms"
        cells.append([name, *bytes_and_times, f"{reduce / step:.1%}", f"{traffic / arithmetic:.2f}"])
    header = ("model", "gradient of the lower exits", "all-reduce", f"step at {TYPICAL_UTILISATION}", "share")
    return markdown((*header, "scores through memory / arithmetic"), cells)


def checkpoints() -> str:
    """Bytes of a checkpoint in either phase, and of the saved model."""
    cells = []
    for name, config in MODELS.items():
        backbone, lower_exits, last_exit = sizes(config)
        whole = backbone + lower_exits + last_exit
        fine_tune, distil = whole + 2 * (backbone + last_exit), whole + 2 * lower_exits
        cells.append([name, f"{whole / 1e6:.1f} M", *(size(FLOAT * count) for count in (whole, fine_tune, distil))])
    return markdown(("model", "parameters", "saved model", "checkpoint, fine-tuning", "checkpoint, distilling"), cells)


def memory() -> str:
    """Bytes per device in fine-tuning that do not depend on the batch."""
    cells = []
    for name, config in MODELS.items():
        for mesh in MESHES:
            trained, frozen = device_parameters(config, mesh)
            stays, in_a_step = (FLOAT * (copies * trained + frozen) for copies in (3, 4))
            row = [name, " x ".join(map(str, mesh)), size(stays), size(in_a_step), f"{in_a_step / HBM_BYTES:.1%}"]
            cells.append(row)
    return markdown(
        ("model", "data x fsdp x tensor", "parameters and Adam", "with gradients", "of a v5e chip's 16 GB"), cells
    )


def compiled_training() -> str:
    """The compiled steps of both phases: memory, the largest batch, what chips send each other, bytes moved."""
    cells = []
    for case in compiled_cases(training=True):
        row = [*map(case.get, ("slice", "model", "mesh", "program", "rows")), held(case), case.get("largest_rows", "")]
        cells.append([*row, sent(case), moved(case), f"{case['compile_seconds']:.0f} s"])
    header = ("slice", "model", "mesh", "program", "rows a chip", "memory a chip", "most rows", "sent a step")
    return markdown((*header, "moved a token", "compiled in"), cells)


def compiled_inference() -> str:
    """The compiled programs of the engines; no chip sends anything."""
    cells = []
    for case in compiled_cases(training=False):
        row = map(case.get, ("slice", "model", "program", "rows"))
        cells.append([*row, held(case), moved(case), f"{case['compile_seconds']:.0f} s"])
    header = ("slice", "model", "program", "rows a chip", "memory a chip", "moved a token", "compiled in")
    return markdown(header, cells)


def compiled_cases(*, training: bool) -> list[dict[str, Any]]:
    """What `benchmarks/tpu_check.py` found for each step of training, or for each program of the engines."""
    cases = json.loads(COMPILED.read_text(encoding="utf-8"))["cases"].values()
    return [case for case in cases if case["program"].startswith(("fine_tune", "distil")) is training]


def held(case: dict[str, Any]) -> str:
    """Memory that a compiled program takes on each chip."""
    return size(case["bytes_per_chip"]["all"]) if case["fits"] else "too much"


def sent(case: dict[str, Any]) -> str:
    """The results of a compiled program's collectives on each chip, by kind, the largest first."""
    kinds: dict[str, int] = {}
    for one in case.get("collectives", ()):
        kinds[one["kind"]] = kinds.get(one["kind"], 0) + one["bytes"] * one["times"]
    return ", ".join(f"{kind} {size(count)}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))


def moved(case: dict[str, Any]) -> str:
    """Bytes through a chip's memory for each token, and how many times the least that is; empty where unknown."""
    least = case.get("least_bytes")
    return f"{case['moved_bytes'] / case['tokens'] / 1e3:.0f} kB, {case['moved_bytes'] / least:.1f} x" if least else ""


def corpus_memory() -> str:
    """What `benchmarks/input_memory.py` found: memory of a process, by the size of the corpus."""
    cells = []
    for path in CORPUS_MEMORY:
        result = json.loads(path.read_text(encoding="utf-8"))
        for way, found in result["ways"].items():
            for texts, look in zip(result["settings"]["texts"], found["looks"], strict=True):
                held = (f"{look[key] / 1e6:.0f} MB" for key in ("peak_bytes", "peak_anonymous_bytes"))
                first = look["seconds_to_first_batch"]
                cells.append([way, f"{texts:,}", *held, f"{first:.1f} s" if first else ""])
    return markdown(("process", "texts of the corpus", "peak", "peak without files", "first batch after"), cells)


def corpus() -> str:
    """A corpus of `CORPUS_TEXTS`: how long it takes to prepare, its bytes, and what the hosts of a slice read."""
    hosts = CHIPS // CHIPS_PER_HOST
    tokens, places = CORPUS_TEXTS * MEAN_TOKENS * TOKEN_BYTES, CORPUS_TEXTS * TEXT_DTYPE.itemsize
    look = json.loads(CORPUS_MEMORY[0].read_text(encoding="utf-8"))["ways"]["prepare"]["looks"][-1]
    cores = PREPARING_MACHINES * PREPARING_CORES
    preparing = CORPUS_TEXTS * MEAN_TOKENS / (look["tokens"] / look["cpu_seconds"]) / cores
    # A host has the rows of a part of each window, and reads all of the shards that these lie in.
    shards = window_texts() / PrepareConfig.shard_texts
    own = tokens * min(1 / hosts + 1 / shards, 1)
    return markdown(
        ("of five billion texts", "computed"),
        [
            [f"time to prepare, {PREPARING_MACHINES} machines of {PREPARING_CORES} cores", words(preparing)],
            ["disk", size(tokens + places)],
            [f"read by each of {hosts} hosts in a pass", size(own + places)],
            ["read by all hosts", size(hosts * (own + places))],
            ["read by all hosts if each read all", size(hosts * (tokens + places))],
        ],
    )


def window_texts() -> float:
    """Texts that are shuffled with each other in batches of `CORPUS_ROWS` packed rows."""
    return max(WINDOW_TEXTS, WINDOW_BATCHES * CORPUS_ROWS * ROW_LENGTH * REAL_TOKENS / MEAN_TOKENS)


def sizes(config: BertConfig) -> Sizes:
    """The number of parameters of each part."""
    counts = dict.fromkeys(Sizes._fields, 0)
    for leaf in bert_leaves(config, exits=True):
        counts[leaf.path.partition("/")[0]] += math.prod(leaf.tree_shape)
    return Sizes(**counts)


def device_parameters(config: BertConfig, mesh: tuple[int, int, int]) -> tuple[int, int]:
    """Parameters that train and that are frozen in fine-tuning, as each device holds them."""
    places = dict(zip(MESH, mesh, strict=True))
    trained = frozen = 0
    for leaf in bert_leaves(config, exits=True):
        shares = math.prod(places[place] for axis in leaf.tree_axes for place in MESH_AXES[axis])
        held = math.prod(leaf.tree_shape) // shares
        if leaf.path.startswith("lower_exits/"):
            frozen += held
        else:
            trained += held
    return trained, frozen


def measured_utilisation(model: str, path: Path = MEASURED) -> tuple[float, str] | None:
    """The utilisation that `benchmarks/distillation.py` found for a model, and its device; none where it has none.

    Read from `cases.MODEL.utilisation`, which is null on devices whose peak is not known, such as CPUs.
    """
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    value = result.get("cases", {}).get(model, {}).get("utilisation")
    return None if value is None else (float(value["median"]), result["device"])


def words(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes for people."""
    if count < 1e7:
        return f"{count / 1e6:.1f} MB"
    if count < 1e9:
        return f"{count / 1e6:,.0f} MB"
    if count < 1e12:
        return f"{count / 1e9:.{2 if count < 1e11 else 0}f} GB"
    return f"{count / 1e12:.1f} TB"


TABLES = {
    "scaling-times": times,
    "scaling-step": once_a_step,
    "scaling-checkpoints": checkpoints,
    "scaling-memory": memory,
    "compiled-training": compiled_training,
    "compiled-inference": compiled_inference,
    "corpus-memory": corpus_memory,
    "scaling-corpus": corpus,
}
"""By their names on the page, in its order."""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("expected no arguments: the assumptions are constants of this file")
    main()

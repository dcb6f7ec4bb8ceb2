"""What a billion texts cost on TPUs and GPUs, to distil from or to answer: the tables of docs/scaling.md, computed.

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
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fastbert_jax.config import BertConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.flops import distillation_flops, forward_flops
from fastbert_jax.model.leaves import bert_leaves
from fastbert_jax.model.sharding import MESH, MESH_AXES
from markdown_tables import markdown

RESULTS = Path(__file__).parent / "results"

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


class Chip(NamedTuple):
    """What the data sheet of a TPU chip or a GPU says."""

    peak_flops: float
    """FLOP/s of bfloat16 matrix products, without sparsity."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes per second to and from its memory."""


CHIPS = {
    "TPU v5e": Chip(197e12, 16e9, 819e9),  # https://docs.cloud.google.com/tpu/docs/v5e
    "TPU v6e": Chip(918e12, 32e9, 1638e9),  # https://docs.cloud.google.com/tpu/docs/v6e
    "H100 SXM": Chip(989e12, 80e9, 3.35e12),  # https://www.nvidia.com/en-us/data-center/h100
    "H200": Chip(989e12, 141e9, 4.8e12),  # https://www.nvidia.com/en-us/data-center/h200
    "L4": Chip(121e12, 24e9, 300e9),  # https://www.nvidia.com/en-us/data-center/l4
}
"""By name, each with its maker's page. NVIDIA gives twice these FLOP/s, with sparsity. Its pages were read as others
quote them, such as https://glennklockwood.com/garden/processors/h100."""
DOLLARS = {
    "TPU v5e": {"Google": 1.2},
    "TPU v6e": {"Google": 2.7},
    "H100 SXM": {"Google": 9.79655 + 9.46006 / 8, "Nebius": 2.95},  # a GPU and its share of an a3-highgpu-8g
    "H200": {"Google": (74.49392 + 12.266) / 8, "Nebius": 3.5},  # the 8 GPUs and the rest of an a3-ultragpu-8g
    "L4": {"Google": 0.55821 + 0.14631},  # a GPU and the rest of a g2-standard-4
}
"""Per chip-hour on demand, with the machine around it: of Google Cloud in us-east4, where v5e and v6e cost what they do
in us-central1, and of Nebius in eu-north1. From https://github.com/skypilot-org/skypilot-catalog, `catalogs/v8`:
`gcp/vms.csv` at commit 006059e, `nebius/vms.csv` at commit 0082b04."""

SLICE = 256
"""Chips of the slice in the table of times."""
V5E = CHIPS["TPU v5e"]
LINK_BANDWIDTH = 50e9
"""Bytes per second, one way, of one of the four inter-chip links of v5e: 1600 Gbit/s a chip on its page, over 8 and 4.
A chip has four; reckoning with one is on the safe side."""
CHIPS_PER_HOST = 4
"""https://cloud.google.com/tpu/docs/v5e: machines of 1, 4 or 8 chips; slices of several hosts are made of 4 on GKE."""

UTILISATIONS = (0.2, 0.3, 0.4, 0.5)
"""Shares of the peak; a variable, as nothing here was measured on a TPU or a GPU."""
TYPICAL_UTILISATION = 0.3
ANSWERED_LENGTH = 25
"""Tokens that a text of `MEAN_TOKENS` takes in a batch that is answered: not packed, with the 5% of padding that
`infer.py compare` prints for Reuters R8."""
EARLY_EXIT = RESULTS / "early_exit_movie_reviews.json"
"""The comparison whose mean depth at `EARLY_SPEED`, as a share of the layers, stands for early exit."""
EARLY_SPEED = 0.25
EARLY_EFFICIENCY = 0.9
"""Share of the speedup of the skipped layers that is reached: less than on a CPU, docs/explanation/engines.md."""
ROWS_PER_CHIP = 64
"""Rows per chip and step, for what happens once a step."""
SMALL_SLICE = 8
"""Chips of the smaller slice in the table of times."""

FLOAT = 4
"""Bytes; parameters, gradients and Adam's moments are float32 whatever the precision of the arithmetic."""
MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2))
"""data, fsdp, tensor."""
MEASURED = RESULTS / "distillation.json"
COMPILED = RESULTS / "tpu_check.json"


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


def seconds(config: BertConfig, utilisation: float, *, chips: int = SLICE) -> float:
    """One pass over the texts on v5e."""
    return rows() * row_flops(config) / (chips * V5E.peak_flops * utilisation)


def step_seconds(config: BertConfig, utilisation: float) -> float:
    """One step of `ROWS_PER_CHIP` rows on each chip."""
    return ROWS_PER_CHIP * row_flops(config) / (V5E.peak_flops * utilisation)


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
        ("model", "GFLOPs a text", "utilisation", f"{SLICE} chips", f"{SMALL_SLICE} chips", "price", "texts/s a host"),
        cells,
    )


def pass_cells(config: BertConfig, utilisation: float) -> list[str]:
    """Time on the slice and on a small one, the price (the same for both), texts per second for each host to feed."""
    whole = seconds(config, utilisation)
    price = whole / 3600 * SLICE * DOLLARS["TPU v5e"]["Google"]
    small = seconds(config, utilisation, chips=SMALL_SLICE)
    return [words(whole), words(small), f"${price:.2f}", f"{TEXTS / whole / (SLICE / CHIPS_PER_HOST):,.0f}"]


def dollars_by_chip() -> str:
    """The data sheets, and the dollars for the texts on every chip at `TYPICAL_UTILISATION`."""
    chips = CHIPS.values()
    cells = [
        ["bfloat16, TFLOP/s", *(f"{chip.peak_flops / 1e12:.0f}" for chip in chips)],
        ["memory, GB", *(f"{chip.memory / 1e9:.0f}" for chip in chips)],
        ["memory, GB/s", *(f"{chip.bandwidth / 1e9:,.0f}" for chip in chips)],
        ["list price per hour", *(money(DOLLARS[name].values()) for name in CHIPS)],
    ]
    for model, config in MODELS.items():
        depth = early_share() * config.num_layers
        uses = {
            "distil": row_flops(config) * rows() / TEXTS,
            "answer, full depth": answer_flops(config, config.num_layers, 1),
            "answer, early exit": answer_flops(config, depth, depth) / EARLY_EFFICIENCY,
        }
        cells += [[f"{model}: {use}", *(money(dollars(flops, name)) for name in CHIPS)] for use, flops in uses.items()]
    return markdown(("", *CHIPS), cells)


def dollars(text_flops: float, chip: str) -> list[float]:
    """The price of all texts on a chip in each cloud, by the FLOPs of one text."""
    hours = TEXTS * text_flops / (CHIPS[chip].peak_flops * TYPICAL_UTILISATION) / 3600
    return [hours * price for price in DOLLARS[chip].values()]


def money(prices: Iterable[float]) -> str:
    """The lowest and the highest price, or the one there is."""
    return " to ".join(f"${price:.2f}" for price in sorted(prices))


def answer_flops(config: BertConfig, layers: float, exits: float) -> float:
    """FLOPs to answer a text, by the mean numbers of layers and exits that run."""
    network = Bert(config)
    return layers * network.layer_flops(ANSWERED_LENGTH) + exits * sum(network.exit_flops(ANSWERED_LENGTH))


def traffic_share() -> float:
    """The most of a chip's time that its memory needs for what BERT-base moves when compiled for v5e."""
    config = MODELS["BERT-base"]
    row = {"distil, packed": row_flops(config), "full depth": forward_flops(Bert(config), ROW_LENGTH)}
    cases = json.loads(COMPILED.read_text(encoding="utf-8"))["cases"]
    shares = []
    for program, flops in row.items():
        case = cases[f"v5e-{SLICE}, BERT-base, data, {program}"]
        for chip in CHIPS.values():
            traffic = case["moved_bytes"] / case["tokens"] / chip.bandwidth
            shares.append(traffic / (flops / ROW_LENGTH / (chip.peak_flops * TYPICAL_UTILISATION)))
    return max(shares)


def early_share() -> float:
    """The mean depth that movie reviews needed, as a share of the layers."""
    (size,) = json.loads(EARLY_EXIT.read_text(encoding="utf-8"))["batch_sizes"]
    row = next(row for row in size["rows"] if (row["mode"], row["speed"]) == ("cascade", EARLY_SPEED))
    return float(row["mean_depth"] / row["layers"])


def once_a_step() -> str:
    """The all-reduce of the lower exits' gradients, and attention scores through memory, against the step."""
    cells = []
    for name, config in MODELS.items():
        gradient = sizes(config).lower_exits * FLOAT
        reduce = 2 * (SLICE - 1) / SLICE * gradient / LINK_BANDWIDTH
        step = step_seconds(config, TYPICAL_UTILISATION)
        scores = ROWS_PER_CHIP * config.num_layers * config.num_heads * ROW_LENGTH**2 * FLOAT // 2  # bfloat16
        traffic = 2 * scores / V5E.bandwidth
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
            row = [name, " x ".join(map(str, mesh)), size(stays), size(in_a_step), f"{in_a_step / V5E.memory:.1%}"]
            cells.append(row)
    return markdown(
        ("model", "data x fsdp x tensor", "parameters and Adam", "with gradients", "of a v5e chip's 16 GB"), cells
    )


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
    "scaling-dollars": dollars_by_chip,
    "scaling-step": once_a_step,
    "scaling-checkpoints": checkpoints,
    "scaling-memory": memory,
}
"""By their names on the page, in its order."""
NUMBERS = {
    "tokens-per-text": lambda: f"{MEAN_TOKENS}",
    "packed-tokens": lambda: f"{REAL_TOKENS:.0%}",
    "packing-gain": lambda: f"{ROW_LENGTH * REAL_TOKENS / MEAN_TOKENS:.1f}",
    "peak": lambda: f"{V5E.peak_flops / 1e12:.0f}",
    "dollars": lambda: f"${DOLLARS['TPU v5e']['Google']:.2f}",
    "typical-utilisation": lambda: f"{TYPICAL_UTILISATION}",
    "early-share": lambda: f"{early_share():.2f}",
    "early-efficiency": lambda: f"{EARLY_EFFICIENCY}",
    "traffic-share": lambda: f"{traffic_share():.0%}",
}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("expected no arguments: the assumptions are constants of this file")
    main()

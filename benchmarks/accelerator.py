"""What one GPU or TPU makes of the project, in under nine minutes.

    python benchmarks/accelerator.py --output benchmarks/results/accelerator.json

Each part runs in a process of its own, within its share of the time, and the result is written as each part ends: a
part that fails or takes too long leaves its error and the others' results. Shares of the peak are of a product of two
large bfloat16 matrices that takes turns with what is measured. Random weights of BERT-base's size and random tokens;
`--tiny` is a small model, which shows on a CPU that the parts run.

Where PyTorch sees the same GPU, its BERT with sdpa attention takes turns with ours: see benchmarks/peers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distillation
import engine_efficiency
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from one_text import leaving_after, repeated_times

from fastbert_jax.atomic_files import write_json
from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, FineTuneConfig, Mode, Precision
from fastbert_jax.inference.compare import interleaved_times
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import plan_batches
from fastbert_jax.model.attention import attention, by_lengths
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.flops import distillation_flops, forward_flops, training_flops
from fastbert_jax.recipes.fastbert import fine_tuning
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch, collate
from fastbert_jax.training.terms import COMPUTED
from measured import begun, publish, random_config, random_model, random_tokens

LOW = Precision.BFLOAT16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure the project on one accelerator."""

    seconds: float = 530.0
    """Of all parts together."""
    parts: tuple[str, ...] = ()
    """Parts to measure, in their order; none: all."""
    part: str = ""
    """Measure this part alone, in this process."""
    tiny: bool = False
    """A small model and few texts."""
    repeats: int = 5
    """Interleaved repeats; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""

    @property
    def config(self) -> BertConfig:
        """The model."""
        return random_config(layers=2, hidden_size=64) if self.tiny else random_config(layers=12, hidden_size=768)

    def size(self, full: int, tiny: int) -> int:
        """One of two numbers."""
        return tiny if self.tiny else full


def main() -> None:
    """Measure one part here, or each in a process of its own."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    if settings.part:
        publish(PARTS[settings.part][0](settings), settings)
        return
    end, found = time.monotonic() + settings.seconds, {}
    names = settings.parts or tuple(PARTS)
    for number, name in enumerate(names):
        later = sum(PARTS[other][1] for other in names[number:])
        found[name] = run_part(name, (end - time.monotonic()) * PARTS[name][1] / later)
        if settings.output:
            write_json(Path(settings.output), {"command": " ".join(["python", *sys.argv]), "parts": found})
    print(json.dumps(found, indent=2))


def run_part(name: str, seconds: float) -> dict[str, Any]:
    """The result of a part, or its error."""
    print(f"{name}: {seconds:.0f} s at most", file=sys.stderr, flush=True)
    # PyTorch needs memory beside JAX.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "part.json")
        command = [sys.executable, *sys.argv, "--part", name, "--output", str(output)]
        try:
            subprocess.run(command, env=environment, timeout=seconds, check=True, capture_output=True, text=True)
            return json.loads(output.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {seconds:.0f} seconds"}
        except subprocess.CalledProcessError as error:
            return {"error": error.stderr[-2000:]}


class Peak:
    """The product of two large bfloat16 matrices."""

    def __init__(self, settings: Settings) -> None:
        self._size = settings.size(8192, 256)
        matrix = jax.random.normal(jax.random.key(0), (self._size, self._size), jnp.bfloat16)
        product = jax.jit(jnp.matmul)
        self.run = lambda: jax.block_until_ready(product(matrix, matrix))
        self.run()

    def flops_per_second(self, times: list[float]) -> float:
        """Of the median run."""
        return 2 * self._size**3 / float(np.median(times))


def shares(runs: dict[str, tuple[Callable[[], object], int]], settings: Settings) -> dict[str, Any]:
    """The FLOP/s of each run, by its name and its FLOPs, over the peak measured between them."""
    peak = Peak(settings)
    for run, _ in runs.values():
        run()
    peaks, *times = interleaved_times([peak.run, *(run for run, _ in runs.values())], settings.repeats)
    reached = {
        name: {
            "share_of_peak": flops / float(np.median(own)) / peak.flops_per_second(peaks),
            "seconds": dataclasses.asdict(Spread.of(own)),
        }
        for (name, (_, flops)), own in zip(runs.items(), times, strict=True)
    }
    return {"peak_flops_per_second": peak.flops_per_second(peaks), "runs": reached}


def batch_of(settings: Settings, rows: int, length: int, *, full: bool = True) -> Batch:
    """Random texts on the device, all `length` tokens long or of half the length and more."""
    encoded = random_tokens(settings.config, texts=rows, length=length)
    batch = collate(encoded, np.arange(rows), batch_size=rows, length=length)
    if not full:
        kept = np.arange(length) < np.linspace(length // 2, length, rows, dtype=int)[:, None]
        batch = batch._replace(text_BxS=batch.text_BxS * kept)
    return jax.device_put(batch)


def full_depth(settings: Settings) -> dict[str, Any]:
    """Plain BERT on 256 texts of 128 tokens, and PyTorch's where it sees the GPU."""
    config, rows, length = settings.config, settings.size(256, 8), settings.size(128, 16)
    batch, flops = batch_of(settings, rows, length), rows * forward_flops(Bert(config), length)
    runtime = random_model(config, lengths=(length,), precision=LOW).runtime
    runs = {"ours": (lambda: jax.block_until_ready(runtime.full_depth(batch)), flops)}
    with contextlib.suppress(ImportError):
        torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
        if torch.cuda.is_available():
            runs["PyTorch, sdpa"] = (torch_run(torch, transformers, config, rows, length), flops)
    return shares(runs, settings)


def torch_run(torch: Any, transformers: Any, config: BertConfig, rows: int, length: int) -> Callable[[], None]:
    """One forward pass of transformers' BERT in bfloat16 on the GPU."""
    sizes = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_size,
    }
    settings = transformers.BertConfig(**sizes, attn_implementation="sdpa")
    model = transformers.BertForSequenceClassification(settings).eval().to("cuda", torch.bfloat16)
    ids = torch.randint(0, config.vocab_size, (rows, length), device="cuda")

    def run() -> None:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        torch.cuda.synchronize()

    return run


def training(settings: Settings) -> dict[str, Any]:
    """A step of fine-tuning and one of self-distillation on 256 texts of 128 tokens."""
    config, rows, length = settings.config, settings.size(256, 8), settings.size(128, 16)
    network, batch = Bert(config, dropout=0.1, precision=LOW), batch_of(settings, rows, length)
    steps, state, frozen = begun(
        fine_tuning(network, FineTuneConfig(learning_rate=2e-5)), {"model": network.init(jax.random.key(0))}, config
    )
    held = [state]

    def fine_tune() -> None:
        held[0], metrics = steps[COMPUTED](held[0], frozen, {"batch": batch})
        jax.block_until_ready((held[0], metrics))

    distil = distillation.Distillation(config, LOW)
    runs = {
        "fine-tuning": (fine_tune, rows * training_flops(network, length)),
        "distillation": (lambda: distil.step(batch), rows * distillation_flops(network, length)),
    }
    return shares(runs, settings)


def engines(settings: Settings) -> dict[str, Any]:
    """The efficiency of the engines on 8,192 texts, half of which leave at each layer."""
    config, texts = settings.config, settings.size(8192, 64)
    asked = engine_efficiency.Settings(
        model=engine_efficiency.RANDOM,
        texts=texts,
        length=settings.size(128, 16),
        random_layers=config.num_layers,
        random_hidden_size=config.hidden_size,
        precision=LOW,
        modes=(Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE),
        repeats=min(settings.repeats, 3),
    )
    return engine_efficiency.measure(engine_efficiency.random_case(asked), asked)


def batch_tokens(settings: Settings) -> dict[str, Any]:
    """Tokens a second of full depth, by the tokens of a batch."""
    length = settings.size(128, 16)
    runtime = random_model(settings.config, lengths=(length,), precision=LOW).runtime
    runs = {}
    for tokens in [2**power for power in (range(11, 18) if not settings.tiny else range(5, 8))]:
        batch = batch_of(settings, tokens // length, length)
        runs[tokens] = functools.partial(lambda batch: jax.block_until_ready(runtime.full_depth(batch)), batch)
        runs[tokens]()
    times = interleaved_times([*runs.values()], settings.repeats)
    return {"tokens_per_second": {size: size / float(np.median(own)) for size, own in zip(runs, times, strict=True)}}


def one_text(settings: Settings) -> dict[str, Any]:
    """Milliseconds of one text that leaves at layer 2, and of one at full depth."""
    length, layers = settings.size(64, 16), settings.config.num_layers
    predictor = random_model(settings.config, lengths=(length,), precision=LOW).predictor
    plan = plan_batches(random_tokens(settings.config, texts=1, length=length), lengths=(length,))
    depths = {"exit at layer 2": leaving_after(2, layers), "full depth": 0.0}
    runs = {
        f"{mode.value}, {name}": functools.partial(predictor.answers, plan, speed=speed, mode=mode)
        for mode in (Mode.AUTO, Mode.BUCKETED, Mode.GRAPH_CASCADE)
        for name, speed in depths.items()
    }
    for run in runs.values():
        run()
    times = repeated_times([*runs.values()], seconds=settings.size(20, 1))
    return {
        name: {f"p{q}_ms": 1e3 * float(np.percentile(own, q)) for q in (50, 99)}
        for name, own in zip(runs, times, strict=True)
    }


def precisions(settings: Settings) -> dict[str, Any]:
    """The largest difference of any hidden state from float32 on the CPU, of a deviation of about 1."""
    config, rows, length = settings.config, settings.size(16, 4), settings.size(128, 16)
    batch = jax.device_get(batch_of(settings, rows, length, full=False))
    params = jax.device_get(Bert(config).init(jax.random.key(0)))

    def hidden(precision: Precision) -> np.ndarray:
        return np.asarray(Runtime(params, Bert(config, precision=precision)).hidden_states(batch))

    with jax.default_device(jax.devices("cpu")[0]):
        exact = hidden(Precision.FLOAT32)
    is_text = batch.text_BxS > 0
    return {one.value: float(abs(hidden(one) - exact)[:, is_text].max()) for one in Precision}


def attentions(settings: Settings) -> dict[str, Any]:
    """Attention of 32,768 tokens in steps and, on an NVIDIA GPU, in cuDNN's kernel; errors are over float64."""
    ways: dict[str, Any] = {"in steps": jax.jit(lambda *arrays: attention(*arrays, packed=True)[0])}
    if jax.default_backend() == "gpu":
        ways["cuDNN"] = jax.jit(functools.partial(by_lengths, implementation="cudnn"))
    found: dict[str, Any] = {}
    for length in (settings.size(128, 16), settings.size(512, 32)):
        rows, heads, width = settings.size(32768, 64) // length, settings.config.num_heads, 64
        arrays = [jax.random.normal(jax.random.key(i), (rows, heads, length, width), jnp.bfloat16) for i in range(3)]
        text_BxS = batch_of(settings, rows, length, full=False).text_BxS
        runs = {
            name: functools.partial(lambda way, *given: jax.block_until_ready(way(*given)), way, *arrays, text_BxS)
            for name, way in ways.items()
        }
        is_text = np.asarray(text_BxS[:8]) > 0
        exact = float64_attention(*(np.asarray(array[:8], float) for array in arrays), is_text)
        errors = {name: np.abs(np.asarray(run()[:8], float) - exact) for name, run in runs.items()}
        times = interleaved_times([*runs.values()], settings.repeats)
        found[f"{length} tokens"] = {
            name: {
                "seconds": dataclasses.asdict(Spread.of(own)),
                "largest_error": float(errors[name].swapaxes(1, 2)[is_text].max()),
            }
            for name, own in zip(runs, times, strict=True)
        }
    return found


def float64_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, is_text_BxS: np.ndarray) -> np.ndarray:
    """The formula for one text a row."""
    scores = np.einsum("baqd,bakd->baqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * is_text_BxS[:, None, None]
    return np.einsum("baqk,bakd->baqd", weights / weights.sum(-1, keepdims=True), value)


PARTS: dict[str, tuple[Callable[[Settings], dict[str, Any]], int]] = {
    "full depth": (full_depth, 60),
    "training": (training, 90),
    "engines": (engines, 150),
    "one text": (one_text, 60),
    "precisions": (precisions, 50),
    "attention": (attentions, 50),
    "tokens of a batch": (batch_tokens, 70),
}
"""Each part, and its share of the time."""


if __name__ == "__main__":
    end_with(main)

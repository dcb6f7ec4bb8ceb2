"""Our plain BERT against that of transformers in PyTorch: the same weights, batches and threads.

    pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/full_depth.py --output benchmarks/results/peer_full_depth.json

`torch_over_ours` is PyTorch's time over ours: above 1, ours is faster. Ours is what the engines run at speed 0; theirs
is BertForSequenceClassification with sdpa attention, eager, in inference mode, on tensors made beforehand. Both run in
one process and take turns batch by batch, after the hidden states of all tokens were found equal. PyTorch's OpenMP
threads sleep when they have nothing to do (OMP_WAIT_POLICY, set below before it is imported), or they would take the
cores from XLA's.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
import torch
import transformers
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DataConfig
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import BatchedTexts, plan_batches
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.network import Params
from fastbert_jax.model.weights import load_params, save_model
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from measured import publish, random_config, random_tokens, ratio

LARGEST_DIFFERENCE = 1e-4
"""Of two hidden states that count as equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure plain BERT against PyTorch's."""

    data: str = "builtin:movie_reviews#test"
    """SPEC of the texts."""
    texts: int = 512
    """Texts to time, spread evenly over the data; 0: all."""
    batch_size: int = 32
    """Texts per batch in the first of the two layouts."""
    batch_tokens: int = 2048
    """Tokens per batch in the other, padding included."""
    random_layers: int = 12
    """Layers of the random model."""
    random_hidden_size: int = 768
    """Width of the random model."""
    random_texts: int = 24
    """Texts for the random model, in batches of 8."""
    random_length: int = 128
    """Tokens of each of them."""
    repeats: int = 7
    """Interleaved repeats; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    threads = len(os.sched_getaffinity(0))  # XLA's pool has as many
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    cases = minilm(settings) | random(settings)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    publish({"cases": cases, "wanted_at_least": 1.0, "threads": threads, **versions}, settings)


def minilm(settings: Settings) -> dict[str, dict]:
    """The pretrained backbone on real texts, in both layouts."""
    directory = pretrained_directory("builtin:minilm")
    config = read_bert_config(directory, num_classes=2, exit_size=128, exit_heads=2)
    params = Bert(config).init(jax.random.key(0)) | load_params(directory, config, exits=False)
    data = DataConfig()
    examples = read_examples(settings.data, data, need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    encoded = load_tokenizer(directory).encode(texts, max_length=data.max_length)
    lengths = data.lengths
    by_texts = plan_batches(encoded, lengths=lengths, batch_size=settings.batch_size)
    by_tokens = plan_batches(encoded, lengths=lengths, batch_tokens=settings.batch_tokens)
    compare = functools.partial(measure, Runtime(params, Bert(config)), load_torch(directory), repeats=settings.repeats)
    return {
        f"MiniLM, {settings.batch_size} texts a batch": compare(by_texts),
        f"MiniLM, {settings.batch_tokens} tokens a batch": compare(by_tokens),
    }


def random(settings: Settings) -> dict[str, dict]:
    """Random weights and random tokens."""
    config = random_config(layers=settings.random_layers, hidden_size=settings.random_hidden_size)
    params = Bert(config).init(jax.random.key(0))
    encoded = random_tokens(config, texts=settings.random_texts, length=settings.random_length)
    plan = plan_batches(encoded, lengths=(settings.random_length,), batch_size=8)
    name = f"random weights, {config.num_layers} x {config.hidden_size}"
    return {name: measure(Runtime(params, Bert(config)), torch_copy(params, config), plan, repeats=settings.repeats)}


def torch_copy(params: Params, config: BertConfig) -> Any:
    """The same model in PyTorch."""
    with tempfile.TemporaryDirectory() as directory:
        save_model(directory, jax.device_get(params), config, extra={})
        return load_torch(directory)


def load_torch(directory: str | Path) -> Any:
    """A Hugging Face directory as PyTorch's BERT with a classifier of two classes on it."""
    model = transformers.BertForSequenceClassification.from_pretrained(
        directory, num_labels=2, attn_implementation="sdpa", dtype=torch.float32
    )
    return model.eval()


@torch.inference_mode()
def measure(runtime: Runtime, model: Any, plan: BatchedTexts, *, repeats: int) -> dict:
    """The ratio on the batches of a plan, and on those of each shape."""
    runs: list[Callable[[], object]] = []
    shapes: list[tuple[int, int]] = []
    difference = 0.0
    for batch in plan.batches:
        inputs = torch_inputs(batch)
        difference = max(difference, hidden_states_difference(runtime, model, batch, inputs))
        runs += [functools.partial(our_answer, runtime, batch), functools.partial(model, **inputs)]
        shapes.append(batch.text_BxS.shape)
    if difference > LARGEST_DIFFERENCE:
        raise RuntimeError(f"expected equal hidden states, found a difference of {difference}")
    for run in runs:
        run()
    times = np.array(interleaved_times(runs, repeats)).reshape(len(shapes), 2, repeats)
    numbers_of_shape = defaultdict(list)
    for number, shape in enumerate(shapes):
        numbers_of_shape[shape].append(number)
    return {
        "torch_over_ours": torch_over_ours(times),
        "by_shape": {
            f"{rows} x {length}": {"batches": len(numbers), "torch_over_ours": torch_over_ours(times[numbers])}
            for (rows, length), numbers in numbers_of_shape.items()
        },
        "noise": Spread.of(times[:, 0].sum(0).tolist()).relative,
        "largest_difference_of_hidden_states": difference,
        "padding_share": plan.padding_share,
    }


def torch_over_ours(times: Sequence | np.ndarray) -> dict[str, float]:
    """Of times `[batches, (ours, theirs), repeats]`, all batches of a repeat together."""
    ours, theirs = np.asarray(times).sum(0)
    return ratio(theirs.tolist(), ours.tolist())


def our_answer(runtime: Runtime, batch: Batch) -> None:
    """Plain BERT on a batch as the engines get it, in the host's memory."""
    jax.block_until_ready(runtime.full_depth(batch))


def torch_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """The same batch for PyTorch."""
    return {
        "input_ids": torch.from_numpy(batch.token_ids_BxS).long(),
        "token_type_ids": torch.from_numpy(batch.token_type_BxS).long(),
        "attention_mask": torch.from_numpy(batch.text_BxS).long(),
    }


def hidden_states_difference(runtime: Runtime, model: Any, batch: Batch, inputs: dict[str, torch.Tensor]) -> float:
    """The largest of all tokens at all layers."""
    ours_LxBxSxH = np.asarray(runtime.hidden_states(batch))
    theirs = model.bert(**inputs, output_hidden_states=True).hidden_states
    theirs_LxBxSxH = np.stack([hidden_BxSxH.numpy() for hidden_BxSxH in theirs])
    return float(abs(ours_LxBxSxH - theirs_LxBxSxH)[:, batch.text_BxS > 0].max())


if __name__ == "__main__":
    end_with(main)

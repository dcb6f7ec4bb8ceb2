"""Our early exit against the `fastbert` package of the paper's first author: time per text, tokenizing included.

    pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/official_fastbert.py --output benchmarks/results/peer_official_fastbert.json

Both are BERT-base with random weights and exits made so that every text leaves at a given layer. The official package
takes one text at a time and pads it to `seq_length`: 128 unless told otherwise, measured beside the shortest of our
lengths that holds all texts. Ours takes the same texts one at a time and all at once, by two engines each.
`official_over_ours` is its time over ours: above 1, ours is faster. All take turns in one process. Importing
`fastbert` switches off the checks of https certificates in this process, and makes the folder ~/.fastbert.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # see full_depth.py
sys.path.insert(0, str(Path(__file__).parent.parent))

import fastbert
import jax
import numpy as np
import torch
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, Mode
from fastbert_jax.inference.compare import evenly, interleaved_times
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Params
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from measured import publish, random_config, ratio

SPEED = 0.5
SURE, UNSURE = (20.0, -20.0), (0.0, 0.0)
"""Logits of an exit at which every text leaves, and of one at which none does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure early exit against the official package."""

    data: str = "builtin:movie_reviews#test"
    """SPEC of the texts."""
    texts: int = 16
    """Texts to time, spread evenly over the data."""
    depths: tuple[int, ...] = (2, 6, 12)
    """Layers at which all texts leave, of 12."""
    modes: tuple[Mode, ...] = (Mode.BUCKETED, Mode.CASCADE)
    """Our engines to measure."""
    repeats: int = 5
    """Interleaved repeats; the median counts."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    threads = len(os.sched_getaffinity(0))  # XLA's pool has as many
    torch.set_num_threads(threads)
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    official = random_official()
    cases = {f"leaving after layer {depth}": measure(official, texts, depth, settings) for depth in settings.depths}
    versions = {"fastbert": importlib.metadata.version("fastbert"), "torch": torch.__version__}
    publish({"cases": cases, "threads": threads, **versions}, settings)


def random_official() -> Any:
    """The official BERT-base with BERT's random weights in place of PyTorch's."""
    model = fastbert.FastBERT("google_bert_base_en", labels=["a", "b"], device="cpu", is_load=False)
    for name, parameter in model.named_parameters():
        if not name.endswith(("gamma", "beta")):
            torch.nn.init.normal_(parameter, 0, 0.02)
    return model.eval()


def measure(official: Any, texts: Sequence[str], depth: int, settings: Settings) -> dict:
    """The ratios where every text leaves after layer `depth`."""
    make_official_leave(official, depth)
    ours = our_predictor(depth)
    tight = int(ours.plan(texts).padded_lengths.max())
    official_runs = {
        f"seq_length {length}": functools.partial(ask_official, official, texts, length, depth)
        for length in sorted({ours.max_length, tight}, reverse=True)
    }
    our_runs: dict[str, Callable[[], object]] = {}
    for mode in settings.modes:
        our_runs[f"{mode.value}, one at a time"] = functools.partial(ask_ours, ours, [[t] for t in texts], mode, depth)
        our_runs[f"{mode.value}, all at once"] = functools.partial(ask_ours, ours, [texts], mode, depth)
    runs = [*official_runs.values(), *our_runs.values()]
    for run in runs:
        run()
    times = interleaved_times(runs, settings.repeats)
    official_times, our_times = times[: len(official_runs)], times[len(official_runs) :]
    return {
        "official_over_ours": {
            name: {own: ratio(theirs, our) for own, our in zip(our_runs, our_times, strict=True)}
            for name, theirs in zip(official_runs, official_times, strict=True)
        },
        "noise": max(Spread.of(own).relative for own in times),
    }


def ask_official(model: Any, texts: Sequence[str], seq_length: int, depth: int) -> None:
    """One text after the other, as it takes them."""
    model.args.seq_length = seq_length
    check_depths([model(text, speed=SPEED)[1] for text in texts], depth)


def ask_ours(predictor: Predictor, lists: Sequence[Sequence[str]], mode: Mode, depth: int) -> None:
    """List after list."""
    answers = [answer for texts in lists for answer in predictor.predict(texts, speed=SPEED, mode=mode)]
    check_depths([answer.exit_layer for answer in answers], depth)


def check_depths(found: Sequence[int], depth: int) -> None:
    """Fail where a text left elsewhere than it was to."""
    if set(found) != {depth}:
        raise RuntimeError(f"expected every text to leave after layer {depth}, found {found}")


@torch.no_grad()
def make_official_leave(model: Any, depth: int) -> None:
    """Have every text leave after layer `depth`, whatever it is."""
    for number, classifier in enumerate(model.classifiers, start=1):
        classifier.output_layer_2.weight.zero_()
        classifier.output_layer_2.bias.copy_(torch.tensor(SURE if number >= depth else UNSURE))


def our_predictor(depth: int) -> Predictor:
    """BERT-base with random weights, whose texts all leave after layer `depth`."""
    config = random_config(layers=12, hidden_size=768)
    params: Params = Bert(config).init(jax.random.key(0))
    classifier = params["lower_exits"]["classifier"]
    logits = [SURE if number >= depth else UNSURE for number in range(1, config.num_layers)]
    classifier["kernel"], classifier["bias"] = classifier["kernel"] * 0, np.array(logits, np.float32)
    lengths = DataConfig().lengths
    tokenizer = load_tokenizer(pretrained_directory("builtin:minilm"))  # the vocabulary of English uncased BERTs
    return Predictor(params, config, tokenizer, labels=("a", "b"), max_length=lengths[-1], length_buckets=lengths)


if __name__ == "__main__":
    end_with(main)

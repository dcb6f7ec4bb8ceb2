r"""Do converted models answer as the official package does, at BERT-base's size? Tokens, logits, labels and layers.

    pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/official_parity.py --chinese book_review_zh.tsv \
      --output benchmarks/results/peer_official_parity.json

Random models of the package are saved by it, converted, and asked the same texts. Their last maps are stretched so that
texts leave at many layers. The tokens of all texts of a SPEC are compared, the answers to some of them. Importing
`fastbert` switches off the checks of https certificates in this process, and makes the folder ~/.fastbert.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # see full_depth.py
sys.path.insert(0, str(Path(__file__).parent.parent))

import fastbert
import fastbert.config
import jax
import numpy as np
import torch
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import ConvertConfig, DataConfig, Mode
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.timing import evenly
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.convert import convert
from fastbert_jax.model.weights import load_model
from fastbert_jax.text.batches import collate
from fastbert_jax.text.sources import read_examples
from measured import publish

LABELS = ("a", "b", "c")
SPREAD = 2.0
"""Standard deviation of an exit's logits over the texts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Compare converted random models with the official package."""

    english: str = "builtin:movie_reviews#test"
    """SPEC of single texts for google_bert_base_en."""
    chinese: str = ""
    """SPEC of single texts for google_bert_base_zh; empty: left out."""
    texts: int = 64
    """Texts to answer, spread evenly over each SPEC."""
    length: int = 64
    """Tokens that each is padded to or cut to by the package."""
    speeds: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Speeds to compare labels and layers at."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Compare, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    specs = {"google_bert_base_en": settings.english, "google_bert_base_zh": settings.chinese}
    cases = {kernel: parity(kernel, spec, settings) for kernel, spec in specs.items() if spec}
    versions = {"fastbert": importlib.metadata.version("fastbert"), "torch": torch.__version__}
    publish({"cases": cases, **versions}, settings)


def parity(kernel: str, spec: str, settings: Settings) -> dict:
    """What differs for one of the package's models, on the texts of a SPEC."""
    examples = read_examples(spec, DataConfig(), need_label=False, role="test").examples
    every = [example.text for example in examples]
    texts = [every[row] for row in evenly(len(every), settings.texts)]
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):  # the package says what it does
        official = fastbert.FastBERT(
            kernel, labels=list(LABELS), seq_length=settings.length, device="cpu", is_load=False
        ).eval()
        make_random(official)
        make_answers_differ(official, texts)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        official.save_model(path / "official.bin")
        vocabulary = Path(fastbert.config.FILES_DIR) / official.args.vocab_path
        files = {"input": str(path / "official.bin"), "vocab": str(vocabulary), "output": str(path / "model")}
        convert(ConvertConfig(**files, labels=LABELS, max_length=settings.length))
        predictor, expected = load(path / "model"), exit_logits(official, texts)
        found = our_logits(path / "model", predictor, texts, settings.length)
    largest_L = np.abs(expected).max((0, 2))
    return {
        "texts_tokenised": len(every),
        "texts_with_other_tokens": sum(tokens_of(predictor, text) != official_tokens(official, text) for text in every),
        "texts_answered": len(texts),
        "largest_difference_of_logits_by_exit": (np.abs(found - expected).max((0, 2)) / largest_L).tolist(),
        "speeds": {str(speed): at_speed(official, predictor, texts, speed, expected) for speed in settings.speeds},
    }


@torch.no_grad()
def make_random(model: Any) -> None:
    """Weights that let what a text says come through 12 layers."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(1.0 if name.endswith("gamma") else 0.0, 0.1)
        else:
            parameter.normal_(0.0, 1.0 if "embedding" in name else parameter.shape[1] ** -0.5)


@torch.no_grad()
def make_answers_differ(model: Any, texts: Sequence[str]) -> None:
    """Move and stretch the logits of random exits, which say much the same of every text."""
    logits_BxLxN = torch.from_numpy(exit_logits(model, texts))
    for number, classifier in enumerate(model.classifiers):
        stretch = SPREAD / logits_BxLxN[:, number].std(0).mean()
        classifier.output_layer_2.weight *= stretch
        classifier.output_layer_2.bias.sub_(logits_BxLxN[:, number].mean(0)).mul_(stretch)


@torch.no_grad()
def exit_logits(model: Any, texts: Sequence[str]) -> np.ndarray:
    """Every exit's, `[B, L, N]`, by the package's modules as its `_fast_infer` calls them."""
    logits = []
    for text in texts:
        ids_1xS, mask_1xS = (torch.tensor([numbers]) for numbers in model._convert_to_id_and_mask(text))
        hidden = model.kernel.embedding(ids_1xS, mask_1xS)
        mask = model._mask_transfer(mask_1xS, hidden)
        of_text = []
        for layer, classifier in zip(model.kernel.encoder.transformer, model.classifiers, strict=True):
            hidden = layer(hidden, mask)
            of_text.append(classifier(hidden, mask)[0])
        logits.append(torch.stack(of_text))
    return torch.stack(logits).numpy()


def our_logits(directory: Path, predictor: Predictor, texts: Sequence[str], length: int) -> np.ndarray:
    """The same by the converted model."""
    params, config, _ = load_model(directory)
    encoded = predictor.tokenizer.encode(texts, max_length=length)
    program = jax.jit(Bert(config).trace)
    params = jax.device_put(params)
    logits = []
    for row in range(len(texts)):
        batch = collate(encoded, np.array([row]), batch_size=1, length=length)
        logits.append(program(params, batch).exit_logits_LxBxKxN[:, 0, 0])
    return np.stack(logits)


def tokens_of(predictor: Predictor, text: str) -> list[int]:
    """Ours, uncut."""
    return predictor.tokenizer.encode([text], max_length=10**6).token_ids.tolist()


def official_tokens(model: Any, text: str) -> list[int]:
    """The package's, before it cuts and pads."""
    return [model.cls_id, *(model.vocab.get(token) for token in model.tokenizer.tokenize(text))]


def at_speed(model: Any, predictor: Predictor, texts: Sequence[str], speed: float, logits_BxLxN: np.ndarray) -> dict:
    """How many labels and executed layers differ at one speed."""
    theirs = [model(text, speed=speed) for text in texts]
    ours = [(answer.label, answer.exit_layer) for answer in predictor.predict(texts, speed=speed, mode=Mode.CASCADE)]
    probabilities = torch.softmax(torch.from_numpy(logits_BxLxN).double(), -1)
    uncertainty = torch.distributions.Categorical(probs=probabilities).entropy().numpy() / np.log(len(LABELS))
    return {
        "mean_depth": float(np.mean([layers for _, layers in theirs])),
        "other_labels": sum(our[0] != their[0] for our, their in zip(ours, theirs, strict=True)),
        "other_layers": sum(our[1] != their[1] for our, their in zip(ours, theirs, strict=True)),
        "nearest_uncertainty": float(np.abs(uncertainty - speed).min()),
    }


if __name__ == "__main__":
    end_with(main)

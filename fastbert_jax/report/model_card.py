"""The card of a model: the README.md that says what it is, how to load it, how it was made and how well it answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastbert_jax.config import BertConfig, LayerNormKind
from fastbert_jax.report.comparison import SCHEMA, batch_words
from fastbert_jax.report.metrics import Spread

FILE = "README.md"

FRONT_MATTER = """\
---
library_name: fastbert_jax
pipeline_tag: text-classification
tags:
- bert
- fastbert
- early-exit
- safetensors
---"""
"""No licence: that of the weights and texts that a model comes from is not known here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What a run directory tells of how its model was made."""

    texts: Sequence[tuple[str, str, str]]
    """What they were for, where they came from, and how many there were; empty where that is not known."""
    story: str
    """What trained what, in a sentence."""
    settings: str
    """YAML."""
    comparison: Mapping[str, Any] | None
    """`Comparison.to_json` of the test texts."""


def model_card(
    *,
    name: str,
    directory: str,
    config: BertConfig,
    labels: Sequence[str],
    max_length: int,
    exits_file: str,
    numpy_code: str,
    making: Making | None,
) -> str:
    """Markdown, with a YAML head as Hugging Face's hub reads it.

    Args:
      directory: what the card calls the directory that it lies in.
      exits_file: where the exits' tensors are.
      numpy_code: the source of `read_model` and `exit_logits`, so that a card needs no other document.
      making: none where there is the model alone.
    """
    here = json.dumps(directory, ensure_ascii=False)
    parts = [_about(name, config, labels), _loading(here)]
    if config.layer_norm is LayerNormKind.STANDARD:
        parts.append(_loading_elsewhere(here, config, max_length, exits_file, numpy_code))
    else:
        parts.append("transformers would load it and compute it wrongly: its LayerNorm is UER's.")
    comparison = making.comparison if making else None
    if making:
        parts.append(_making(making))
    if comparison and comparison.get("schema") == SCHEMA:
        parts.append(_measured(comparison))
    else:
        comparison = None
    parts.append(_limits(len(labels), max_length, comparison))
    return "\n\n".join([FRONT_MATTER, *parts]) + "\n"


def _about(name: str, config: BertConfig, labels: Sequence[str]) -> str:
    return f"""\
# {name}

A FastBERT ([Liu et al., ACL 2020](https://arxiv.org/abs/2004.02178)): a BERT whose every layer can answer.
It has {config.num_layers} layers, {config.hidden_size} wide, and a classifier after each of them. A text leaves at the
first layer that is sure enough, so that easy texts cost a fraction of BERT.

Its {config.num_classes} classes, in the order of the logits:

{_fenced("json", json.dumps(list(labels), ensure_ascii=False, indent=2))}"""


def _loading(here: str) -> str:
    whole = f"""\
import fastbert_jax

classifier = fastbert_jax.load({here})
answers = classifier.predict(["a text"], speed=0.5)"""
    return f"""\
## How to load it

`{here}` is this directory. All of it, early exit included, with fastbert_jax:

{_fenced("python", whole)}"""


def _loading_elsewhere(here: str, config: BertConfig, max_length: int, exits_file: str, numpy_code: str) -> str:
    backbone = f"""\
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({here})
backbone = AutoModel.from_pretrained({here}, add_pooling_layer=False)  # it was trained without a pooler
inputs = tokenizer("a text", truncation=True, max_length={max_length}, return_tensors="pt")
hidden_states = backbone(**inputs, output_hidden_states=True).hidden_states"""
    answer = f"""\
config, tensors = read_model({here})
logits = exit_logits(config, tensors, 1, hidden_states[1][0].detach().numpy())"""
    return f"""\
The backbone alone, with transformers:

{_fenced("python", backbone)}

Its exits are in `{exits_file}`, `exits.1` to `exits.{config.num_layers}`, the last of which is
the teacher of the others. safetensors and numpy are enough to compute what they answer:

{_fenced("python", numpy_code.strip())}

{_fenced("python", answer)}"""


def _making(making: Making) -> str:
    rows = _table([("texts", "from", "how many"), ("---", "---", "---"), *making.texts])
    return f"""\
## How it was made

{making.story}

{rows}

{_fenced("yaml", making.settings.strip())}"""


def _measured(comparison: Mapping[str, Any]) -> str:
    sizes = comparison["batch_sizes"]
    chosen = {row["speed"]: row for row in sizes[0]["rows"]}
    measured = [f"measured, batches of {batch_words(size['batch_size'], size['batch_tokens'])}" for size in sizes]
    header = ["speed", "accuracy", "layers", "FLOPs saved", *measured]
    rows = [
        [
            f"{speed:g}",
            f"{row['accuracy']:.4f}",
            f"{row['mean_depth']:.2f} of {row['layers']}",
            f"{row['paper_speedup']:.2f}x",
            *(_speedup(size, speed) for size in sizes),
        ]
        for speed, row in chosen.items()
    ]
    origin = comparison["origin"]
    versions = ", ".join(f"{package} {version}" for package, version in origin["packages"].items())
    baseline = comparison["baseline_accuracy"]
    beside = "" if baseline is None else f"\n\nTF-IDF and a linear SVM, trained on the same texts: {baseline:.4f}."
    return f"""\
## How well it answers

On {comparison["texts"]} test texts. `speed` is the uncertainty (entropy / log N) below which a text leaves; 0 is the
whole BERT. FLOPs saved are those of the paper's count, not time. What was measured is the time of the whole BERT,
without exits, on the same batches over that of the fastest mode: median and range of {comparison["repeats"]} repeats.

{_table([header, ["---"] * len(header), *rows])}

Measured {origin["date"]} on {origin["device"]}, with {versions}. The machine: {origin["machine"]}.{beside}"""


def _speedup(size: Mapping[str, Any], speed: float) -> str:
    """That of the fastest mode at a speed, in words; nothing where the size was not measured at it."""
    fastest = {entry["speed"]: entry["modes"][0] for entry in size["fastest"]}
    for row in size["rows"]:
        if row["speed"] == speed and row["mode"] == fastest.get(speed):
            spread = Spread(**row["speedup"])
            return f"{spread.median:.2f}x ({spread.low:.2f} to {spread.high:.2f}), {row['mode']}"
    return "1x" if speed == 0 else ""


def _limits(classes: int, max_length: int, comparison: Mapping[str, Any] | None) -> str:
    cut = f"; of the test texts, {comparison['truncated_texts']} did" if comparison else ""
    measured = (
        "Accuracy and speedup are those of these test texts and this device. Others differ: `infer.py compare` "
        "measures yours."
        if comparison
        else "It has not been measured on test texts: nothing is known here of its accuracy and its speedup."
    )
    return f"""\
## Limits

- Every text gets one of the {classes} classes, also one that belongs to none of them.
- Texts of more than {max_length} tokens lose their end{cut}.
- Uncertainty is no probability of being wrong. `infer.py calibrate` finds the speed that keeps a promise on your texts.
- {measured}
- What its texts and the weights that it began with hold of mistakes and prejudice, it has learned. Their licences are
  not told here."""


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"

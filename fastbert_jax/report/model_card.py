"""The card of an exported model: the README.md that says what it is, how it was made and how to load it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastbert_jax.config import BertConfig
from fastbert_jax.report.comparison import SCHEMA

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
    *, name: str, config: BertConfig, labels: Sequence[str], max_length: int, numpy_code: str, making: Making | None
) -> str:
    """Markdown, with a YAML head as Hugging Face's hub reads it.

    Args:
      numpy_code: the source of `read_model` and `exit_logits`, so that a card needs no other document.
      making: none where there is the model alone.
    """
    parts = [_about(name, config, labels), _loading(name, config, max_length, numpy_code)]
    if making:
        parts.append(_making(making))
        if making.comparison and making.comparison.get("schema") == SCHEMA:
            parts.append(_measured(making.comparison))
    return "\n\n".join([FRONT_MATTER, *parts]) + "\n"


def _about(name: str, config: BertConfig, labels: Sequence[str]) -> str:
    return f"""\
# {name}

A FastBERT ([Liu et al., ACL 2020](https://arxiv.org/abs/2004.02178)): a BERT whose every layer can answer.
It has {config.num_layers} layers, {config.hidden_size} wide, and a classifier after each of them. A text leaves at the
first layer that is sure enough, so that easy texts cost a fraction of BERT.

Its {config.num_classes} classes, in the order of the logits:

{_fenced("json", json.dumps(list(labels), ensure_ascii=False, indent=2))}"""


def _loading(name: str, config: BertConfig, max_length: int, numpy_code: str) -> str:
    here = json.dumps(name, ensure_ascii=False)
    whole = f"""\
import fastbert_jax

classifier = fastbert_jax.load({here})
answers = classifier.predict(["a text"], speed=0.5)"""
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
## How to load it

`{here}` is this directory. All of it, early exit included, with fastbert_jax:

{_fenced("python", whole)}

The backbone alone, with transformers:

{_fenced("python", backbone)}

Its exits are in `fastbert_exits.safetensors`, `exits.1` to `exits.{config.num_layers}`, the last of which is
the teacher of the others. safetensors and numpy are enough to compute what they answer:

{_fenced("python", numpy_code.strip())}

{_fenced("python", answer)}"""


def _making(making: Making) -> str:
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in making.texts)
    return f"""\
## How it was made

{making.story}

| texts | from | how many |
|---|---|---|
{rows}

{_fenced("yaml", making.settings.strip())}"""


def _measured(comparison: Mapping[str, Any]) -> str:
    chosen = {row["speed"]: row for row in comparison["batch_sizes"][0]["rows"]}
    rows = "\n".join(
        f"| {speed:g} | {row['accuracy']:.4f} | {row['mean_depth']:.2f} of {row['layers']} "
        f"| {row['paper_speedup']:.2f}x |"
        for speed, row in chosen.items()
    )
    origin = comparison["origin"]
    versions = ", ".join(f"{package} {version}" for package, version in origin["packages"].items())
    return f"""\
## How well it answers

On {comparison["texts"]} test texts. `speed` is the uncertainty (entropy / log N) below which a text leaves; 0 is the
whole BERT. FLOPs saved are those of the paper's count, not time.

| speed | accuracy | layers | FLOPs saved |
|---|---|---|---|
{rows}

Measured {origin["date"]} on {origin["device"]}, with {versions}."""


def _fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"

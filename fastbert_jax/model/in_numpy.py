"""A FastBERT's exits by safetensors and numpy alone: read a model directory, and compute what an exit answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def read_model(directory: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `config.json` says, and every tensor by its name, the backbone's without `bert.`."""
    config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    files = [load_file(path) for path in sorted(Path(directory).glob("*.safetensors"))]
    return config, {name.removeprefix("bert."): tensor for tensors in files for name, tensor in tensors.items()}


def exit_logits(
    config: dict[str, Any], tensors: dict[str, np.ndarray], layer: int, hidden_SxH: np.ndarray
) -> np.ndarray:
    """The logits `[N]` of the exit after `layer`, 1 to L, for one text.

    `hidden_SxH` is that layer's output at the text's S tokens, [CLS] first, without padding.
    """

    def linear(name: str, inputs: np.ndarray) -> np.ndarray:
        bias = tensors.get(f"exits.{layer}.{name}.bias", 0)  # the key has none: a softmax drops it
        return inputs @ tensors[f"exits.{layer}.{name}.weight"].T + bias

    if config["fastbert"].get("exit_kind") == "linear":
        return linear("classifier", hidden_SxH[0])
    narrow_SxC = np.tanh(linear("narrow", hidden_SxH))
    query_C, key_SxC, value_SxC = linear("query", narrow_SxC[0]), linear("key", narrow_SxC), linear("value", narrow_SxC)
    attended = []
    for head_D in np.split(np.arange(len(query_C)), config["fastbert"]["exit_heads"]):
        scores_S = key_SxC[:, head_D] @ query_C[head_D] / np.sqrt(len(head_D))
        weights_S = np.exp(scores_S - scores_S.max())
        attended.append(weights_S / weights_S.sum() @ value_SxC[:, head_D])
    pooled_C = np.tanh(linear("dense", linear("attention_output", np.concatenate(attended))))
    return linear("classifier", pooled_C)

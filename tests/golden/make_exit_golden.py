"""Makes the golden logits of one exit, by the per-token form of the released code. Needs torch; the tests do not.

    python tests/golden/make_exit_golden.py

`Linear(H, C)`, tanh, multi-head self-attention over all tokens with query, key, value and output `Linear(C, C)`, each
with a bias, and -10000 added to the scores of padding; the first token; `Linear(C, C)`, tanh, `Linear(C, N)`
(github.com/autoliuweijie/FastBERT, `BertMiniClassifier` in run_fastbert.py). Writes `exit.npz` beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
HIDDEN, WIDTH, HEADS, CLASSES = 24, 16, 2, 3


class PerTokenExit(nn.Module):
    """The exit as released: every token attends, then all but the first are thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(HIDDEN, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.attention_output = nn.Linear(WIDTH, WIDTH)
        self.dense = nn.Linear(WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = hidden.shape

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)

        narrow = torch.tanh(self.narrow(hidden))
        query, key, value = split(self.query(narrow)), split(self.key(narrow)), split(self.value(narrow))
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        scores = scores + (1.0 - mask[:, None, None, :]) * -10000.0
        attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, WIDTH)
        first = self.attention_output(attended)[:, 0]
        return self.classifier(torch.tanh(self.dense(first)))


if __name__ == "__main__":
    torch.manual_seed(0)
    exit_module = PerTokenExit()
    for parameter in exit_module.parameters():
        nn.init.normal_(parameter, std=0.5)
    hidden = torch.randn(4, 9, HIDDEN)
    mask = torch.ones(4, 9)
    mask[1, 5:] = 0
    mask[2, 1:] = 0
    mask[3] = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0, 1])
    with torch.no_grad():
        logits = exit_module(hidden, mask).numpy()
    weights = {name: parameter.detach().numpy() for name, parameter in exit_module.named_parameters()}
    np.savez_compressed(HERE / "exit.npz", hidden=hidden.numpy(), mask=mask.numpy(), logits=logits, **weights)

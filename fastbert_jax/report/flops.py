"""FLOPs of a text that exits after some layer: as the FastBERT paper counts them, and as they are really spent.

A multiplication and its addition are two FLOPs. Neither count has embeddings, norms, softmax or activations. Lengths
are what the device computes on: a padded text costs its padded length. A network gives the FLOPs of its own layers and
exits; this file adds them up.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol


class Count(enum.Enum):
    """Which FLOPs are counted."""

    PAPER = "paper"
    TRUE = "true"


class Costs(Protocol):
    """What a network tells of its FLOPs; `model.bert.Bert` has it."""

    @property
    def num_layers(self) -> int: ...

    @property
    def exits(self) -> tuple[bool, ...]:
        """For each layer, whether it has an exit."""

    def layer_flops(self, length: int) -> int:
        """One layer on one row of `length` tokens."""

    def exit_flops(self, length: int, *, texts: int = 1) -> tuple[int, int]:
        """One exit on a row of so many texts: its first map, and what follows for the texts."""

    def paper_layer_flops(self, length: int) -> int:
        """One layer, as the paper counts."""

    def paper_exit_flops(self, length: int) -> int:
        """One exit on one text, as the paper counts."""


def text_flops(
    count: Count, network: Costs, length: int, executed_layers: int, *, exits_evaluated: int | None = None
) -> int:
    """FLOPs of one text.

    Args:
      length: tokens, padding included.
      executed_layers: 1 to L.
      exits_evaluated: by default one per executed layer; 1 for plain BERT, which pays for the last exit alone.

    Raises:
      ValueError: more layers than there are, or more exits than layers.
    """
    layers = int(executed_layers)
    exits = layers if exits_evaluated is None else int(exits_evaluated)
    if not 1 <= layers <= network.num_layers or not 0 <= exits <= layers:
        raise ValueError(
            f"expected 1 to {network.num_layers} executed layers and at most as many exits, found {layers} and {exits}"
        )
    if count is Count.PAPER:
        return layers * network.paper_layer_flops(length) + exits * network.paper_exit_flops(length)
    return layers * network.layer_flops(length) + exits * sum(network.exit_flops(length))


def forward_flops(network: Costs, length: int, *, texts: int = 1, exits: int = 1) -> int:
    """One row of so many texts through all layers and so many exits."""
    return network.num_layers * network.layer_flops(length) + exits * sum(network.exit_flops(length, texts=texts))


def training_flops(network: Costs, length: int, *, texts: int = 1, exits: int = 1) -> int:
    """One row in a step that trains all layers and so many exits: forward, and twice that backward.

    Layers that are computed again to save memory do not count.
    """
    return 3 * forward_flops(network, length, texts=texts, exits=exits)


def distillation_flops(network: Costs, length: int, *, texts: int = 1, targets_known: bool = False) -> int:
    """One row in a step of self-distillation, without the optimizer.

    The frozen layers and the last exit run forward; the lower exits run forward and backward. Nothing is differentiated
    by the hidden states, so the first map of a lower exit costs twice its forward pass, and the rest three times.

    Args:
      texts: texts that the row has room for, K in the batch's shapes.
      targets_known: the last exit's logits come with the batch, so neither it nor the last layer runs.
    """
    layer, (first, behind) = network.layer_flops(length), network.exit_flops(length, texts=texts)
    lower = [number for number, has_exit in enumerate(network.exits[:-1], start=1) if has_exit]
    exits = len(lower) * (2 * first + 3 * behind)
    return exits + lower[-1] * layer if targets_known else exits + network.num_layers * layer + first + behind


def total_flops(
    count: Count,
    network: Costs,
    lengths: Iterable[int],
    executed_layers: Iterable[int],
    *,
    asked: Sequence[bool] | None = None,
) -> int:
    """FLOPs of many texts together.

    Args:
      lengths, executed_layers: one number per text.
      asked: for each layer, whether its exit is evaluated; none: all are. Where only the last is, as at speed 0, that
        is plain BERT.
    """
    texts = Counter(zip(map(int, lengths), map(int, executed_layers), strict=True))
    return sum(
        number
        * text_flops(count, network, length, layers, exits_evaluated=None if asked is None else sum(asked[:layers]))
        for (length, layers), number in texts.items()
    )


def only_the_last(network: Costs) -> tuple[bool, ...]:
    """The exits that plain BERT evaluates: the last one."""
    return (*[False] * (network.num_layers - 1), True)

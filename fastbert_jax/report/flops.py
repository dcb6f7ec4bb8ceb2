"""FLOPs of a text that leaves after some layer: as the FastBERT paper counts them, and as they are really spent.

A multiplication and its addition are two FLOPs. Neither count has embeddings, norms, softmax or activations. Lengths
are what the device computes on: a padded text costs its padded length.

Letters: S length, H hidden, F feed-forward, L layers, C exit width, A exit heads, N classes.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence

from fastbert_jax.config import BertConfig, ExitKind


class Count(enum.Enum):
    """Which FLOPs are counted."""

    PAPER = "paper"
    TRUE = "true"


def paper_layer_flops(config: BertConfig, length: int) -> int:
    """The linear maps of one encoder layer: 2S(4H^2 + 2HF). Attention's own products are left out."""
    hidden, inner, length = config.hidden_size, config.feed_forward_size, int(length)
    return 2 * length * (4 * hidden**2 + 2 * hidden * inner)


def paper_exit_flops(config: BertConfig, length: int) -> int:
    """The linear maps of one exit with attention at every token: 2(SHC + 4SC^2 + C^2).

    The numbers of the released code (thop, `nn.Linear` only) to the last digit; the last map, C -> N, is left out. A
    linear exit, which the paper has not, is its one map: 2HN.
    """
    if config.exit_kind is ExitKind.LINEAR:
        return 2 * config.hidden_size * config.num_classes
    hidden, width, length = config.hidden_size, config.exit_size, int(length)
    return 2 * (length * hidden * width + 4 * length * width**2 + width**2)


def true_layer_flops(config: BertConfig, length: int) -> int:
    """One encoder layer with both products of its attention: 4S^2 H more than the paper counts."""
    return paper_layer_flops(config, length) + 4 * int(length) ** 2 * config.hidden_size


def true_exit_flops(config: BertConfig, length: int) -> int:
    """One exit as `model/exits.py` computes it for one text per row: 2(SHC + 2ASC + 5C^2 + CN).

    The first map runs on all S tokens; each head scores and averages S tokens at width C; query, key, value, output
    and dense maps run on one token. A linear exit is 2HN.
    """
    if config.exit_kind is ExitKind.LINEAR:
        return paper_exit_flops(config, length)
    hidden, width, length = config.hidden_size, config.exit_size, int(length)
    attention = 2 * config.exit_heads * length * width
    return 2 * (length * hidden * width + attention + 5 * width**2 + width * config.num_classes)


def paper_flops(config: BertConfig, length: int, executed_layers: int, *, exits_evaluated: int | None = None) -> int:
    """FLOPs of one text as the paper counts them.

    Args:
      length: tokens, padding included.
      executed_layers: 1 to L.
      exits_evaluated: by default one per executed layer; 1 for plain BERT, which pays for the teacher alone.
    """
    return _total(Count.PAPER, config, length, executed_layers, exits_evaluated)


def true_flops(config: BertConfig, length: int, executed_layers: int, *, exits_evaluated: int | None = None) -> int:
    """FLOPs of one text as they are spent; the arguments are those of `paper_flops`."""
    return _total(Count.TRUE, config, length, executed_layers, exits_evaluated)


def _total(count: Count, config: BertConfig, length: int, executed_layers: int, exits_evaluated: int | None) -> int:
    layers = int(executed_layers)
    exits = layers if exits_evaluated is None else int(exits_evaluated)
    if not 1 <= layers <= config.num_layers or not 0 <= exits <= layers:
        raise ValueError(
            f"expected 1 to {config.num_layers} executed layers and at most as many exits, found {layers} and {exits}"
        )
    if count is Count.PAPER:
        return layers * paper_layer_flops(config, length) + exits * paper_exit_flops(config, length)
    return layers * true_layer_flops(config, length) + exits * true_exit_flops(config, length)


def fine_tuning_flops(config: BertConfig, length: int, *, exits: int = 1) -> int:
    """One text in a step of fine-tuning: the backbone and so many exits forward, and twice that backward.

    What is computed a second time to save memory does not count.
    """
    return 3 * true_flops(config, length, config.num_layers, exits_evaluated=exits)


def truncation_flops(config: BertConfig, length: int, *, teacher: BertConfig) -> int:
    """One text in a step of truncation: the teacher forward, and the model that learns from it as in fine-tuning."""
    return fine_tuning_flops(config, length) + true_flops(teacher, length, teacher.num_layers, exits_evaluated=1)


def distillation_flops(config: BertConfig, length: int, *, texts: int = 1, teacher_known: bool = False) -> int:
    """FLOPs of one row in one step of self-distillation: what `training/step.py` computes, AdamW left out.

    The frozen backbone and the teacher run forward; the students run forward and backward. Nothing is differentiated by
    the hidden states, so a student's first map costs twice its forward pass, and all behind it three times.

    Args:
      length: tokens of the row, padding included.
      texts: texts that the row has room for, K in the batch's shapes.
      teacher_known: its answers come with the batch, so neither it nor the last layer runs.
    """
    whole = true_exit_flops(config, length)
    if config.exit_kind is ExitKind.LINEAR:
        first, behind = int(texts) * whole, 0
    else:
        first = 2 * int(length) * config.hidden_size * config.exit_size
        behind = int(texts) * (whole - first)
    below = config.num_layers - 1
    students = below * (true_layer_flops(config, length) + 2 * first + 3 * behind)
    return students if teacher_known else students + true_layer_flops(config, length) + first + behind


def total_flops(
    count: Count,
    config: BertConfig,
    lengths: Iterable[int],
    executed_layers: Iterable[int],
    *,
    asked: Sequence[bool] | None = None,
) -> int:
    """FLOPs of many texts together.

    Args:
      lengths, executed_layers: one number per text.
      asked: for each layer, whether its exit is asked; none: all are. Where only the last is, as at speed 0, that is
        plain BERT.
    """
    texts = Counter(zip(map(int, lengths), map(int, executed_layers), strict=True))
    return sum(
        number * _total(count, config, length, layers, None if asked is None else sum(asked[:layers]))
        for (length, layers), number in texts.items()
    )


def speedup(
    count: Count,
    config: BertConfig,
    lengths: Iterable[int],
    executed_layers: Iterable[int],
    *,
    asked: Sequence[bool] | None = None,
) -> float:
    """FLOPs of plain BERT (all layers and the teacher) over FLOPs of the same texts with early exit.

    The arguments are those of `total_flops`.

    Raises:
      ValueError: no texts.
    """
    lengths = list(lengths)
    if not lengths:
        raise ValueError("expected the length of at least one text, found none")
    full = total_flops(count, config, lengths, [config.num_layers] * len(lengths), asked=only_the_last(config))
    return full / total_flops(count, config, lengths, executed_layers, asked=asked)


def only_the_last(config: BertConfig) -> tuple[bool, ...]:
    """The exits that plain BERT asks: the teacher's."""
    return (*[False] * (config.num_layers - 1), True)

"""Settings of the model: its architecture, and what a run starts from."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from typing import ClassVar

from fastbert_jax.config.shared import (
    Checked,
    CheckpointKind,
    ExitKind,
    LayerNormKind,
    Precision,
    require,
    require_at_least,
    require_local,
)

MOST_LAYERS = 1000
"""Of any model: a file that names millions of layers must not fill the memory."""


class Activation(enum.Enum):
    """The function between the two linear maps of a feed-forward part; `gelu` is the exact one, with erf."""

    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(Checked):
    """The architecture of one BERT: its backbone, and the exits after its layers."""

    SECTION: ClassVar[str] = "model"

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int
    max_positions: int = 512
    token_types: int = 2
    activation: Activation = Activation.GELU
    layer_norm: LayerNormKind = LayerNormKind.STANDARD
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    num_classes: int = 2
    exit_kind: ExitKind = ExitKind.ATTENTION
    exit_size: int = 128
    """Width of every exit (the paper's 128)."""
    exit_heads: int = 2
    """Attention heads of every exit (the released code's 2)."""
    exit_layers: tuple[int, ...] = ()
    """Layers, from 1 and rising, that have an exit; the last layer always has one. Empty: every layer has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.num_layers <= MOST_LAYERS, "model num_layers", f"1 to {MOST_LAYERS}", self.num_layers)
        if not self.exit_layers:
            object.__setattr__(self, "exit_layers", tuple(range(1, self.num_layers + 1)))
        for field, value in dataclasses.asdict(self).items():
            require(type(value) is not int or value >= 1, f"model {field}", "1 or more", value)
            require(type(value) is not float or value >= 0, f"model {field}", "0 or more", value)
        for size, heads in (("hidden_size", "num_heads"), ("exit_size", "exit_heads")):
            width, count = getattr(self, size), getattr(self, heads)
            require(width % count == 0, f"model {size}", f"a multiple of {heads} = {count}", width)
        rises = all(0 < low < high for low, high in itertools.pairwise(self.exit_layers))
        expected = f"rising numbers from 1 to {self.num_layers}, the last one included"
        ends = self.exit_layers[-1] == self.num_layers
        require(rises and ends, "model exit_layers", expected, self.exit_layers[:MOST_LAYERS])
        has_deviation = self.layer_norm is LayerNormKind.STANDARD or self.hidden_size >= 2
        require(has_deviation, "model hidden_size", "2 or more for an unbiased layer_norm", self.hidden_size)
        require(self.num_classes >= 2, "number of classes", "2 or more", self.num_classes)

    @property
    def lower_exit_layers(self) -> tuple[int, ...]:
        """Layers, from 1, that have an exit, without the last layer."""
        return self.exit_layers[:-1]

    def first_layers(self, count: int) -> BertConfig:
        """The architecture of the first `count` layers and the exits after them.

        Raises:
          UserError: there is no exit after layer `count`.
        """
        kept = tuple(layer for layer in self.exit_layers if layer <= count)
        return dataclasses.replace(self, num_layers=count, exit_layers=kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """Which backbone to start from, and the exits put on it."""

    SECTION: ClassVar[str] = "model"

    pretrained: str = "builtin:minilm"
    """`builtin:minilm`; a directory: a Hugging Face BERT, a run or its model; the name of a BERT of the Hugging Face
    Hub, such as `bert-base-uncased`, that `hf download NAME` has fetched; or `random` (then the sizes below count)."""
    first_layers: int = 0
    """Take only so many layers of `pretrained`, from the first one on; 0: all."""
    keep_exits: bool = False
    """Begin with the exits of `pretrained` too, which is a trained FastBERT with the same labels, and not with new
    ones: with fine_tune.epochs 0 it is distilled again, on other texts or in another way."""
    hidden_size: int = 128
    """random only: width of the backbone, a multiple of num_heads, 1 or more."""
    num_layers: int = 4
    """random only: layers of the backbone, 1 or more."""
    num_heads: int = 4
    """random only: attention heads of each layer, 1 or more."""
    feed_forward_size: int = 512
    """random only: width of the feed-forward part, 1 or more."""
    vocab_size: int = 8000
    """random only: tokens of the WordPiece vocabulary, 1 or more, learnt from the texts of both phases."""
    exit_kind: ExitKind = ExitKind.ATTENTION
    """`attention`, the paper's exits, or `linear`, one map from the first token to the classes, as an ablation."""
    exit_size: int = 128
    """attention only: width of every exit (the paper's 128)."""
    exit_heads: int = 2
    """attention only: attention heads of every exit (the released code's 2)."""
    dropout: float = 0.1
    """Dropout probability wherever a phase asks for dropout, in [0, 1)."""
    precision: Precision = Precision.FLOAT32
    """Precision of the arithmetic; parameters stay float32. `float32` is float32 on every device; `tensorfloat32` has
    faster matrix products of float32 numbers on GPUs (TF32) and TPUs (three passes of bfloat16)."""
    remat: bool = False
    """Compute each layer again in the backward pass instead of keeping what is inside it: less memory, more time."""
    unroll: int = 1
    """Layers that are compiled one after the other, as one turn of the loop over layers: on a CPU, all of them make a
    step of fine-tuning 10 % faster, and its compilation as many times slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_local("model.pretrained", self.pretrained)
        require_at_least(self, "model.", unroll=1, first_layers=0)
        require(0 <= self.dropout < 1, "model.dropout", "a probability in [0, 1)", self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig(Checked):
    """Turn a checkpoint of the official FastBERT, or a BERT of UER, into a model directory that gives the same answers.

    Example:

        python -m fastbert_jax.model.convert --input a.bin --vocab vocab.txt --labels bad good --output reviews

    The file is read without PyTorch, and no code in it is run.
    """

    input: str = ""
    """The checkpoint, a state dict that `torch.save` wrote."""
    vocab: str = ""
    """The vocabulary that the model was trained with: one token a line."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the model's order: the list that the package was given, or names for the script's 0, 1
    and so on; none for a backbone."""
    output: str = ""
    """Directory to make."""
    kind: CheckpointKind = CheckpointKind.AUTO
    """What the file must be."""
    num_heads: int = 0
    """Attention heads of each layer; 0: one for every 64 of the width, as in all published models."""
    max_length: int = 128
    """Longest text in tokens, 8 or more, the `seq_length` of the model; not for a backbone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input", "vocab", "output"):
            require(bool(getattr(self, name)), f"--{name}", "a path", getattr(self, name))
            require_local(name, getattr(self, name))
        require(len(set(self.labels)) == len(self.labels), "--labels", "each label once", self.labels)
        require_at_least(self, num_heads=0, max_length=8)

"""The choices that settings offer, and the values that several of them share."""

from __future__ import annotations

import enum

BATCH_TOKENS = 2048
"""Tokens in a batch of inference unless something else is asked: enough to keep a CPU's cores at their best."""
ANSWER_ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
"""Files that answers can be written to."""
COMPRESSED_ENDINGS = (".gz", ".zst")
"""What may follow the ending of a text file: gzip and zstd."""


class BadRow(enum.Enum):
    """What happens when a row of data cannot be read."""

    STOP = "stop"
    SKIP = "skip"


class Delimiter(enum.Enum):
    """The character between the columns of a .csv file; `auto` goes by the file's first lines."""

    AUTO = "auto"
    COMMA = "comma"
    SEMICOLON = "semicolon"
    TAB = "tab"
    PIPE = "pipe"


class Precision(enum.Enum):
    """The dtype of the model's arithmetic; parameters are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class LayerNormKind(enum.Enum):
    """How a backbone normalises its hidden states.

    `standard` is BERT's, (x - mean) / sqrt(variance + eps). `unbiased` is UER's, on which the official FastBERT stands:
    (x - mean) / (deviation + eps), the deviation being that of a sample, whose squares are divided by their number - 1.
    """

    STANDARD = "standard"
    UNBIASED = "unbiased"


class TextForm(enum.Enum):
    """How the tokens of a text are framed, and where one that is too long is cut.

    `bert` is [CLS] a [SEP], or [CLS] a [SEP] b [SEP]; a pair loses the end of its longer text. `official` is that of
    the official FastBERT: a single text has no [SEP], and what is too long loses its end, of a pair the last [SEP]
    first.
    """

    BERT = "bert"
    OFFICIAL = "official"


class ExitKind(enum.Enum):
    """What an exit is made of.

    `attention` is the paper's: a map to a narrow width, self-attention there, two more maps. `linear` is one map from
    the first token to the classes, the least that an exit can be.
    """

    ATTENTION = "attention"
    LINEAR = "linear"


class CheckpointKind(enum.Enum):
    """Which program wrote a checkpoint.

    `package` is the PyPI package `fastbert`, `script` the `run_fastbert.py` of the official repository; `backbone` is a
    BERT of UER without exits. `auto` goes by the names in the file.
    """

    AUTO = "auto"
    PACKAGE = "package"
    SCRIPT = "script"
    BACKBONE = "backbone"


class KLDirection(enum.Enum):
    """Which of the two KL divergences teaches the students.

    `STUDENT_TEACHER` is KL(student || teacher), equation 5 of the paper; `TEACHER_STUDENT` is
    KL(teacher || student), what the released code computes (`nn.KLDivLoss(log student, teacher)`).
    """

    STUDENT_TEACHER = "student-teacher"
    TEACHER_STUDENT = "teacher-student"


class LogTarget(enum.Enum):
    """Where a run's numbers go beside `metrics.jsonl`: TensorBoard's event files, Weights & Biases, MLflow."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class Ablation(enum.Enum):
    """A variant of FastBERT that lacks one part, or has it otherwise.

    `joint` has no self-distillation: labels train all exits. `kl` has the other KL direction, `noisy-teacher` dropout
    in the backbone and the teacher. `narrow-exits` have less width, `linear-exits` one map alone.
    """

    JOINT = "joint"
    KL = "kl"
    NOISY_TEACHER = "noisy-teacher"
    NARROW_EXITS = "narrow-exits"
    LINEAR_EXITS = "linear-exits"


class Mode(enum.Enum):
    """How inference leaves early, with one answer.

    `masked` runs all layers on a static shape; `bucketed` skips layers, batch by batch; `cascade` skips them and keeps
    its batches full; `graph-cascade` is the same as one compiled loop, without a word from the host. `auto` picks one
    by the size of the input and by what it measures.
    """

    AUTO = "auto"
    MASKED = "masked"
    BUCKETED = "bucketed"
    CASCADE = "cascade"
    GRAPH_CASCADE = "graph-cascade"


class PolicyName(enum.Enum):
    """How the uncertainty of an exit's answer is told; a text leaves when it is below `speed`.

    `entropy` is the paper's: entropy / log N. `top-entropy` is that of the few most probable classes, for many classes.
    `max-probability` is 1 - the largest probability, `margin` 1 - the lead of the largest over the second. `patience`
    (PABEE) is 0 when enough exits in a row gave one label, else 1: any speed above 0 is the same.
    """

    ENTROPY = "entropy"
    TOP_ENTROPY = "top-entropy"
    MAX_PROBABILITY = "max-probability"
    MARGIN = "margin"
    PATIENCE = "patience"

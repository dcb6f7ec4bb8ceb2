"""The choices that settings offer, and the values that several of them share."""

from __future__ import annotations

import enum

BATCH_TOKENS = 2048
"""Default number of tokens in a batch of inference: enough to keep the cores of a CPU busy."""
ANSWER_ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
"""Files that answers can be written to."""
COMPRESSED_ENDINGS = (".gz", ".zst")
"""What may follow the ending of a text file: gzip and zstd."""


class BadRow(enum.Enum):
    """What happens at a row of data that cannot be read."""

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

    `standard` is BERT's, (x - mean) / sqrt(variance + eps). `unbiased` is UER's, which the official FastBERT uses:
    (x - mean) / (deviation + eps), with the sample deviation: the sum of squares is divided by their number - 1.
    """

    STANDARD = "standard"
    UNBIASED = "unbiased"


class TextForm(enum.Enum):
    """How the tokens of a text are framed, and where one that is too long is cut.

    `bert` is [CLS] a [SEP], or [CLS] a [SEP] b [SEP]; a pair loses the end of its longer text. `official` is that of
    the official FastBERT: a single text has no [SEP], and the end of what is too long is cut, in a pair the last [SEP]
    first.
    """

    BERT = "bert"
    OFFICIAL = "official"


class ExitKind(enum.Enum):
    """The layers of an exit.

    `attention` is the paper's: a map to a narrow width, self-attention there, two more maps. `linear` is one map from
    the first token to the classes, the smallest possible exit.
    """

    ATTENTION = "attention"
    LINEAR = "linear"


class CheckpointKind(enum.Enum):
    """The program that wrote a checkpoint.

    `package` is the PyPI package `fastbert`, `script` the `run_fastbert.py` of the official repository; `backbone` is a
    BERT of UER without exits. `auto` goes by the names in the file.
    """

    AUTO = "auto"
    PACKAGE = "package"
    SCRIPT = "script"
    BACKBONE = "backbone"


class KLDirection(enum.Enum):
    """Which of the two KL divergences is the loss of the students.

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


class Mode(enum.Enum):
    """How early exit is run; all engines give the same labels.

    `masked` runs all layers on a static shape; `bucketed` skips layers, batch by batch; `cascade` skips them and keeps
    its batches full; `graph-cascade` does the same in one compiled loop, without the host. `auto` picks one of them.
    """

    AUTO = "auto"
    MASKED = "masked"
    BUCKETED = "bucketed"
    CASCADE = "cascade"
    GRAPH_CASCADE = "graph-cascade"


class PolicyName(enum.Enum):
    """The measure of the uncertainty of an exit's answer; a text exits when it is below `speed`.

    `entropy` is the paper's: entropy / log N. `top-entropy` is that of the few most probable classes, for many classes.
    `max-probability` is 1 - the largest probability, `margin` 1 - the lead of the largest over the second. `patience`
    (PABEE) is 0 when enough exits in a row gave one label, else 1: any speed above 0 is the same.
    """

    ENTROPY = "entropy"
    TOP_ENTROPY = "top-entropy"
    MAX_PROBABILITY = "max-probability"
    MARGIN = "margin"
    PATIENCE = "patience"

"""What settings share: the choices that they offer, checks, quiet and JSON output, devices and processes."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import re
import typing
from typing import Annotated, Any, ClassVar, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

from fastbert_jax.errors import UserError, nearest

ANSWER_ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
"""Files that answers can be written to."""
COMPRESSED_ENDINGS = (".gz", ".zst")
"""What may follow the ending of a text file: gzip and zstd."""
AUTO_ENCODING = "auto"
"""UTF-8, or UTF-16 and UTF-32 where a text file begins with their mark."""


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
    """The precision of the model's arithmetic; parameters that train are always float32.

    `float32` is float32 on every device. `tensorfloat32` is float32 whose matrix products round their inputs where the
    device is faster for it: to TF32 on an NVIDIA GPU, to a sum of bfloat16 numbers in three passes on a TPU; a CPU
    computes as in float32. `bfloat16` computes in bfloat16, with sums, norms, softmax and logits in float32.
    """

    FLOAT32 = "float32"
    TENSORFLOAT32 = "tensorfloat32"
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


class Probabilities(enum.Enum):
    """Whether an answer is written with the probabilities of the labels."""

    ALL = "all"
    NONE = "none"


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


def require(condition: bool, key: str, expected: str, found: object) -> None:
    """Raise `UserError` unless a setting has a value that is expected.

    Args:
      key: the setting's name, which is spelled as on the command line: `data.max_length` becomes `--data.max-length`;
        a name with other characters, as of a part of a model, stays as it is.
    """
    if not condition:
        raise UserError(f"{as_option(key)}: expected {expected}, found {found!r}")


def require_local(key: str, *places: str) -> None:
    """Raise `UserError` for a place that is no local path; texts alone are read behind a `scheme://`."""
    expected = "a local path (`gcloud storage cp -r` or `aws s3 cp --recursive` copies to and from a bucket)"
    for place in places:
        require("://" not in place and "\0" not in place, key, expected, place)


def as_option(key: str) -> str:
    """The name of a setting as it is typed on the command line."""
    return f"--{key.replace('_', '-')}" if re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key) else key


def require_at_least(config: object, section: str = "", **least: float) -> None:
    """Raise `UserError` unless each of these settings of `config` is as large as said here, or larger.

    Args:
      section: what the names of the options begin with, such as `data.`.
    """
    for key, number in least.items():
        require(getattr(config, key) >= number, section + key, f"{number} or more", getattr(config, key))


JsonFile = Annotated[
    str,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[FILE]",
        instance_from_str=lambda words: words[0] if words else "-",
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    ),
]
"""A file, or `-` for standard output, which the option's name alone means too."""


ColumnNames = Annotated[
    tuple[str, ...] | str,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME [NAME ...]]",
        instance_from_str=tuple,
        is_instance=lambda value: isinstance(value, tuple | str),
        str_from_instance=list,
    ),
]
"""Names of columns; a text is one name."""


Choice = TypeVar("Choice", bound=enum.Enum)


def choice_of(kind: type[Choice], value: object, key: str) -> Choice:
    """The member of an enum that is given, or whose value is.

    Raises:
      UserError: there is none, with the nearest one; `key` names the setting.
    """
    if isinstance(value, kind):
        return value
    names = [member.value for member in kind]
    if value in names:
        return kind(value)
    raise UserError(f"{as_option(key)}: expected one of {names}, found {value!r}; {nearest(str(value), names)}")


@functools.cache
def choices_of(schema: type) -> dict[str, tuple[type[enum.Enum], bool]]:
    """The settings of a class that are choices, and whether each may be several."""
    found = {}
    for key, hint in typing.get_type_hints(schema).items():
        kind = next(iter(typing.get_args(hint)), hint)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            found[key] = kind, kind is not hint
    return found


class Checked:
    """Settings that check themselves. Calls of `super` reach the checks of all classes that are combined."""

    SECTION: ClassVar[str] = ""
    """The key under which other settings hold these."""

    def __post_init__(self) -> None:
        """Take the name of a choice, such as `"cascade"`, for the choice.

        Raises:
          UserError: an unknown choice; in subclasses, also a value out of its range.
        """
        schema: Any = type(self)
        for key, (kind, are_several) in choices_of(schema).items():
            value, option = getattr(self, key), f"{self.SECTION}{'.' if self.SECTION else ''}{key}"
            given = value if are_several and isinstance(value, tuple | list) else (value,)
            chosen = tuple(choice_of(kind, one, option) for one in given)
            object.__setattr__(self, key, chosen if are_several else chosen[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuietCommand(Checked):
    """A command that can print less."""

    quiet: bool = False
    """Print only the result and errors: no progress, no notes, no next step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig(Checked):
    """How many texts inference takes at once."""

    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = 0
    """Tokens per batch, padding included: short texts share large batches. 0: 2048 on a CPU, 32768 on a GPU or TPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, batch_size=0, batch_tokens=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices of all processes are arranged; one of the three may be -1: all that are left."""

    data: int = -1
    """Devices, or groups of them, that hold the parameters and share the texts of each batch: 1 or more, or -1."""
    fsdp: int = 1
    """Devices that share the parameters and the optimizer state, and in training each batch too: 1 or more, or -1."""
    tensor: int = 1
    """Devices that share the heads and the feed-forward width of each layer: 1 or more, or -1."""

    def __post_init__(self) -> None:
        for axis, size in dataclasses.asdict(self).items():
            require(size >= 1 or size == -1, f"mesh.{axis}", "1 or more, or -1", size)
        sizes = (self.data, self.fsdp, self.tensor)
        require(sizes.count(-1) <= 1, "--mesh.data, --mesh.fsdp, --mesh.tensor", "-1 for one of them at most", sizes)

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The sizes of the axes on so many devices.

        Raises:
          UserError: their product is not the number of devices.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(devices // known if size == -1 else size for size in sizes)
        if math.prod(resolved) != devices:
            raise UserError(
                f"mesh: expected data x fsdp x tensor = {devices}, the number of devices, found "
                f"{' x '.join(map(str, sizes))}; set one of them to -1 to use all devices that are left"
            )
        return resolved[0], resolved[1], resolved[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """The processes that train together; each runs the same command. TPU pods, Slurm, Kubernetes and Open MPI set
    these by themselves."""

    coordinator: str = ""
    """HOST:PORT of process 0; empty: as the launcher sets it, else this process is alone."""
    count: int = 0
    """How many processes there are; 0: as the launcher sets it."""
    index: int = -1
    """Which of them this is, from 0; -1: as the launcher sets it."""
    wait_seconds: int = 300
    """Seconds, 1 or more, that a process waits for the others at the start."""
    heartbeat_seconds: int = 100
    """After so many seconds of silence, 1 or more, a process counts as dead, and the others end."""

    def __post_init__(self) -> None:
        given = (bool(self.coordinator), self.count > 0, self.index >= 0)
        options = "--processes.coordinator, --processes.count, --processes.index"
        found = (self.coordinator, self.count, self.index)
        require(len(set(given)) == 1, options, "all three or none of them", found)
        address = re.fullmatch(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})", self.coordinator)
        is_address = address is not None and 0 < int(address[1]) < 2**16
        expected = "HOST:PORT of process 0, such as node-0:8482, or [ADDRESS]:PORT for IPv6"
        require(not self.coordinator or is_address, "processes.coordinator", expected, self.coordinator)
        require(self.count == 0 or self.index < self.count, "processes.index", f"below {self.count}", self.index)
        require_at_least(self, "processes.", wait_seconds=1, heartbeat_seconds=1)

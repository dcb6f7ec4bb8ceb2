"""Every setting, declared once: frozen dataclasses that check their values.

The line below a key is its meaning, which `tyro` shows as the command line's help. Nothing in this file needs jax.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Annotated, ClassVar

import tyro

from fastbert_jax.errors import UserError

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


class Precision(enum.Enum):
    """The dtype of the model's arithmetic; parameters are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class KLDirection(enum.Enum):
    """Which of the two KL divergences teaches the students.

    `STUDENT_TEACHER` is KL(student || teacher), equation 5 of the paper; `TEACHER_STUDENT` is
    KL(teacher || student), what the released code computes (`nn.KLDivLoss(log student, teacher)`).
    """

    STUDENT_TEACHER = "student-teacher"
    TEACHER_STUDENT = "teacher-student"


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


def _require(condition: bool, key: str, expected: str, found: object) -> None:
    if not condition:
        raise UserError(f"{key}: expected {expected}, found {found!r}")


def _require_batches(batch_size: int, batch_tokens: int) -> None:
    _require(batch_size >= 0, "batch_size", "1 or more, or 0 to go by batch_tokens", batch_size)
    _require(batch_tokens >= 1, "batch_tokens", "1 or more", batch_tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The architecture of one FastBERT: a BERT backbone and an exit after each layer."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int
    max_positions: int = 512
    token_types: int = 2
    activation: str = "gelu"
    """`gelu` (erf), `gelu_tanh` or `relu`."""
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    num_classes: int = 2
    exit_size: int = 128
    """Width of every exit (the paper's 128)."""
    exit_heads: int = 2
    """Attention heads of every exit (the released code's 2)."""

    def __post_init__(self) -> None:
        for field in ("vocab_size", "hidden_size", "num_layers", "num_heads", "feed_forward_size", "max_positions"):
            _require(getattr(self, field) >= 1, f"model {field}", "1 or more", getattr(self, field))
        _require(
            self.hidden_size % self.num_heads == 0,
            "model hidden_size",
            f"a multiple of num_heads = {self.num_heads}",
            self.hidden_size,
        )
        _require(
            self.exit_size % self.exit_heads == 0,
            "model exit_size",
            f"a multiple of exit_heads = {self.exit_heads}",
            self.exit_size,
        )
        _require(
            self.activation in ("gelu", "gelu_tanh", "relu"),
            "model activation",
            "one of 'gelu', 'gelu_tanh', 'relu'",
            self.activation,
        )
        _require(self.num_classes >= 2, "number of classes", "2 or more", self.num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the texts come from and how they are cut.

    A SPEC is `builtin:NAME`, `tfds:NAME`, or a .tsv, .csv, .jsonl, .parquet or .arrayrecord file, the text ones as they
    are or compressed (`train.csv.gz`, `train.jsonl.zst`), local or behind a `scheme://` that fsspec knows; `#SPLIT`
    after a builtin or tfds name picks a split (`tfds:glue/sst2#validation`).
    """

    train: str = ""
    """SPEC of the labelled training texts."""
    dev: str = ""
    """SPEC of the texts that choose the best step; empty: the set's own dev split, else cut from train."""
    test: str = ""
    """SPEC of the texts of the last measurement; empty: the set's own labelled test split, else dev."""
    unlabelled: str = ""
    """SPEC of texts to distil on, labels ignored; empty: the training texts. `prepared:DIR` is a corpus that
    `python -m fastbert_jax.text.prepare` made, read from disk; `stream:FILES`, a name or a pattern in quotes, is read
    and tokenised on the way, over and over until distil.steps are done."""
    shuffle_window: int = 65_536
    """stream: only: texts that are held, put in order and batched at a time."""
    text_column: str = ""
    """Column of the text; empty: found by its name."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""
    label_column: str = ""
    """Column of the label; empty: found by its name."""
    labels: tuple[str, ...] = ()
    """Labels in their order; empty: the data set's own order, else sorted."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` and count it."""
    dev_fraction: float = 0.1
    """Share of train cut off as dev when there is none, in (0, 0.5]."""
    max_length: int = 128
    """Longest text in tokens, [CLS] and [SEP] included; longer ones are cut and counted."""
    length_buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    """Static lengths that texts are padded to; those over max_length are not used."""

    def __post_init__(self) -> None:
        _require(0 < self.dev_fraction <= 0.5, "data.dev_fraction", "a share in (0, 0.5]", self.dev_fraction)
        _require(self.max_length >= 8, "data.max_length", "8 tokens or more", self.max_length)
        _require(self.shuffle_window >= 1, "data.shuffle_window", "1 text or more", self.shuffle_window)
        buckets = self.length_buckets
        _require(
            len(buckets) > 0 and all(b >= 4 for b in buckets) and list(buckets) == sorted(set(buckets)),
            "data.length_buckets",
            "rising lengths of 4 or more",
            buckets,
        )
        _require(len(set(self.labels)) == len(self.labels), "data.labels", "each label once", self.labels)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The static lengths in use: the buckets below max_length, then max_length itself."""
        return (*(b for b in self.length_buckets if b < self.max_length), self.max_length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which backbone to start from, and the exits put on it."""

    pretrained: str = "builtin:minilm"
    """`builtin:minilm`, a Hugging Face BERT directory, or `random` (then the sizes below count)."""
    hidden_size: int = 128
    """random only: width of the backbone."""
    num_layers: int = 4
    """random only: layers of the backbone."""
    num_heads: int = 4
    """random only: attention heads of each layer."""
    feed_forward_size: int = 512
    """random only: width of the feed-forward part."""
    vocab_size: int = 8000
    """random only: size of the WordPiece vocabulary, learnt from the texts of both phases."""
    exit_size: int = 128
    """Width of every exit (the paper's 128)."""
    exit_heads: int = 2
    """Attention heads of every exit (the released code's 2)."""
    dropout: float = 0.1
    """Dropout probability wherever a phase asks for dropout, in [0, 1)."""
    precision: Precision = Precision.FLOAT32
    """dtype of the arithmetic; parameters stay float32."""
    remat: bool = False
    """Compute each layer again in the backward pass instead of keeping what is inside it: less memory, more time."""
    unroll: int = 1
    """Layers that are compiled one after the other, as one turn of the loop over layers: on a CPU, all of them make a
    step of fine-tuning 10 % faster, and its compilation as many times slower."""

    def __post_init__(self) -> None:
        _require(self.unroll >= 1, "model.unroll", "1 or more", self.unroll)
        _require(0 <= self.dropout < 1, "model.dropout", "a probability in [0, 1)", self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """The settings of one training phase: its length, its batches and its optimizer."""

    epochs: int = 3
    """Passes over the phase's texts."""
    batch_size: int = 32
    """Texts per optimizer step."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; divides batch_size."""
    learning_rate: float = 2e-5
    """Peak of the schedule: linear warm-up to it, then linear decay to 0 over the phase's own steps."""
    warmup: float = 0.1
    """Share of the phase's steps spent warming up, in [0, 1)."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and norms are never decayed."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 turns clipping off."""
    evaluations_per_epoch: int = 1
    """How often per epoch the dev set is measured and a checkpoint is saved."""

    SECTION: ClassVar[str] = "phase"
    """The key under which a run's settings hold this phase."""

    def __post_init__(self) -> None:
        def require(holds: bool, key: str, expected: str) -> None:
            _require(holds, f"{self.SECTION}.{key}", expected, getattr(self, key))

        require(self.epochs >= 0, "epochs", "0 or more")
        require(self.batch_size >= 1, "batch_size", "1 or more")
        require(
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            "accumulate",
            f"a divisor of batch_size = {self.batch_size}",
        )
        require(self.learning_rate > 0, "learning_rate", "a positive number")
        require(0 <= self.warmup < 1, "warmup", "a share in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", "0 or more")
        require(self.clip_norm >= 0, "clip_norm", "0 or more")
        require(self.evaluations_per_epoch >= 1, "evaluations_per_epoch", "1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneConfig(PhaseConfig):
    """The settings of fine-tuning: labels train the backbone and the teacher."""

    SECTION: ClassVar[str] = "fine_tune"

    teacher_rate: float = 1.0
    """Learning rate of the teacher over the backbone's; above 1 spares a pretrained backbone while the new teacher
    finds its feet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.teacher_rate > 0, "fine_tune.teacher_rate", "a positive number", self.teacher_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilConfig(PhaseConfig):
    """The settings of self-distillation: what the teacher teaches the students, and how."""

    SECTION: ClassVar[str] = "distil"

    epochs: int = 5
    learning_rate: float = 2e-4
    kl: KLDirection = KLDirection.STUDENT_TEACHER
    """Which KL: `student-teacher` is the paper's equation 5, `teacher-student` the released code's."""
    noisy_teacher: bool = False
    """Leave dropout on in the backbone and the teacher, as the released code does."""
    steps: int = 0
    """Length of the phase in steps, whatever its texts; 0: by epochs. stream: needs it."""
    pack: bool = False
    """Put several texts into each row of data.max_length tokens, so that hardly any token is padding and every batch
    has one shape; batch_size then counts rows."""
    texts_per_row: int = 0
    """pack only: the most texts in a row; 0: the smallest power of two that costs no more than 1 % of rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.steps >= 0, "distil.steps", "1 or more, or 0 to go by epochs", self.steps)
        _require(self.texts_per_row >= 0, "distil.texts_per_row", "1 or more, or 0 to choose it", self.texts_per_row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitConfig:
    """Which exits are asked, and how sure their answers are."""

    policy: PolicyName = PolicyName.ENTROPY
    """How uncertainty is told: `entropy` is the paper's, `top-entropy` suits many classes."""
    top: int = 5
    """top-entropy only: how many of the most probable classes count."""
    patience: int = 2
    """patience only: a text leaves when so many exits agree with the one before them."""
    layers: tuple[int, ...] = ()
    """Layers whose exits are asked, from 1; empty: see `every`. The last layer's always is."""
    every: int = 1
    """Ask every so many layers; 1 asks all."""

    def __post_init__(self) -> None:
        _require(self.top >= 2, "exits.top", "2 classes or more", self.top)
        _require(self.patience >= 1, "exits.patience", "1 or more", self.patience)
        _require(all(layer >= 1 for layer in self.layers), "exits.layers", "layers from 1", self.layers)
        _require(self.every >= 1, "exits.every", "1 or more", self.every)
        _require(not self.layers or self.every == 1, "exits.every", "1 where exits.layers are given", self.every)

    def asked(self, num_layers: int) -> tuple[bool, ...]:
        """For each layer, whether its exit is asked.

        Raises:
          UserError: a layer that a model of `num_layers` has not.
        """
        _require(max(self.layers, default=1) <= num_layers, "exits.layers", f"layers up to {num_layers}", self.layers)
        chosen = self.layers or range(self.every, num_layers + 1, self.every)
        return tuple(layer in chosen or layer == num_layers for layer in range(1, num_layers + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What the table at the end of a run measures."""

    speeds: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8)
    """Uncertainty thresholds to measure, in [0, 1]; full depth (0) is always measured."""
    modes: tuple[Mode, ...] = (Mode.MASKED, Mode.BUCKETED, Mode.CASCADE)
    """Engines to measure."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, padding included: short texts share large batches."""
    batch_sizes: tuple[int, ...] = ()
    """Several sizes of batches to compare, such as 1 8 32 128, each with its own full depth; empty: `batch_size`."""
    repeats: int = 3
    """Interleaved repetitions of every measurement, every second one backwards; the median is shown."""
    baseline: bool = True
    """Add the row of a TF-IDF + linear SVM trained on the same texts."""

    def __post_init__(self) -> None:
        _require(all(0 <= s <= 1 for s in self.speeds), "speeds", "thresholds in [0, 1]", self.speeds)
        _require_batches(self.batch_size, self.batch_tokens)
        sizes = self.batch_sizes
        _require(all(size >= 0 for size in sizes), "batch_sizes", "1 or more, or 0 to go by batch_tokens", sizes)
        _require(len(set(sizes)) == len(sizes), "batch_sizes", "each size once", sizes)
        _require(not sizes or self.batch_size == 0, "batch_size", "0 where batch_sizes are given", self.batch_size)
        _require(self.repeats >= 1, "repeats", "1 or more", self.repeats)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of batches to measure, 0 for as many texts as `batch_tokens` holds."""
        return self.batch_sizes or (self.batch_size,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices of all processes are laid out; one of the three may be -1: all that are left."""

    data: int = -1
    """Devices that share each batch."""
    fsdp: int = 1
    """Devices that share each batch, and the parameters and optimizer state too."""
    tensor: int = 1
    """Devices that share the heads and the feed-forward width of each layer."""

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        _require(all(size >= 1 or size == -1 for size in sizes), "mesh", "sizes of 1 or more, or -1", sizes)
        _require(sizes.count(-1) <= 1, "mesh", "-1 for one axis at most", sizes)

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The sizes of the axes on so many devices.

        Raises:
          UserError: they do not make up the number of devices.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(devices // known if size == -1 else size for size in sizes)
        if math.prod(resolved) != devices:
            raise UserError(
                f"mesh: expected data x fsdp x tensor = {devices}, the number of devices, found "
                f"{' x '.join(map(str, sizes))}; set one of them to -1 to take what is left"
            )
        return resolved[0], resolved[1], resolved[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """The processes that train together; each runs the same command. TPU pods, Slurm, Kubernetes and Open MPI tell."""

    coordinator: str = ""
    """HOST:PORT where process 0 can be reached; empty: as the launcher tells, else this process is alone."""
    count: int = 0
    """How many processes there are; 0: as the launcher tells."""
    index: int = -1
    """Which of them this is, from 0; -1: as the launcher tells."""
    heartbeat_seconds: int = 100
    """A process that is silent for so long is taken for dead, and the others end."""

    def __post_init__(self) -> None:
        given = (bool(self.coordinator), self.count > 0, self.index >= 0)
        expected = "coordinator, count and index together, or none of them"
        _require(len(set(given)) == 1, "processes", expected, (self.coordinator, self.count, self.index))
        _require(self.count == 0 or self.index < self.count, "processes.index", f"below {self.count}", self.index)
        _require(self.heartbeat_seconds >= 1, "processes.heartbeat_seconds", "1 or more", self.heartbeat_seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a run is saved and what stays; a run also saves at every measurement of dev and on SIGTERM."""

    every: int = 0
    """Steps between saves; 0: only at the measurements."""
    keep: int = 2
    """How many of the newest stay, beside the best."""

    def __post_init__(self) -> None:
        _require(self.every >= 0, "checkpoints.every", "0 or more", self.every)
        _require(self.keep >= 1, "checkpoints.keep", "1 or more", self.keep)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: fine-tune, self-distil, evaluate."""

    run: str = "runs/default"
    """Directory of the run. The same command again resumes it."""
    seed: int = 0
    """Seed of every random number: initial exits, order of texts, dropout."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    distil: DistilConfig = DistilConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    mesh: MeshConfig = MeshConfig()
    processes: ProcessesConfig = ProcessesConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Classify texts: one answer per text, in the order of the texts.

    Example: python infer.py predict --model runs/demo --input texts.txt --output answers.jsonl

    Many files, by as many processes as run this same command:
    python infer.py predict --model runs/demo --input 'texts/*.jsonl.gz' --output 'answers/{}.jsonl.zst' --resume
    """

    model: str
    """Directory of a run, or of its model."""
    input: tuple[str, ...] = ("-",)
    """A .txt (one text a line), .tsv, .csv, .jsonl or .parquet file, the text ones also as .gz or .zst, any SPEC of
    train.py, or `-`: lines of stdin. Also several files, or a pattern in quotes, such as `'texts/*.jsonl.gz'`."""
    output: str = "-"
    """A .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file, which appears whole when all is done; or
    `-`: JSON lines on stdout. For several inputs, a name with `{}`, which each input's own replaces."""
    resume: bool = False
    """Go on after what a stopped process has left in OUTPUT.partial, and leave out outputs that are whole."""
    process_count: int = 0
    """How many processes run this command, each for its share of the inputs; 0: as Slurm or Open MPI tell, else 1."""
    process_index: int = -1
    """Which of them this is, from 0; -1: as Slurm or Open MPI tell, else 0."""
    speed: float = 0.5
    """Uncertainty below which a text leaves, in [0, 1]: higher is faster, 0 is plain BERT."""
    target: str = ""
    """Thresholds that `infer.py calibrate` found, such as `max-drop=0.5`, instead of speed and exits."""
    mode: Mode = Mode.AUTO
    """`auto` picks by the size of the input and by what it measures, and says so; `cascade` and `graph-cascade` skip
    the layers that are not needed and keep batches full; `bucketed` skips them batch by batch; `masked` runs all of
    them. All answer the same."""
    exits: ExitConfig = ExitConfig()
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, padding included: short texts share large batches."""
    devices: int = 0
    """Devices of this process that share the texts; 0: all it has."""
    warm_up: bool = False
    """Compile every program before the first text is answered, and say how many and how long it took."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` it with an {"error": ...} line in its place."""
    text_column: str = ""
    """Column of the text; empty: found by its name."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""

    def __post_init__(self) -> None:
        _require(self.devices >= 0, "devices", "1 or more, or 0 for all", self.devices)
        _require(0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)
        _require_batches(self.batch_size, self.batch_tokens)
        _require(isinstance(self.input, tuple) and len(self.input) > 0, "input", "a tuple of one or more", self.input)
        texts = tuple(ending for ending in ANSWER_ENDINGS if ending != ".parquet")
        endings = (*ANSWER_ENDINGS, *(text + compressed for text in texts for compressed in COMPRESSED_ENDINGS))
        expected = "a .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file"
        _require(self.output == "-" or self.output.lower().endswith(endings), "output", expected, self.output)
        _require(not self.resume or self.output != "-", "resume", "a file as output, which can be gone on with", "-")
        _require(
            self.process_count >= 0, "process_count", "1 or more, or 0 to be told by the launcher", self.process_count
        )
        told = f"0 to {self.process_count - 1}, as process_count" if self.process_count else "-1 without process_count"
        known = range(self.process_count) if self.process_count else (-1,)
        _require(self.process_index in known, "process_index", told, self.process_index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Tokenise a corpus once, into checksummed shards for `train.py --data.unlabelled prepared:DIR`.

    Example: python -m fastbert_jax.text.prepare --input 'texts/*.jsonl.gz' --output corpora/texts --workers 8

    The same command again goes on after a kill, and makes shards anew that are gone or cut short. One input is one
    worker's, so many files are prepared in parallel and one huge file is not; the shards do not depend on the workers.
    """

    input: tuple[str, ...] = ()
    """.jsonl, .txt, .tsv, .csv (also as .gz or .zst), .parquet or .arrayrecord files, or patterns in quotes; local or
    behind a `scheme://` that fsspec knows."""
    output: str = ""
    """Local directory of the corpus."""
    tokenizer: str = "builtin:minilm"
    """`builtin:minilm`, or a directory with a tokenizer: a Hugging Face model, or a run's `model`."""
    max_length: int = 128
    """Longest text in tokens, [CLS] and [SEP] included; longer ones are cut and counted."""
    shard_texts: int = 131_072
    """Texts in a shard; each shard holds texts of one input."""
    workers: int = 1
    """Processes that share the inputs; 0: one for each core."""
    text_column: str = ""
    """Column of the text; empty: found by its name."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, with its file and line, or `skip` and count it."""
    verify: str = ""
    """Instead of all this, read every byte of the corpus in this directory and compare checksums."""

    def __post_init__(self) -> None:
        given = bool(self.input) + bool(self.output)
        expected = "--input and --output to prepare a corpus, or --verify alone"
        _require(given == (0 if self.verify else 2), "prepare", expected, f"{given} of them")
        _require(8 <= self.max_length < 2**16, "max_length", "8 to 65535 tokens", self.max_length)
        _require(self.shard_texts >= 1, "shard_texts", "1 or more", self.shard_texts)
        _require(self.workers >= 0, "workers", "1 or more, or 0 for one a core", self.workers)

    @property
    def reading(self) -> DataConfig:
        """The same, as the readers of texts take it."""
        return DataConfig(text_column=self.text_column, pair_column=self.pair_column, on_bad_row=self.on_bad_row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Read all checkpoints of a run and its model, and hold every value and file against its checksum.

    Ends with code 2 and the names of what has changed, 0 when nothing has.

    Example: python infer.py verify runs/demo
    """

    run: Annotated[str, tyro.conf.Positional]
    """Directory of the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """How a command reads labelled texts."""

    text_column: str = ""
    """Column of the text; empty: found by its name."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""
    label_column: str = ""
    """Column of the label; empty: found by its name."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` and count it."""

    @property
    def reading(self) -> DataConfig:
        """The same, as the readers of texts take it."""
        return DataConfig(
            text_column=self.text_column,
            pair_column=self.pair_column,
            label_column=self.label_column,
            on_bad_row=self.on_bad_row,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateConfig(LabelledTexts):
    """Find the thresholds that reach a target on a dev set, and keep them with the model for `predict --target`.

    Give one target: --max-drop, --speedup or --agreement.

    Example: python infer.py calibrate --model runs/demo --data builtin:reuters_r8#dev --max-drop 0.5
    """

    model: str
    """Directory of a run, or of its model."""
    data: str
    """SPEC of labelled texts that were not trained on; --agreement and --speedup need no labels."""
    max_drop: float | None = None
    """Lose at most so many points of accuracy against full depth, as fast as that goes."""
    speedup: float | None = None
    """Be at least so many times faster than full depth, as measured here, at the least loss."""
    agreement: float | None = None
    """Give the answer of full depth to at least this share of texts like these, in (0, 1), with `confidence`."""
    confidence: float = 0.95
    """agreement only: the probability, over the choice of the data's texts, that the promise holds."""
    per_layer: bool = False
    """max-drop only: one threshold per layer instead of one for all."""
    exits: ExitConfig = ExitConfig()
    mode: Mode = Mode.CASCADE
    """Engine that the speedup is measured on."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, padding included: short texts share large batches."""
    repeats: int = 5
    """Interleaved repetitions of every measurement; the median counts."""

    def __post_init__(self) -> None:
        given = [value for value in (self.max_drop, self.speedup, self.agreement) if value is not None]
        _require(len(given) == 1, "target", "one of --max-drop, --speedup and --agreement", f"{len(given)} of them")
        _require(self.max_drop is None or self.max_drop >= 0, "max_drop", "points, 0 or more", self.max_drop)
        _require(self.speedup is None or self.speedup >= 1, "speedup", "1 or more", self.speedup)
        _require(self.agreement is None or 0 < self.agreement < 1, "agreement", "a share in (0, 1)", self.agreement)
        _require(0 < self.confidence < 1, "confidence", "a probability in (0, 1)", self.confidence)
        _require(not self.per_layer or self.max_drop is not None, "per_layer", "--max-drop beside it", "another target")
        _require(self.repeats >= 1, "repeats", "1 or more", self.repeats)
        _require_batches(self.batch_size, self.batch_tokens)

    @property
    def target(self) -> str:
        """The target as `predict --target` names it: `max-drop=0.5`."""
        if self.max_drop is not None:
            return f"max-drop={self.max_drop:g}"
        if self.speedup is not None:
            return f"speedup={self.speedup:g}"
        return f"agreement={self.agreement:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(LabelledTexts):
    """Measure what early exit buys: accuracy, depth, FLOPs and wall-clock time of every mode at every speed.

    At your batch sizes: each has its own row of full depth, the same model without early exit, on the same batches.

    Example: python infer.py compare --model runs/demo --data builtin:reuters_r8#test --batch-sizes 1 8 32 128
    """

    model: str
    """Directory of a run, or of its model."""
    data: str
    """SPEC of labelled texts: `builtin:NAME#SPLIT`, `tfds:NAME#SPLIT`, or a .tsv, .csv, .jsonl or .parquet file."""
    speeds: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8)
    """Uncertainty thresholds to measure, in [0, 1]; full depth (0) is always measured."""
    modes: tuple[Mode, ...] = (Mode.MASKED, Mode.BUCKETED, Mode.CASCADE)
    """Engines to measure."""
    exits: ExitConfig = ExitConfig()
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, padding included: short texts share large batches."""
    batch_sizes: tuple[int, ...] = ()
    """Several sizes of batches to compare, each with its own full depth; empty: `batch_size`."""
    repeats: int = 5
    """Interleaved repetitions of every measurement, every second one backwards; the median is shown."""
    limit: int = 0
    """Measure on this many texts, spread evenly over the data; 0: all."""
    timed_texts: int = 512
    """Time this many of them, spread evenly, but no more than make 128 batches; 0: all, at every batch size."""
    baseline: str = ""
    """SPEC of labelled texts to train a TF-IDF + linear SVM on, shown as the last row; empty: no such row."""
    json: str = ""
    """File to write all numbers to, the seconds of every run included."""

    def __post_init__(self) -> None:
        _require(self.limit >= 0, "limit", "0 or more", self.limit)
        _require(self.timed_texts >= 0, "timed_texts", "0 or more", self.timed_texts)
        _ = self.evaluate  # its own checks

    @property
    def evaluate(self) -> EvaluateConfig:
        """What to measure, in the form that training uses."""
        return EvaluateConfig(
            speeds=self.speeds,
            modes=self.modes,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            batch_sizes=self.batch_sizes,
            repeats=self.repeats,
            baseline=False,
        )

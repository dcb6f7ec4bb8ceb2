"""Settings of inference: exits, and the commands of `infer.py`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from fastbert_jax.config.checks import require, require_batches
from fastbert_jax.config.choices import (
    ANSWER_ENDINGS,
    BATCH_TOKENS,
    COMPRESSED_ENDINGS,
    BadRow,
    Delimiter,
    Mode,
    PolicyName,
)
from fastbert_jax.config.data import LabelledTexts
from fastbert_jax.config.devices import MeshConfig
from fastbert_jax.config.output import JsonFile, QuietCommand


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitConfig:
    """Which exits are asked, and how sure their answers are."""

    policy: PolicyName = PolicyName.ENTROPY
    """How uncertainty is told: `entropy` is the paper's, `top-entropy` suits many classes."""
    top: int = 5
    """top-entropy only: how many of the most probable classes count, 2 or more."""
    patience: int = 2
    """patience only: a text leaves when so many exits, 1 or more, agree with the one before them."""
    layers: tuple[int, ...] = ()
    """Layers whose exits are asked, from 1; empty: see `every`. The last layer's always is."""
    every: int = 1
    """Ask every so many layers; 1 asks all."""

    def __post_init__(self) -> None:
        require(self.top >= 2, "exits.top", "2 classes or more", self.top)
        require(self.patience >= 1, "exits.patience", "1 or more", self.patience)
        require(all(layer >= 1 for layer in self.layers), "exits.layers", "layers from 1", self.layers)
        require(self.every >= 1, "exits.every", "1 or more", self.every)
        require(not self.layers or self.every == 1, "exits.every", "1 where exits.layers are given", self.every)

    def asked(self, num_layers: int) -> tuple[bool, ...]:
        """For each layer, whether its exit is asked.

        Raises:
          UserError: a layer that a model of `num_layers` has not.
        """
        require(max(self.layers, default=1) <= num_layers, "exits.layers", f"layers up to {num_layers}", self.layers)
        chosen = self.layers or range(self.every, num_layers + 1, self.every)
        return tuple(layer in chosen or layer == num_layers for layer in range(1, num_layers + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Which speeds, engines and batch sizes are measured."""

    speeds: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8)
    """Uncertainty thresholds to measure, in [0, 1]; full depth (0) is always measured."""
    modes: tuple[Mode, ...] = (Mode.MASKED, Mode.BUCKETED, Mode.CASCADE)
    """Engines to measure."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, 1 or more, padding included: short texts share large batches."""
    batch_sizes: tuple[int, ...] = ()
    """Several batch sizes to compare, such as 1 8 32 128, each with its own full depth; empty: `batch_size`."""
    repeats: int = 5
    """Interleaved repetitions of every measurement, 1 or more, every second one backwards; the median is shown."""

    def __post_init__(self) -> None:
        require(all(0 <= s <= 1 for s in self.speeds), "speeds", "thresholds in [0, 1]", self.speeds)
        require_batches(self.batch_size, self.batch_tokens)
        sizes = self.batch_sizes
        require(all(size >= 0 for size in sizes), "batch_sizes", "1 or more, or 0 to go by batch_tokens", sizes)
        require(len(set(sizes)) == len(sizes), "batch_sizes", "each size once", sizes)
        require(not sizes or self.batch_size == 0, "batch_size", "0 where batch_sizes are given", self.batch_size)
        require(self.repeats >= 1, "repeats", "1 or more", self.repeats)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes to measure, 0 for as many texts as `batch_tokens` holds."""
        return self.batch_sizes or (self.batch_size,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(MeasureConfig):
    """What the table at the end of a run measures."""

    repeats: int = 3
    """Interleaved repetitions of every measurement, 1 or more, every second one backwards; the median is shown."""
    baseline: bool = True
    """Add the row of a TF-IDF + linear SVM trained on the same texts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig(QuietCommand):
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
    `-`: JSON lines on stdout. For several inputs, a name with `{}`, which each input's own replaces; their directory is
    made."""
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
    """Tokens per batch, 1 or more, padding included: short texts share large batches."""
    devices: int = 0
    """Devices of this process that take part; 0: all it has."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    warm_up: bool = False
    """Compile every program before the first text is answered, and say how many and how long it took."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` it with an {"error": ...} line in its place."""
    text_column: str = ""
    """Column of the text; empty: found by its name, else by what stands in it."""
    pair_column: str = ""
    """Column of the second text; empty: found by its name; `none`: single texts."""
    delimiter: Delimiter = Delimiter.AUTO
    """Character between the columns of .csv files; `auto`: the one that fits the first lines."""

    def __post_init__(self) -> None:
        require(self.devices >= 0, "devices", "1 or more, or 0 for all", self.devices)
        require(0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)
        require_batches(self.batch_size, self.batch_tokens)
        require(isinstance(self.input, tuple) and len(self.input) > 0, "input", "a tuple of one or more", self.input)
        texts = tuple(ending for ending in ANSWER_ENDINGS if ending != ".parquet")
        endings = (*ANSWER_ENDINGS, *(text + compressed for text in texts for compressed in COMPRESSED_ENDINGS))
        expected = "a .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file"
        require(self.output == "-" or self.output.lower().endswith(endings), "output", expected, self.output)
        require(not self.resume or self.output != "-", "resume", "a file as output, which can be gone on with", "-")
        require(
            self.process_count >= 0, "process_count", "1 or more, or 0 to be told by the launcher", self.process_count
        )
        told = f"0 to {self.process_count - 1}, as process_count" if self.process_count else "-1 without process_count"
        known = range(self.process_count) if self.process_count else (-1,)
        require(self.process_index in known, "process_index", told, self.process_index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateConfig(LabelledTexts, QuietCommand):
    """Find the thresholds that reach a target on a dev set, and store them with the model for `predict --target`.

    Give one target: --max-drop, --speedup or --agreement.

    Example: python infer.py calibrate --model runs/demo --data builtin:reuters_r8#dev --max-drop 0.5
    """

    model: str
    """Directory of a run, or of its model."""
    data: str
    """SPEC of labelled texts that were not used for training; --agreement and --speedup need no labels."""
    max_drop: float | None = None
    """Maximum accuracy loss against full depth, in points, 0 or more; the fastest threshold within it is used."""
    speedup: float | None = None
    """Minimum measured speedup over full depth, 1 or more; the slowest threshold that reaches it is used."""
    agreement: float | None = None
    """Minimum share of texts like these that get full depth's label, in (0, 1), guaranteed with `confidence`."""
    confidence: float = 0.95
    """agreement only: the probability, in (0, 1) and over the choice of the data's texts, that the guarantee holds."""
    per_layer: bool = False
    """max-drop only: one threshold per layer instead of one for all."""
    exits: ExitConfig = ExitConfig()
    mode: Mode = Mode.CASCADE
    """Engine on which the speedup is measured."""
    batch_size: int = 0
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens per batch, 1 or more, padding included: short texts share large batches."""
    repeats: int = 5
    """Interleaved repetitions of every measurement, 1 or more; the median counts."""
    json: bool = False
    """Print the calibration as JSON, which calibration.json holds too, instead of words."""

    def __post_init__(self) -> None:
        given = [value for value in (self.max_drop, self.speedup, self.agreement) if value is not None]
        require(len(given) == 1, "target", "one of --max-drop, --speedup and --agreement", f"{len(given)} of them")
        require(self.max_drop is None or self.max_drop >= 0, "max_drop", "points, 0 or more", self.max_drop)
        require(self.speedup is None or self.speedup >= 1, "speedup", "1 or more", self.speedup)
        require(self.agreement is None or 0 < self.agreement < 1, "agreement", "a share in (0, 1)", self.agreement)
        require(0 < self.confidence < 1, "confidence", "a probability in (0, 1)", self.confidence)
        require(not self.per_layer or self.max_drop is not None, "per_layer", "--max-drop beside it", "another target")
        require(self.repeats >= 1, "repeats", "1 or more", self.repeats)
        require_batches(self.batch_size, self.batch_tokens)

    @property
    def target(self) -> str:
        """The target as `predict --target` names it: `max-drop=0.5`."""
        if self.max_drop is not None:
            return f"max-drop={self.max_drop:g}"
        if self.speedup is not None:
            return f"speedup={self.speedup:g}"
        return f"agreement={self.agreement:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(MeasureConfig, LabelledTexts, QuietCommand):
    """Measure what early exit buys: accuracy, depth, FLOPs and wall-clock time of every mode at every speed.

    Each batch size has its own row of full depth: the same model without early exit, on the same batches.

    Example: python infer.py compare --model runs/demo --data builtin:reuters_r8#test --batch-sizes 1 8 32 128

    With --output, the tables of the FastBERT paper (its Table 2, every exit alone, accuracy by uncertainty) are written
    too; --baselines adds other models, at their full depth.
    """

    model: str
    """Directory of a run, or of its model."""
    data: str
    """SPEC of labelled texts: `builtin:NAME#SPLIT`, `tfds:NAME#SPLIT`, or a .tsv, .csv, .jsonl or .parquet file."""
    exits: ExitConfig = ExitConfig()
    limit: int = 0
    """Measure on this many texts, spread evenly over the data; 0: all."""
    timed_texts: int = 512
    """Time this many of them, spread evenly, but no more than make 128 batches; 0: all, at every batch size."""
    baseline: str = ""
    """SPEC of labelled texts to train a TF-IDF + linear SVM on, shown as the last row; empty: no such row."""
    baselines: tuple[str, ...] = ()
    """Directories of other models with the same labels, each measured at its full depth."""
    output: str = ""
    """Directory to make, for comparison.json (all numbers), comparison.md (tables) and the report; empty: none."""
    json: JsonFile = ""
    """File to write all numbers to, the seconds of every run included; without a name: standard output, instead of the
    table."""
    report: str = "report.html"
    """File to write the report to, one page that opens in any browser, in --output where that is given; empty: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.limit >= 0, "limit", "0 or more", self.limit)
        require(self.timed_texts >= 0, "timed_texts", "0 or more", self.timed_texts)
        require(not self.report or self.report != self.json, "report", "another file than --json", self.report)
        require(len(set(self.baselines)) == len(self.baselines), "baselines", "each once", self.baselines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(QuietCommand):
    """Write a trained model for others: a Hugging Face BERT, its exits beside it, and a card that says what it is.

    transformers loads the backbone, `fastbert_jax.load` all of it; docs/model_format.md of fastbert_jax tells the rest.

    Example: python infer.py export --model runs/demo --output exported/demo
    """

    model: str
    """Directory of a run, or of its model."""
    output: str
    """Directory to make; its name is the model's in the card."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig(QuietCommand):
    """Read all checkpoints of a run and its model, and hold every value and file against its checksum.

    Ends with code 2 and the names of what has changed, 0 when nothing has.

    Example: python infer.py verify runs/demo
    """

    run: Annotated[str, tyro.conf.Positional]
    """Directory of the run."""

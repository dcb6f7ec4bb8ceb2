"""Settings of inference: exits, and the commands of `infer.py`."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, ClassVar

import tyro

from fastbert_jax.config.data import ReadingConfig
from fastbert_jax.config.shared import (
    ANSWER_ENDINGS,
    COMPRESSED_ENDINGS,
    BadRow,
    BatchConfig,
    Checked,
    JsonFile,
    MeshConfig,
    Mode,
    PolicyName,
    Probabilities,
    QuietCommand,
    require,
    require_at_least,
    require_local,
)
from fastbert_jax.errors import UserError

MOST_PORT = 65535
RECOMMENDED = "recommended"
"""The target of the speed that answers where none is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitConfig(Checked):
    """Which exits are used, and how the uncertainty of their answers is measured."""

    SECTION: ClassVar[str] = "exits"

    policy: PolicyName = PolicyName.ENTROPY
    """The measure of uncertainty: `entropy` is the paper's, `top-entropy` suits many classes."""
    top: int = 5
    """top-entropy only: how many of the most probable classes count, 2 or more."""
    patience: int = 2
    """patience only: a text exits when so many exits, 1 or more, agree with the one before them."""
    layers: tuple[int, ...] = ()
    """Layers whose exits are used, from 1; empty: see `every`. The last layer's always is."""
    every: int = 1
    """Use the exit of every so many layers; 1 uses all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, "exits.", top=2, patience=1, every=1)
        require(all(layer >= 1 for layer in self.layers), "exits.layers", "layers from 1", self.layers)
        require(not self.layers or self.every == 1, "exits.every", "1 with --exits.layers", self.every)

    def asked(self, num_layers: int) -> tuple[bool, ...]:
        """For each layer, whether its exit is used.

        Raises:
          UserError: a layer above `num_layers`.
        """
        require(max(self.layers, default=1) <= num_layers, "exits.layers", f"layers up to {num_layers}", self.layers)
        chosen = self.layers or range(self.every, num_layers + 1, self.every)
        return tuple(layer in chosen or layer == num_layers for layer in range(1, num_layers + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureConfig(BatchConfig):
    """Which speeds, engines and batch sizes are measured."""

    speeds: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8)
    """Uncertainty thresholds to measure, in [0, 1]; full depth (0) is always measured."""
    modes: tuple[Mode, ...] = (Mode.MASKED, Mode.BUCKETED, Mode.CASCADE)
    """Engines to measure."""
    batch_sizes: tuple[int, ...] = ()
    """Several batch sizes to compare, such as 1 8 32 128, each with its own full depth; empty: `batch_size`."""
    repeats: int = 5
    """Interleaved repetitions of every measurement, 1 or more, every second one backwards; the median is shown."""
    by: tuple[str, ...] = ()
    """Columns of the data, such as a language or a customer, by whose values the accuracy is shown too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.by)) == len(self.by), "by", "each column once", self.by)
        require(all(0 <= s <= 1 for s in self.speeds), "speeds", "thresholds in [0, 1]", self.speeds)
        sizes = self.batch_sizes
        require(all(size >= 0 for size in sizes), "batch_sizes", "1 or more, or 0 to go by batch_tokens", sizes)
        require(len(set(sizes)) == len(sizes), "batch_sizes", "each size once", sizes)
        require(not sizes or self.batch_size == 0, "batch_size", "0 where batch_sizes are given", self.batch_size)
        require_at_least(self, repeats=1)

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
    mislabelled: int = 20_000
    """Look for wrong labels in so many training texts, spread evenly over them, and in all of dev and test; 0: do not
    look."""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
            require_at_least(self, mislabelled=0)
        except UserError as error:  # names the option as the compare command has it
            raise UserError(f"--evaluate.{str(error).removeprefix('--')}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCommand(QuietCommand):
    """A command that runs a trained model."""

    model: str
    """Directory of a run, or of its model."""
    exits: ExitConfig = ExitConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_local("model", self.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerCommand(ModelCommand):
    """A command that answers texts with early exit."""

    speed: float | None = None
    """Uncertainty below which a text exits, in [0, 1]: higher is faster, 0 is plain BERT. None: the speed that is
    recommended for the model, 0.5 for a model without one; the command prints which."""
    target: str = ""
    """Thresholds that the `calibrate` command found, such as `max-drop=0.5`, instead of speed and exits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.speed is None or 0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig(ReadingConfig, BatchConfig, AnswerCommand):
    """Classify texts: one answer per text, in the order of the texts.

    Example:

        python infer.py predict --model runs/demo --input texts.txt --output answers.jsonl

    A line of its output (shown as three): this text exited after the first layer.

        {"row": 1, "label": "ship",
         "probabilities": {"ship": 0.97, "crude": 0.03},
         "exit_layer": 1, "uncertainty": 0.19}

    Many files, by as many processes as run this same command:

        python infer.py predict --model runs/demo --input 'texts/*.jsonl.gz' --output 'answers/{}.jsonl.zst' --resume
    """

    input: tuple[str, ...] = ("-",)
    """A .txt (one text per line), .tsv, .csv, .jsonl or .parquet file, the text ones also as .gz or .zst, any SPEC that
    training reads, or `-`: lines of stdin. Also several files, or a pattern in quotes, such as `'texts/*.jsonl.gz'`."""
    output: str = "-"
    """A .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file, which appears when it is complete; or `-`:
    JSON lines on stdout. For several inputs, a name with `{}`, which each input's own replaces."""
    keep: tuple[str, ...] = ()
    """Columns of the input, such as an id, that are written with each answer. The row's number, from 1, always is."""
    top: int = 0
    """Write the probabilities of the K most probable labels, 1 or more, in that order; 0: of all labels."""
    probabilities: Probabilities = Probabilities.ALL
    """`none` writes the label, the layer and the uncertainty alone."""
    resume: bool = False
    """Go on after what a stopped process has left in OUTPUT.partial, and leave out outputs that are complete."""
    process_count: int = 0
    """How many processes run this command, each for its share of the inputs; 0: as set by Slurm or Open MPI, else 1."""
    process_index: int = -1
    """Which of them this is, from 0; -1: as set by Slurm or Open MPI, else 0."""
    mode: Mode = Mode.AUTO
    """`auto` picks one of the others and says which; `cascade` and `graph-cascade` skip the layers that are not needed
    and keep batches full; `bucketed` skips them batch by batch; `masked` runs all of them. All give the same labels."""
    devices: int = 0
    """Number of this process's devices to use; 0: all."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    warm_up: bool = False
    """Compile every program before the first text is answered, and print how many and how long it took."""
    on_bad_row: BadRow = BadRow.STOP
    """`stop` at a row that cannot be read, or `skip` it with an {"error": ...} line in its place."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, devices=0, top=0, process_count=0)
        require(isinstance(self.input, tuple) and len(self.input) > 0, "input", "a tuple of one or more", self.input)
        require_local("output", self.output)
        texts = tuple(ending for ending in ANSWER_ENDINGS if ending != ".parquet")
        endings = (*ANSWER_ENDINGS, *(text + compressed for text in texts for compressed in COMPRESSED_ENDINGS))
        expected = "a .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file"
        require(self.output == "-" or self.output.lower().endswith(endings), "output", expected, self.output)
        require(len(set(self.keep)) == len(self.keep), "keep", "each column once", self.keep)
        is_shown = self.probabilities is Probabilities.ALL
        require(not self.top or is_shown, "top", "--probabilities all beside it", self.probabilities.value)
        require(not self.resume or self.output != "-", "resume", "a file as --output, which can be resumed", "-")
        count, index = self.process_count, self.process_index
        expected = f"0 to {count - 1} with --process-count {count}" if count else "-1 without --process-count"
        require(index in (range(count) if count else (-1,)), "process_index", expected, index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainConfig(AnswerCommand):
    """Show the answer of every layer to a text, its uncertainty, and where the text exits.

    Example:

        python infer.py explain --model runs/demo "oil prices rose sharply" --speed 0.3

    Several texts may be given, and for a model of pairs the second text of each after --pair.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """The texts, each in quotes."""
    pair: tuple[str, ...] = ()
    """The second text of each pair, as many as there are texts; empty: single texts."""
    json: bool = False
    """Print one line of JSON per text instead of the tables."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.texts) > 0, "TEXTS", "one text or more, each in quotes", self.texts)
        expected = f"{len(self.texts)} second texts, one for each text, or none"
        require(len(self.pair) in (0, len(self.texts)), "pair", expected, len(self.pair))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreConfig(ModelCommand):
    """Open a page on this machine: type a text, change the speed, see the answer of every layer. Ctrl-C ends it.

    Example:

        python infer.py explore --model runs/demo
    """

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; the page has no password."""
    port: int = 8000
    """TCP port, 1 to 65535; 0: any that is free."""
    speed: float | None = None
    """The page's first speed, in [0, 1]: the uncertainty below which a text exits. None: as for `explain`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.host), "host", "a name or an address", self.host)
        require(0 <= self.port <= MOST_PORT, "port", f"0 to {MOST_PORT}", self.port)
        require(self.speed is None or 0 <= self.speed <= 1, "speed", "a threshold in [0, 1]", self.speed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrateConfig(ReadingConfig, BatchConfig, ModelCommand):
    """Find the thresholds that reach a target on a dev set, and keep them with the model for `predict --target`.

    Give one target: --max-drop, --speedup or --agreement. Without one, the speed that is recommended for the model is
    chosen again on these texts, as training chooses it: the highest that loses at most half a point of accuracy.

    Example:

        python infer.py calibrate --model runs/demo --data builtin:reuters_r8#dev --max-drop 0.5
    """

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
    mode: Mode = Mode.CASCADE
    """Engine on which the speedup is measured."""
    repeats: int = 5
    """Interleaved repetitions of every measurement, 1 or more; the median counts."""
    json: bool = False
    """Print the calibration as JSON, which calibration.json holds too, instead of words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [value for value in (self.max_drop, self.speedup, self.agreement) if value is not None]
        require(len(given) <= 1, "target", "one of --max-drop, --speedup and --agreement", f"{len(given)} of them")
        is_default = bool(given) or self.exits == ExitConfig()
        require(is_default, "exits", "a target, such as --max-drop 0.5, with other exits than the default", self.exits)
        require(self.max_drop is None or self.max_drop >= 0, "max_drop", "points, 0 or more", self.max_drop)
        require(self.speedup is None or self.speedup >= 1, "speedup", "1 or more", self.speedup)
        require(self.agreement is None or 0 < self.agreement < 1, "agreement", "a share in (0, 1)", self.agreement)
        require(0 < self.confidence < 1, "confidence", "a probability in (0, 1)", self.confidence)
        require(not self.per_layer or self.max_drop is not None, "per_layer", "--max-drop beside it", "another target")
        require_at_least(self, repeats=1)

    @property
    def target(self) -> str:
        """The target as `predict --target` names it, such as `max-drop=0.5`, or `recommended`."""
        if self.max_drop is not None:
            return f"max-drop={self.max_drop:g}"
        if self.speedup is not None:
            return f"speedup={self.speedup:g}"
        return RECOMMENDED if self.agreement is None else f"agreement={self.agreement:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(MeasureConfig, ReadingConfig, ModelCommand):
    """Measure what early exit buys: accuracy, depth, FLOPs and wall-clock time of every mode at every speed.

    Each batch size has its own row of full depth: the same model without early exit, on the same batches.

    Example:

        python infer.py compare --model runs/demo --data builtin:reuters_r8#test --batch-sizes 1 8 32 128

    With --output, the tables of the FastBERT paper (its Table 2, every exit alone, accuracy by uncertainty) and a table
    by class are written too; --baselines adds other models, at their full depth.
    """

    data: str
    """SPEC of labelled texts: `builtin:NAME#SPLIT`, `tfds:NAME#SPLIT`, or a .tsv, .csv, .jsonl or .parquet file."""
    limit: int = 0
    """Measure on this many texts, spread evenly over the data; 0: all."""
    timed_texts: int = 512
    """Time this many of them, spread evenly, but no more than make 128 batches; 0: all, at every batch size."""
    baseline: str = ""
    """SPEC of labelled texts to train a TF-IDF + linear SVM on, shown as the last row; empty: no such row."""
    baselines: tuple[str, ...] = ()
    """Directories of other models with the same labels, each measured at its full depth."""
    output: str = ""
    """Directory to make, for comparison.json (all numbers), comparison.md (tables), curve.csv and speeds.csv (accuracy
    and speedup by speed) and the report; empty: none."""
    json: JsonFile = ""
    """File to write all numbers to, the seconds of every run included; without a name: standard output, instead of the
    table."""
    report: str = "report.html"
    """File to write the report to, one page that opens in any browser, in --output where that is given; empty: none."""
    mislabelled: str = ""
    """.csv file to write the texts to whose label the model contradicts, in --output where that is given; empty: no
    file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, limit=0, timed_texts=0)
        for key in ("output", "json", "report", "mislabelled"):
            require_local(key, getattr(self, key))
        require_local("baselines", *self.baselines)
        require(not self.report or self.report != self.json, "report", "another file than --json", self.report)
        is_own = self.mislabelled.lower().endswith(".csv") and self.mislabelled not in (self.json, self.report)
        expected = "a name that ends in .csv, other than those of --json and --report"
        require(not self.mislabelled or is_own, "mislabelled", expected, self.mislabelled)
        require(len(set(self.baselines)) == len(self.baselines), "baselines", "each once", self.baselines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(QuietCommand):
    """Write a trained model for others: a Hugging Face BERT, its exits beside it, and a model card.

    transformers loads the backbone, `fastbert_jax.load` all of it; docs/model_format.md of fastbert_jax describes it.

    Example:

        python infer.py export --model runs/demo --output exported/demo --license mit --language en
    """

    model: str
    """Directory of a run, or of its model."""
    output: str
    """Directory to make; its name is the model's in the card."""
    license: str = ""
    """Licence of the model for the card, as the Hugging Face Hub names it, such as `apache-2.0`; empty: not stated."""
    language: tuple[str, ...] = ()
    """Languages of its texts for the card, such as `en de`, or `multilingual`; empty: not stated."""
    datasets: tuple[str, ...] = ()
    """Data sets of the Hugging Face Hub that it was trained on, for the card, such as `stanfordnlp/sst2`."""

    def __post_init__(self) -> None:
        expected = "a name in lower case such as apache-2.0, mit or cc-by-4.0"
        require(re.fullmatch(r"([a-z0-9][a-z0-9.+-]*)?", self.license) is not None, "license", expected, self.license)
        are_codes = all(re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|multilingual", code) for code in self.language)
        require(are_codes, "language", "codes such as en de, or multilingual", self.language)
        are_names = all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) for name in self.datasets)
        require(are_names, "datasets", "names of the Hub such as stanfordnlp/sst2", self.datasets)
        require_local("model", self.model)
        require_local("output", self.output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig(QuietCommand):
    """Read all checkpoints of a run and its model, and compare every value and file with its checksum.

    Ends with code 2 and the names of what has changed, or with 0.

    Example:

        python infer.py verify runs/demo
    """

    run: Annotated[str, tyro.conf.Positional]
    """Directory of the run."""

    def __post_init__(self) -> None:
        require_local("RUN", self.run)

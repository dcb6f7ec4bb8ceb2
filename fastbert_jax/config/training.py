"""Settings of a run: its phases and its checkpoints."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar, Self

from fastbert_jax.config.data import DataConfig
from fastbert_jax.config.inference import EvaluateConfig
from fastbert_jax.config.model import ModelConfig
from fastbert_jax.config.shared import (
    Checked,
    KLDirection,
    LogTarget,
    MeshConfig,
    ProcessesConfig,
    require,
    require_at_least,
    require_local,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig(Checked):
    """The settings of one training phase: its length, its batches and its optimizer."""

    epochs: int = -1
    """Passes over the phase's texts, 0 or more; -1: by their number, more for few texts."""
    batch_size: int = 32
    """Texts per optimizer step, 1 or more."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; 1 or more, divides batch_size."""
    learning_rate: float = 0.0
    """Peak of the schedule: linear warm-up to it, then linear decay to 0 at the end of the phase or of decay_epochs. 0:
    by the width of the backbone, lower for wide ones."""
    warmup: float = 0.1
    """Share of the schedule's steps spent warming up, in [0, 1)."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices, 0 or more; biases and norms are never decayed."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 turns clipping off."""
    decay_epochs: int = 0
    """Epoch at the end of which the learning rate reaches 0; 0: the last one."""
    bias_correction: bool = True
    """Correct the bias of Adam's moments in the first steps; BERT's own optimizer does not."""
    evaluations_per_epoch: int = 1
    """How often per epoch the dev set is measured and a checkpoint is saved, 1 or more."""

    SECTION: ClassVar[str] = "phase"
    EPOCHS: ClassVar[dict[int, int]] = {1_000: 10, 50_000: 3, 500_000: 2}
    """Epochs of fewer texts than that; 1 for more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        section = f"{self.SECTION}."
        require_at_least(self, section, epochs=-1, batch_size=1, evaluations_per_epoch=1)
        require_at_least(self, section, weight_decay=0, clip_norm=0, decay_epochs=0)
        divides = self.accumulate >= 1 and self.batch_size % self.accumulate == 0
        require(divides, section + "accumulate", f"a divisor of batch_size = {self.batch_size}", self.accumulate)
        require(self.learning_rate >= 0, section + "learning_rate", "0 or more", self.learning_rate)
        require(0 <= self.warmup < 1, section + "warmup", "a share in [0, 1)", self.warmup)

    def chosen(self, *, texts: int, width: int) -> Self:
        """The same with the epochs and the learning rate that are left to the texts and the backbone.

        docs/explanation/defaults.md has the measurements; BERT-base gets 5e-5, as in Devlin et al. 2019, appendix A.3.

        Args:
          texts: of the phase.
          width: H of the backbone.
        """
        epochs = next((epochs for limit, epochs in self.EPOCHS.items() if texts < limit), 1)
        rate = min(5e-4, round(2e-4 * (384 / width) ** 2, 6))
        return dataclasses.replace(
            self,
            epochs=epochs if self.epochs < 0 else self.epochs,
            learning_rate=self.learning_rate or rate,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneConfig(PhaseConfig):
    """The settings of fine-tuning: labels train the backbone and the last exit."""

    SECTION: ClassVar[str] = "fine_tune"

    teacher_rate: float = 1.0
    """Learning rate of the last exit (the paper's teacher) over that of the backbone; above 1, a new exit learns before
    a pretrained backbone moves far."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.teacher_rate > 0, "fine_tune.teacher_rate", "a positive number", self.teacher_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnlabelledPhaseConfig(PhaseConfig):
    """The settings of a phase that trains on a model's answers, so that texts need no labels."""

    kl: KLDirection = KLDirection.TEACHER_STUDENT
    """Which KL: `teacher-student` is the released code's, `student-teacher` the paper's equation 5."""
    steps: int = 0
    """Length of the phase in steps; 0: by epochs. Needed for `stream:` texts, whose number is unknown."""
    pack: bool = False
    """Put several texts into each row of `--data.max-length` tokens, so that few tokens are padding and every batch has
    one shape; `batch_size` then counts rows."""
    texts_per_row: int = 0
    """pack only: the most texts in a row; 0: the smallest power of two that costs no more than 1 % of rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, f"{self.SECTION}.", steps=0, texts_per_row=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncateConfig(UnlabelledPhaseConfig):
    """The settings of truncation: the first layers of a trained model learn its answers."""

    SECTION: ClassVar[str] = "truncate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilConfig(UnlabelledPhaseConfig):
    """The settings of self-distillation: the last exit (the paper's teacher) teaches the lower exits (its students)."""

    SECTION: ClassVar[str] = "distil"
    EPOCHS: ClassVar[dict[int, int]] = {1_000: 20, 5_000: 10, 50_000: 4, 500_000: 2}

    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up to it, then linear decay to 0 at the end of the phase or of decay_epochs."""
    noisy_teacher: bool = False
    """Leave dropout on in the backbone and the last exit, as the released code does."""
    cache_teacher: bool = False
    """Keep the last exit's logits of the first epoch in the run's directory (4 bytes per class and text), so that later
    epochs run neither it nor the last layer. Not with `--distil.noisy-teacher`, nor for `stream:` texts. A run that is
    resumed cannot change it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.learning_rate > 0, "distil.learning_rate", "a positive number", self.learning_rate)
        repeats = not (self.cache_teacher and self.noisy_teacher)
        expected = "false with --distil.noisy-teacher, which changes the answers at every step"
        require(repeats, "distil.cache_teacher", expected, self.cache_teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a run is saved and what stays; a run also saves at every measurement of dev, and on SIGTERM and
    Ctrl-C."""

    every: int = 0
    """Steps between saves; 0: only at the measurements."""
    keep: int = 2
    """How many of the newest stay, 1 or more, beside the best."""

    def __post_init__(self) -> None:
        require_at_least(self, "checkpoints.", every=0, keep=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig(Checked):
    """Where a run's numbers go beside metrics.jsonl. Each target needs its package; the rest is for their own
    environment variables, such as WANDB_PROJECT and MLFLOW_TRACKING_URI."""

    SECTION: ClassVar[str] = "log"

    to: tuple[LogTarget, ...] = ()
    """Any of `tensorboard` (files in the run's directory), `wandb` and `mlflow`."""
    every: int = 1
    """Steps between those that are written there, 1 or more; measurements always are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.to)) == len(self.to), "log.to", "each target once", [target.value for target in self.to])
        require_at_least(self, "log.", every=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of every run; those of a recipe are a subclass in its module, `fastbert_jax/recipes/NAME.py`."""

    run: str = "runs/default"
    """Directory of the run. The same command again resumes it."""
    seed: int = 0
    """Seed of every random number (initial exits, order of texts, dropout), 0 or more."""
    recipe: str = "fastbert"
    """How the run trains, and which settings there are: `fastbert`; `official`, the released code's settings in place
    of those given (learning rates, epochs and batches stay); `joint`, all exits on labels at once; `truncated`, the
    first layers of a trained model on its answers; `pkd`, patient distillation of a trained model."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    processes: ProcessesConfig = dataclasses.field(default_factory=ProcessesConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    profile: str = ""
    """FIRST:LAST, such as 10:20: write a profile of these steps, both included, counted over the whole run from 1, to
    `profile` in the run's directory, which xprof opens; empty: none."""

    def __post_init__(self) -> None:
        require_local("run", self.run)
        require_at_least(self, seed=0)
        steps = self.profiled
        expected = "FIRST:LAST, two steps counted from 1, the first not after the last, such as 10:20"
        require(not self.profile or 0 < steps.start < steps.stop, "profile", expected, self.profile)

    @property
    def profiled(self) -> range:
        """The steps to profile; none where nothing is asked for."""
        found = re.fullmatch(r"(\d+):(\d+)", self.profile, re.ASCII)
        return range(int(found[1]), int(found[2]) + 1) if found else range(0)

    def chosen(self, *, train: int, unlabelled: int, width: int) -> Self:
        """The same with what its phases leave to the number of their texts and to the width of the backbone."""
        phases: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            if isinstance(phase := getattr(self, field.name), PhaseConfig):
                texts = unlabelled if isinstance(phase, UnlabelledPhaseConfig) else train
                phases[field.name] = phase.chosen(texts=texts, width=width)
        return dataclasses.replace(self, **phases)

    @property
    def resolved(self) -> Self:
        """The same with what its recipe sets, which is what a run does."""
        return self

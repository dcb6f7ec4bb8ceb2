"""Patient knowledge distillation (Sun et al. 2019): a student of fewer layers learns from several layers of a teacher.

loss = (1 - alpha) CE + alpha T^2 / N KL_T(teacher || student) + beta / (H M) sum over M pairs of |s / |s| - t / |t||^2,
where s and t are the hidden states of the first token after paired layers. The released code (intersun/
PKD-for-BERT-Model-Compression) averages over N classes, H numbers of a hidden state and M pairs, so its alpha and beta
mean the same here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import TYPE_CHECKING, ClassVar

from fastbert_jax.config import PhaseConfig, TrainConfig, require, require_local
from fastbert_jax.errors import UserError

if TYPE_CHECKING:
    from fastbert_jax.training.recipe import Recipe, World
    from fastbert_jax.training.terms import Term

STORY = (
    "A trained model of more layers was the teacher: its answers, some of its hidden states, and labels trained this."
)


class LayerMap(enum.Enum):
    """Which layers of the teacher the student's layers learn: every k-th (`skip`), or the last ones (`last`)."""

    SKIP = "skip"
    LAST = "last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PkdConfig(PhaseConfig):
    """The settings of patient distillation; the defaults are the released code's preset `kd.cls`."""

    SECTION: ClassVar[str] = "pkd"

    teacher: str = ""
    """Directory of the run that trained the teacher, or of its model."""
    layers: LayerMap = LayerMap.SKIP
    """`skip` (PKD-Skip) or `last` (PKD-Last)."""
    alpha: float = 0.7
    """Weight of the teacher's answers, in [0, 1]; that of the labels is 1 - alpha."""
    beta: float = 500.0
    """Weight of the hidden states, 0 or more."""
    temperature: float = 10.0
    """Temperature of the answers of both, above 0."""
    normalize: bool = True
    """Compare the directions of hidden states; false: the hidden states as they are."""
    epochs: int = 4
    learning_rate: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_local("pkd.teacher", self.teacher)
        require(0 <= self.alpha <= 1, "pkd.alpha", "a number in [0, 1]", self.alpha)
        require(self.beta >= 0, "pkd.beta", "0 or more", self.beta)
        require(self.temperature > 0, "pkd.temperature", "a positive number", self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(TrainConfig):
    """A run that distils `--pkd.teacher` into the first `--model.first-layers` layers of `--model.pretrained`."""

    recipe: str = "pkd"
    pkd: PkdConfig = dataclasses.field(default_factory=PkdConfig)


def layer_pairs(student: int, teacher: int, layers: LayerMap) -> list[tuple[int, int]]:
    """Which layer (from 1) of a student of so many layers learns which layer of the teacher; the last ones do not.

    Raises:
      UserError: `skip` where the teacher's layers are no multiple of the student's, or a student with more layers.
    """
    if student > teacher or (layers is LayerMap.SKIP and teacher % student):
        raise UserError(
            f"--model.first-layers: expected a divisor of the teacher's {teacher} layers, or fewer layers with "
            f"--pkd.layers last, found {student}"
        )
    first, every = (0, teacher // student) if layers is LayerMap.SKIP else (teacher - student, 1)
    return [(layer, first + layer * every) for layer in range(1, student)]


def pkd_terms(settings: PkdConfig, pairs: list[tuple[int, int]], *, num_classes: int, hidden_size: int) -> list[Term]:
    """The terms of the loss; without pairs, as for a student of one layer, that of the hidden states is left out."""
    from fastbert_jax.training import losses
    from fastbert_jax.training.terms import Ref, Term

    logits, answers = Ref("model", "logits_BxKxN"), Ref("teacher", "logits_BxKxN")
    soft = functools.partial(losses.kl_teacher_student, temperature=settings.temperature)
    terms = [
        Term("label", logits, Ref("batch", "label_BxK"), losses.cross_entropy, 1 - settings.alpha),
        Term("kl", logits, answers, soft, settings.alpha * settings.temperature**2 / num_classes),
    ]
    if pairs:
        of_student, of_teacher = (
            Ref(source, "first_LxBxKxH", tuple(layers))
            for source, layers in zip(("model", "teacher"), zip(*pairs, strict=True), strict=True)
        )
        distance = losses.directions_squared_error if settings.normalize else losses.squared_error
        weight = settings.beta / (hidden_size * len(pairs))
        terms.append(Term("hidden", of_student, of_teacher, distance, weight))
    return terms


def make(settings: Settings, world: World) -> Recipe:
    """The one phase; the student has its last exit alone."""
    from fastbert_jax.inference.loading import model_directory
    from fastbert_jax.text.tokenizer import load_tokenizer
    from fastbert_jax.training.recipe import Recipe, distillation_case, model_start, trained_start
    from fastbert_jax.training.terms import COMPUTED, Keep, Phase

    if not settings.pkd.teacher:
        raise UserError("--pkd.teacher: expected the directory of the run that trained the teacher, found none")
    directory = model_directory(settings.pkd.teacher)
    if load_tokenizer(directory).fingerprint != world.tokenizer.fingerprint:
        raise UserError(f"--pkd.teacher {directory}: expected a model with the tokenizer of --model.pretrained")
    teacher = trained_start(settings.model, directory, world)
    start = model_start(settings.model, world, lower_exits=False)
    network, whole = start.network, teacher.network
    if network.hidden_size != whole.hidden_size:
        raise UserError(
            f"--model.pretrained: expected hidden states of {whole.hidden_size} numbers, as the teacher's, found "
            f"{network.hidden_size}"
        )
    pairs = layer_pairs(network.num_layers, whole.num_layers, settings.pkd.layers)
    terms = pkd_terms(settings.pkd, pairs, num_classes=network.num_classes, hidden_size=network.hidden_size)
    cases = {COMPUTED: distillation_case(network, whole, *terms)}
    phase = Phase("pkd", cases, Keep.BEST, settings.pkd)
    return Recipe({"model": start, "teacher": teacher}, (phase,), STORY)

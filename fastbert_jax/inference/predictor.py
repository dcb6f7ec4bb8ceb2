"""The predictor: texts in, answers out, in the order of the texts."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from jax.sharding import Mesh

from fastbert_jax import stopping
from fastbert_jax.config import BertConfig, ExitConfig, Mode, Precision, ReadingConfig, choice_of
from fastbert_jax.errors import UserError, program_name
from fastbert_jax.inference.calibration import Calibration, recommended_calibration, stored_calibration
from fastbert_jax.inference.engines.auto import Auto, make_engines
from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import BatchedTexts, batch_rows, full_batch, plan_batches
from fastbert_jax.inference.policies import Policy, Uncertainty, layer_thresholds, make_policy
from fastbert_jax.inference.prediction import Prediction, Predictions
from fastbert_jax.model.network import Params
from fastbert_jax.model.networks import make_network
from fastbert_jax.model.sharding import copies_of
from fastbert_jax.model.weights import check_token_types
from fastbert_jax.text.examples import Text
from fastbert_jax.text.tokenizer import Tokenizer

DEFAULT_SPEED = 0.5
"""Of a model without a recommended one."""


def check_answers(numbers: np.ndarray) -> None:
    """Refuse answers that are none, as of weights that are finite but too large.

    Raises:
      UserError: NaN or an infinite number.
    """
    if not np.isfinite(numbers).all():
        raise UserError(
            "expected finite answers, found NaN or infinite numbers: the model's weights are too large to compute "
            "with; use another model"
        )


class WarmUp(NamedTuple):
    """What a warm-up did."""

    programs: int
    """Programs compiled."""
    seconds: float

    def __str__(self) -> str:
        return f"warm-up: {self.programs} programs in {self.seconds:.1f} s; nothing compiles after this"


class Predictor:
    """A model with its tokenizer and its labels. A backbone alone has no labels and gives `hidden_states` only.

    >>> import fastbert_jax
    >>> classifier = fastbert_jax.load("runs/demo")
    >>> classifier
    Predictor(labels=('good', 'bad'), layers=5, max_length=16)
    >>> classifier.predict(["a quite good film", "a bad actor"], speed=0.5)
    label  probability  exit_layer  uncertainty
    -----  -----------  ----------  -----------
    good         0.934           1        0.350
    bad          0.919           2        0.405
    """

    def __init__(
        self,
        params: Params,
        config: BertConfig,
        tokenizer: Tokenizer,
        *,
        labels: Sequence[str],
        max_length: int,
        length_buckets: Sequence[int],
        precision: Precision = Precision.FLOAT32,
        exits: ExitConfig | None = None,
        mesh: Mesh | None = None,
        policy: Policy | Uncertainty | None = None,
        reading: ReadingConfig | None = None,
        excluded_labels: Sequence[str] = (),
        directory: Path | None = None,
    ) -> None:
        """Put the parameters on the devices.

        Args:
          labels: one name per class, in the classes' order; empty for a backbone without exits.
          max_length: the longest text in tokens; longer ones are cut.
          length_buckets: rising static lengths, the last `max_length`.
          exits: which exits are asked, and how their uncertainty is measured; none: all of them, by entropy.
          mesh: devices of this process: those along `data` share the texts, the others the parameters; none: one.
          policy: how the uncertainty is measured instead of as `exits.policy` says; see `load`.
          reading: how the texts of training were read; none: unknown.
          excluded_labels: labels whose texts were left out of training.
          directory: of the model, where its calibrations are; none: there are none.
        """
        if labels and len(labels) != config.num_classes:
            raise UserError(f"expected {config.num_classes} labels, one per class of the model, found {len(labels)}")
        self.config = config
        self.network = make_network(config, precision=precision)
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.max_length = max_length
        self.reading = reading
        self.excluded_labels = tuple(excluded_labels)
        self.length_buckets = tuple(length_buckets)
        self.directory = directory
        self._meshes: list[Mesh | None] = [*copies_of(mesh)] if mesh else [None]
        self._of_exits: dict[ExitConfig, Predictor] = {}
        self._has_own_policy = policy is not None
        exits = exits or ExitConfig()
        self._ask(exits, make_policy(exits, policy), [params] * len(self._meshes))

    def _ask(self, exits: ExitConfig, policy: Policy, params: Sequence[Params]) -> None:
        """Use these exits, with the parameters of each copy of the model."""
        self.exits = exits
        self._runtimes = [
            Runtime(copy, self.network, exits=exits, mesh=mesh, policy=policy)
            for copy, mesh in zip(params, self._meshes, strict=True)
        ]
        self._runtime = self._runtimes[0]
        self._engines = make_engines(self._runtimes) if self.labels else {}

    @functools.cached_property
    def recommended(self) -> Calibration | None:
        """The calibration that chose the recommended speed, with its numbers; None: the model has none.

        Raises:
          UserError: the file of the model's calibrations cannot be read.
        """
        return None if self.directory is None else recommended_calibration(self.directory)

    @property
    def recommended_speed(self) -> float | None:
        """The recommended speed, if it was chosen with these exits and this measure of uncertainty; None otherwise."""
        found = self.recommended
        return found.speed if found and found.exits == self.exits and not self._has_own_policy else None

    @property
    def default_speed(self) -> float:
        """The speed where none is given: `recommended_speed`, or 0.5 where there is none."""
        return DEFAULT_SPEED if self.recommended_speed is None else self.recommended_speed

    @property
    def default_speed_note(self) -> str:
        """Which speed `default_speed` is and why, in words."""
        found, speed = self.recommended, f"speed {self.default_speed:g}"
        if found is None:
            command = f"{program_name('infer')} calibrate --model {self.directory} --data DEV"
            return f"{speed}: the model has no recommended speed; `{command}` chooses one"
        if self.recommended_speed is None:
            return (
                f"{speed}: the recommended speed {found.speed:g} holds for all exits by entropy only; for other "
                "--exits, --max-drop of `calibrate` finds thresholds"
            )
        return f"{speed}, recommended for this model: chosen on {found.texts} texts of {found.data}"

    def in_use(self, target: str, speed: float | None) -> tuple[Predictor, float | np.ndarray]:
        """The same model with the exits of a calibrated target, and its thresholds `[L]`; without one, `speed`.

        None as speed stands for `default_speed`.

        Raises:
          UserError: no calibration for the target.
        """
        if not target:
            return self, self.default_speed if speed is None else speed
        if self.directory is None:
            raise UserError("target: expected a model that fastbert_jax.load has loaded, found one without files")
        calibration = stored_calibration(self.directory, target)
        thresholds_L, exits = np.array(calibration.thresholds), calibration.exits
        if exits == self.exits and not self._has_own_policy:
            return self, thresholds_L
        if exits not in self._of_exits:
            other = self.with_new_engines()
            other._has_own_policy = False
            other._ask(exits, make_policy(exits), [runtime.params for runtime in self._runtimes])
            self._of_exits[exits] = other
        return self._of_exits[exits], thresholds_L

    def __reduce__(self) -> NoReturn:
        """Raise `UserError`: compiled programs and arrays on devices belong to one process."""
        raise UserError(
            "a Predictor cannot be pickled or copied: its programs and arrays belong to this process; send the model's "
            "directory to the other process, and call fastbert_jax.load(directory) there, once"
        )

    def __repr__(self) -> str:
        """What it answers, and how deep it is."""
        return f"Predictor(labels={self.labels}, layers={self.config.num_layers}, max_length={self.max_length})"

    @property
    def asked_exits(self) -> tuple[bool, ...]:
        """For each layer, whether its exit is asked."""
        return self._runtime.asked

    @property
    def compiled_programs(self) -> int:
        """How many programs have been compiled, whatever the data.

        Bounded by batch buckets x lengths for each mode (twice where some exits are not asked), and for `bucketed` by
        the gathers between pairs of batch buckets at each length.
        """
        return sum(runtime.compiled_programs for runtime in self._runtimes)

    @property
    def picked(self) -> str:
        """The engines that mode `auto` picked for its last input; empty before the first."""
        auto = self._engines.get(Mode.AUTO)
        picked = auto.picked if isinstance(auto, Auto) else {}
        return ", ".join(f"{mode.value} ({batches} batches)" for mode, batches in picked.items())

    def with_new_engines(self) -> Predictor:
        """The same model on the same devices, with engines that have seen no text: they adapt to those they see."""
        fresh = object.__new__(Predictor)
        fresh.__dict__ = self.__dict__ | {"_engines": make_engines(self._runtimes) if self.labels else {}}
        return fresh

    def warm_up(self, mode: str | Mode = Mode.AUTO, *, batch_size: int = 0, batch_tokens: int = 0) -> WarmUp:
        """Compile all that texts of any length may need in a mode, so that no later call waits for a compiler.

        Takes seconds to minutes, and much less where the programs are found in jax's compilation cache.

        >>> import fastbert_jax
        >>> classifier = fastbert_jax.load("runs/demo")
        >>> done = classifier.warm_up("bucketed", batch_size=1)
        >>> before = classifier.compiled_programs
        >>> answers = classifier.predict(["a bad actor"], mode="bucketed", batch_size=1)
        >>> classifier.compiled_programs - before
        0

        Raises:
          UserError: a backbone without exits, no such mode, or a setting out of its range.
        """
        self.require_exits()
        engine, before, start = self._engine(mode), self.compiled_programs, time.perf_counter()
        with stopping.stoppable():
            sizes = batch_rows(self.length_buckets, batch_size=batch_size, batch_tokens=batch_tokens)
            for length, rows in sizes.items():
                stopping.look()
                engine.warm_up(full_batch(rows, length))
        return WarmUp(self.compiled_programs - before, time.perf_counter() - start)

    def predict(
        self,
        texts: Sequence[Text],
        speed: float | None = None,
        mode: str | Mode = Mode.AUTO,
        batch_size: int = 0,
        on_batch: Callable[[int], None] | None = None,
        batch_tokens: int = 0,
        target: str = "",
    ) -> list[Prediction]:
        """Classify texts, each by the first layer that is sure enough.

        >>> import fastbert_jax
        >>> classifier = fastbert_jax.load("runs/demo")
        >>> texts = ["a quite good film", "a bad actor"]
        >>> for text, answer in zip(texts, classifier.predict(texts, speed=0.3)):
        ...     print(text, "->", answer.label, "after", answer.exit_layer, "layers")
        a quite good film -> bad after 4 layers
        a bad actor -> bad after 5 layers

        Args:
          texts: strings, or pairs of strings.
          speed: the paper's threshold on normalised entropy, in [0, 1]: a text exits when its uncertainty is below
            it. 0 is plain BERT. None: `default_speed`, the one that is recommended for the model.
          mode: `auto` picks one by the number and the length of the texts (see `picked`); `cascade` and
            `graph-cascade` skip the layers that are not needed and keep batches full; `bucketed` skips them batch by
            batch; `masked` runs them all. All give the same labels and exit layers.
          batch_size: texts per batch, at most; 0: as many as `batch_tokens` holds.
          on_batch: called after each batch with the number of its texts.
          batch_tokens: tokens per batch, padding included: short texts share large batches. 0: as many as suit the
            device, 2048 on a CPU and 32768 on a GPU or TPU.
          target: thresholds that `infer.py calibrate` found, such as `max-drop=0.5`, instead of `speed`.

        Raises:
          UserError: something other than a list of texts, a setting out of its range, or a target without thresholds.
        """
        asked, thresholds = self.in_use(target, speed)
        plan = self.plan(texts, batch_size=batch_size, batch_tokens=batch_tokens)
        return asked.predict_plan(plan, speed=thresholds, mode=mode, on_batch=on_batch)

    def predict_plan(
        self,
        plan: BatchedTexts,
        *,
        speed: float | np.ndarray,
        mode: str | Mode,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """What `predict` gives, for texts that are laid out already."""
        answers = self.answers(plan, speed=speed, mode=mode, on_batch=on_batch)
        return Predictions(
            Prediction(
                self.labels[probabilities.argmax()], probabilities, int(exit_layer), float(uncertainty), self.labels
            )
            for probabilities, exit_layer, uncertainty in zip(*answers, strict=True)
        )

    def exit_probabilities(self, texts: Sequence[Text], batch_size: int = 0) -> np.ndarray:
        """Every exit's answer: float32 `[texts, L, N]`.

        >>> import fastbert_jax
        >>> classifier = fastbert_jax.load("runs/demo")
        >>> probabilities = classifier.exit_probabilities(["a quite good film", "a bad actor"])
        >>> probabilities.shape
        (2, 5, 2)
        >>> [classifier.labels[answer] for answer in probabilities[1].argmax(-1)]
        ['bad', 'bad', 'bad', 'bad', 'bad']
        """
        return self.all_exits(self.plan(texts, batch_size=batch_size))[0]

    @stopping.stoppable()
    def hidden_states(self, texts: Sequence[Text], batch_size: int = 0) -> list[np.ndarray]:
        """The hidden states of each text, float32 `[L + 1, tokens, H]`: the embeddings, then every layer's output.

        >>> import fastbert_jax
        >>> classifier = fastbert_jax.load("runs/demo")
        >>> (states,) = classifier.hidden_states(["a bad actor"])
        >>> states.shape  # layers and the embeddings, tokens, width
        (6, 5, 16)
        """
        plan = self.plan(texts, batch_size=batch_size)
        states: list[np.ndarray] = [np.empty(0)] * plan.texts
        for texts_of_batch, batch in zip(plan.members, plan.batches, strict=True):
            stopping.look()
            hidden_LxBxSxH = np.asarray(self._runtime.hidden_states(batch))
            for row, text in enumerate(texts_of_batch):
                states[text] = hidden_LxBxSxH[:, row, batch.text_BxS[row] > 0]
                check_answers(states[text])
        return states

    @stopping.stoppable()
    def plan(self, texts: Sequence[Text], *, batch_size: int = 0, batch_tokens: int = 0) -> BatchedTexts:
        """Tokenize texts and lay them out in batches of like lengths; see `plan_batches`.

        Raises:
          UserError: something other than a list of texts, or a batch of less than one text.
        """
        encoded = self.tokenizer.encode(texts, max_length=self.max_length)
        check_token_types(encoded.token_types, self.config)
        return plan_batches(encoded, lengths=self.length_buckets, batch_size=batch_size, batch_tokens=batch_tokens)

    @stopping.stoppable()
    def answers(
        self,
        plan: BatchedTexts,
        *,
        speed: float | np.ndarray,
        mode: str | Mode,
        on_batch: Callable[[int], None] | None = None,
    ) -> Results:
        """The answers to a plan's texts, in their order: what `predict` gives, as arrays.

        `speed` may be one threshold per layer, `[L]`.
        """
        self.require_exits()
        engine = self._engine(mode)
        thresholds_L = layer_thresholds(speed, self.config.num_layers)
        answers = Results.empty(plan.texts, self.config.num_classes)
        for texts, part in zip(plan.members, engine.run(plan.batches, thresholds_L), strict=True):
            stopping.look()
            for whole, some in zip(answers, part, strict=True):
                whole[texts] = some[: len(texts)]
            if on_batch:
                on_batch(len(texts))
        check_answers(np.asarray(answers.probabilities_BxN))
        return answers

    @stopping.stoppable()
    def all_exits(
        self, plan: BatchedTexts, on_batch: Callable[[int], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every exit's probabilities `[texts, L, N]` and uncertainties `[texts, L]`, float32, in the texts' order.

        `on_batch` is called after each batch with the number of its texts.
        """
        self.require_exits()
        total, depth = plan.texts, self.config.num_layers
        probabilities = np.zeros((total, depth, self.config.num_classes), np.float32)
        uncertainty = np.zeros((total, depth), np.float32)
        for texts, batch in zip(plan.members, plan.batches, strict=True):
            stopping.look()
            answer = self._runtime.all_exits(batch)
            probabilities[texts] = np.asarray(answer.probabilities_BxN).swapaxes(0, 1)[: len(texts)]
            uncertainty[texts] = np.asarray(answer.uncertainty_B).T[: len(texts)]
            if on_batch:
                on_batch(len(texts))
        check_answers(probabilities)
        return probabilities, uncertainty

    def _engine(self, mode: str | Mode) -> Engine:
        return self._engines[choice_of(Mode, mode, "mode")]

    def require_exits(self) -> None:
        """Raise `UserError` where there is only a backbone."""
        if not self.labels:
            raise UserError(
                "expected a trained model, found a backbone without exits, which has hidden_states only; "
                f"train it with `{program_name('train')} --model.pretrained DIR --data.train SPEC`"
            )

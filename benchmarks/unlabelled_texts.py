"""Whether texts of other domains, without labels, teach the students more than a few texts of the task.

    python benchmarks/unlabelled_texts.py --model runs/movie_reviews --few builtin:movie_reviews#train \
        --many unlabelled.jsonl --dev builtin:movie_reviews#dev --test builtin:movie_reviews#test \
        --output benchmarks/results/unlabelled_texts.json

The run's backbone and teacher stay as they are; new students are distilled from them twice for every seed, from the
same initial exits and for as many steps of as many packed rows: on a share of the task's own texts, and on the many.
The accuracy that counts is that of leaving early at the speed whose mean depth on dev is nearest to the one asked for;
and, beside it, the mean accuracy of the students when each of them answers every text.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import BertConfig, DataConfig, DistilConfig, KLDirection, MeshConfig
from fastbert_jax.inference.loading import model_directory
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Params
from fastbert_jax.model.sharding import make_mesh, param_shardings, share_batch
from fastbert_jax.model.weights import load_model
from fastbert_jax.recipes.fastbert import self_distillation
from fastbert_jax.text.examples import Text
from fastbert_jax.text.labelled_data import label_ids
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import Encoded, load_tokenizer
from fastbert_jax.text.training_batches import PackedBatches
from fastbert_jax.training.initial import Start
from fastbert_jax.training.step import placed_step
from fastbert_jax.training.terms import COMPUTED, merge
from measured import publish


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Distil on few texts of the task, and on many of other domains."""

    model: str
    """Directory of a run."""
    few: str
    """SPEC of the task's own texts."""
    share: float = 0.1
    """How much of them is taken, spread evenly."""
    many: str
    """SPEC of the other texts."""
    dev: str
    """SPEC of labelled texts that choose the speed."""
    test: str
    """SPEC of labelled texts that are measured."""
    depth: float = 2.2
    """Mean depth on dev at which accuracies are compared."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the initial exits, of the order of texts and of dropout."""
    steps: int = 500
    """Optimizer steps of either kind."""
    rows: int = 16
    """Packed rows of a step."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    kl: KLDirection = KLDirection.TEACHER_STUDENT
    """Direction of the divergence."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Distil, measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    directory = model_directory(settings.model)
    params, config, extra = load_model(directory)
    tokenizer = load_tokenizer(directory)
    length = extra["max_length"]
    few = texts_of(settings.few)
    few = [few[int(i)] for i in np.linspace(0, len(few) - 1, round(settings.share * len(few)))]
    sets = {"few": tokenizer.encode(few, max_length=length)}
    sets["many"] = tokenizer.encode(texts_of(settings.many), max_length=length)
    runs = []
    for seed in settings.seeds:
        for name, encoded in sets.items():
            trained = distilled(params, config, encoded, length, seed=seed, settings=settings)
            predictor = Predictor(
                trained,
                config,
                tokenizer,
                labels=tuple(extra["labels"]),
                max_length=length,
                length_buckets=tuple(extra["length_buckets"]),
            )
            runs.append({"texts": name, "seed": seed} | measured(predictor, settings))
            print(runs[-1], file=sys.stderr)
    publish({"runs": runs, "texts": {name: len(encoded) for name, encoded in sets.items()}}, settings)


def texts_of(spec: str) -> list[Text]:
    """The texts of a SPEC."""
    return [example.text for example in read_examples(spec, DataConfig(), need_label=False).examples]


def distilled(
    params: Params, config: BertConfig, encoded: Encoded, length: int, *, seed: int, settings: Settings
) -> Params:
    """The parameters with new students, taught by the teacher on these texts."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    network = Bert(config, dropout=0.1)
    shardings = param_shardings(mesh, network.config)
    distil = DistilConfig(
        batch_size=settings.rows, learning_rate=settings.learning_rate, kl=settings.kl, steps=settings.steps, pack=True
    )
    (phase,) = self_distillation(network, distil)
    batches = PackedBatches(
        encoded, None, max_length=length, batch_size=settings.rows, epochs=1, steps=settings.steps, seed=seed
    )
    shapes = {"model": Start(network).abstract_params(shardings)}
    placed = placed_step(phase, shapes, mesh=mesh, total_steps=settings.steps, key=jax.random.key(seed))
    fresh = params | {"lower_exits": Bert(config).init(jax.random.key(seed))["lower_exits"]}
    state, frozen = placed.begin({"model": jax.device_put(fresh, {part: shardings[part] for part in fresh})})
    with jax.set_mesh(mesh):
        for batch in batches.stream(0):
            state, _ = placed.steps[COMPUTED](state, frozen, share_batch(mesh, {"batch": batch}, settings.rows))
    return jax.device_get(merge(state.trained, frozen)["model"])


def measured(predictor: Predictor, settings: Settings) -> dict:
    """Accuracies on test: of each exit, and of leaving early at the speed that dev chose."""
    exits = {}
    for name, spec in (("dev", settings.dev), ("test", settings.test)):
        examples = read_examples(spec, DataConfig(), need_label=True).examples
        probabilities_TxLxN, uncertainty_TxL = predictor.all_exits(
            predictor.plan([example.text for example in examples])
        )
        right_TxL = probabilities_TxLxN.argmax(-1) == label_ids(examples, predictor.labels)[:, None]
        exits[name] = right_TxL, uncertainty_TxL
    speeds = np.arange(0.02, 1.0, 0.02)
    depths = [early(*exits["dev"], speed)[1] for speed in speeds]
    speed = float(speeds[np.abs(np.array(depths) - settings.depth).argmin()])
    accuracy, depth = early(*exits["test"], speed)
    accuracy_L = exits["test"][0].mean(0)
    return {
        "speed": round(speed, 2),
        "accuracy": accuracy,
        "mean_depth": depth,
        "mean_accuracy_of_students": float(accuracy_L[:-1].mean()),
        "accuracy_of_exits": accuracy_L.tolist(),
    }


def early(right_TxL: np.ndarray, uncertainty_TxL: np.ndarray, speed: float) -> tuple[float, float]:
    """Accuracy and mean depth when texts leave at the first exit whose uncertainty is below `speed`."""
    layer_T = exit_indices(uncertainty_TxL.T, speed)
    return float(right_TxL[np.arange(len(layer_T)), layer_T].mean()), float(layer_T.mean() + 1)


if __name__ == "__main__":
    end_with(main)

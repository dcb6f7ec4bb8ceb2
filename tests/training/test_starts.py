"""Where a run begins: the first layers of a model, its exits, a teacher beside it; and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from fastbert_jax.config import (
    DataConfig,
    DistilConfig,
    EvaluateConfig,
    ExitKind,
    FineTuneConfig,
    MeshConfig,
    ModelConfig,
    RecipeName,
    TrainConfig,
    TruncateConfig,
)
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load
from fastbert_jax.model import sharding
from fastbert_jax.model.sharding import make_mesh, param_shardings
from fastbert_jax.model.weights import load_model
from fastbert_jax.training import run
from fastbert_jax.training.initial import initial_params
from fastbert_jax.training.starts import Start, pretrained_weights, starts_of

TEXTS = ["good film", "a bad bad film", "good", "the cast was poor", "fine and good", "poor plot", "bad"] * 5
ONE_DEVICE = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module", autouse=True)
def _one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A tiny run: one epoch of each phase."""
    directory = tmp_path_factory.mktemp("starts")
    rows = [f"{'pos' if 'good' in text or 'fine' in text else 'neg'}\t{text}" for text in TEXTS]
    (directory / "train.tsv").write_text("\n".join(["label\ttext", *rows]))
    (directory / "test.tsv").write_text("\n".join(["label\ttext", *rows[:6]]))
    return TrainConfig(
        run=str(directory / "straight"),
        data=DataConfig(train=str(directory / "train.tsv"), test=str(directory / "test.tsv"), max_length=8),
        model=ModelConfig(
            pretrained="random", hidden_size=16, num_layers=3, num_heads=2, feed_forward_size=32, exit_size=8
        ),
        fine_tune=FineTuneConfig(epochs=1, batch_size=8, learning_rate=0.01),
        distil=DistilConfig(epochs=1, batch_size=8, learning_rate=0.01),
        evaluate=EvaluateConfig(speeds=(), repeats=1, baseline=False),
    )


@pytest.fixture(scope="module")
def straight(config: TrainConfig) -> Path:
    """The directory of the run, done."""
    run.train(config)
    return Path(config.run)


def _further(config: TrainConfig, name: str, *, pretrained: Path, model: dict, **changes: object) -> TrainConfig:
    return dataclasses.replace(
        config,
        run=str(Path(config.run).with_name(name)),
        model=ModelConfig(pretrained=str(pretrained), **model),
        **changes,
    )


def test_a_fine_tuned_model_is_distilled_later_as_in_one_run(config: TrainConfig, straight: Path) -> None:
    fine_tuned = dataclasses.replace(
        config,
        run=str(straight.with_name("fine_tuned")),
        distil=dataclasses.replace(config.distil, epochs=0),
    )
    run.train(fine_tuned)
    later = _further(
        config,
        "later",
        pretrained=Path(fine_tuned.run),
        model={"keep_exits": True},
        fine_tune=dataclasses.replace(config.fine_tune, epochs=0),
    )
    run.train(later)
    expected, found, before = (load_model(Path(name) / "model")[0] for name in (straight, later.run, fine_tuned.run))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.any(before["lower_exits"]["dense"]["kernel"] != found["lower_exits"]["dense"]["kernel"])


def test_first_layers_answer_as_the_exit_after_them(config: TrainConfig, straight: Path) -> None:
    whole = load(straight)
    truncated = _further(
        config,
        "truncated",
        pretrained=straight,
        model={"first_layers": 2},
        recipe=RecipeName.TRUNCATED,
        truncate=TruncateConfig(epochs=0),
        distil=dataclasses.replace(config.distil, epochs=0),
    )
    run.train(truncated)
    found = load(truncated.run)
    assert found.config == dataclasses.replace(whole.config, num_layers=2)
    np.testing.assert_allclose(
        found.exit_probabilities(TEXTS), whole.exit_probabilities(TEXTS)[:, :2], rtol=1e-5, atol=1e-6
    )


def test_truncation_brings_the_answers_closer_to_the_teacher(config: TrainConfig, straight: Path) -> None:
    truncated = _further(
        config,
        "closer",
        pretrained=straight,
        model={"first_layers": 1, "dropout": 0.0},
        recipe=RecipeName.TRUNCATED,
        truncate=TruncateConfig(epochs=8, batch_size=8, learning_rate=0.003),
    )
    run.train(truncated)
    exits_BxLxN = load(straight).exit_probabilities(TEXTS)
    found_BxLxN = load(truncated.run).exit_probabilities(TEXTS)
    assert found_BxLxN.shape[1] == 1

    def distance(answers_BxN: np.ndarray) -> float:
        teacher_BxN = exits_BxLxN[:, -1]
        return float((teacher_BxN * np.log(teacher_BxN / answers_BxN)).sum(-1).mean())

    assert distance(found_BxLxN[:, 0]) < 0.5 * distance(exits_BxLxN[:, 0])


@pytest.mark.parametrize("kind", ExitKind)
def test_new_exits_on_first_layers_are_those_of_the_seed(config: TrainConfig, straight: Path, kind: ExitKind) -> None:
    model = ModelConfig(pretrained=str(straight), first_layers=2, exit_kind=kind, exit_size=4)
    settings = dataclasses.replace(config, model=model)
    start = starts_of(settings, pretrained_weights(str(straight)), labels=("a", "b", "c"), vocab_size=0)["model"]
    assert (start.config.num_layers, start.config.num_classes, start.config.exit_kind) == (2, 3, kind)
    start.check()
    shardings = param_shardings(ONE_DEVICE, start.config)
    made = initial_params(start, seed=5, shardings=shardings)
    random = initial_params(Start(start.config), seed=5, shardings=shardings)
    whole = load_model(straight / "model")[0]
    jax.tree.map(np.testing.assert_array_equal, made["lower_exits"], random["lower_exits"])
    jax.tree.map(
        lambda leaf, old: np.testing.assert_array_equal(leaf, old[:2]),
        made["backbone"]["layers"],
        whole["backbone"]["layers"],
    )


@pytest.mark.parametrize(
    ("model", "recipe", "labels", "message"),
    [
        (
            {"first_layers": 4},
            "fastbert",
            ("neg", "pos"),
            "model.first_layers: expected 1 to 3, the layers of .*found 4",
        ),
        ({}, "truncated", ("neg", "pos"), "model.first_layers: expected 1 to 3, the layers of .*, found 0"),
        (
            {"keep_exits": True},
            "fastbert",
            ("pos", "neg"),
            r"labels of data.train, \['pos', 'neg'\], found \['neg', 'pos'\]",
        ),
    ],
)
def test_what_a_trained_model_cannot_give_is_refused(
    config: TrainConfig, straight: Path, model: dict, recipe: str, labels: tuple[str, ...], message: str
) -> None:
    settings = dataclasses.replace(
        config, model=ModelConfig(pretrained=str(straight), **model), recipe=RecipeName(recipe)
    )
    with pytest.raises(UserError, match=message):
        starts_of(settings, pretrained_weights(str(straight)), labels=labels, vocab_size=0)


@pytest.mark.parametrize("model", [{"keep_exits": True}, {"first_layers": 1}])
def test_random_weights_have_no_exits_and_no_first_layers(config: TrainConfig, model: dict) -> None:
    settings = dataclasses.replace(config, model=ModelConfig(pretrained="random", **model))
    with pytest.raises(UserError, match="expected the directory of weights for recipe truncated, keep_exits and first"):
        starts_of(settings, None, labels=("a", "b"), vocab_size=9)


def test_a_plain_bert_has_no_exits_to_keep(config: TrainConfig, tiny_bert_directory: Path) -> None:
    settings = dataclasses.replace(config, model=ModelConfig(pretrained=str(tiny_bert_directory), keep_exits=True))
    with pytest.raises(UserError, match="expected the 'fastbert' section of a trained model, found none"):
        starts_of(settings, tiny_bert_directory, labels=("a", "b"), vocab_size=9)

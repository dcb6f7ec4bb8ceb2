"""Where a run begins: the first layers of a model, its exits, a teacher beside it; and what is refused."""

from __future__ import annotations

import dataclasses
import types
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
    TruncateConfig,
)
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load
from fastbert_jax.model import sharding
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.model.weights import load_model
from fastbert_jax.recipes import fastbert, train, truncated
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.training import run
from fastbert_jax.training.recipe import Start, World, model_start

TEXTS = ["good film", "a bad bad film", "good", "the cast was poor", "fine and good", "poor plot", "bad"] * 5
ONE_DEVICE = make_mesh(MeshConfig(), jax.devices()[:1])


def a_world(*labels: str) -> World:
    return World(labels, types.SimpleNamespace(vocab_size=9))


@pytest.fixture(scope="module", autouse=True)
def _one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> fastbert.Settings:
    """A tiny run: one epoch of each phase."""
    directory = tmp_path_factory.mktemp("starts")
    rows = [f"{'pos' if 'good' in text or 'fine' in text else 'neg'}\t{text}" for text in TEXTS]
    (directory / "train.tsv").write_text("\n".join(["label\ttext", *rows]))
    (directory / "test.tsv").write_text("\n".join(["label\ttext", *rows[:6]]))
    return fastbert.Settings(
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
def straight(config: fastbert.Settings) -> Path:
    """The directory of the run, done."""
    train(config)
    return Path(config.run)


def _further(config: fastbert.Settings, name: str, *, pretrained: Path, model: dict, **changes: object):
    """The settings of another run, of recipe truncated where there are settings of truncation."""
    kind = truncated.Settings if "truncate" in changes else fastbert.Settings
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "recipe"}
    if kind is truncated.Settings:
        del shared["fine_tune"]
    return kind(
        **shared
        | {"run": str(Path(config.run).with_name(name)), "model": ModelConfig(pretrained=str(pretrained), **model)}
        | changes
    )


@pytest.mark.slow
def test_a_fine_tuned_model_is_distilled_later_as_in_one_run(config: fastbert.Settings, straight: Path) -> None:
    fine_tuned = dataclasses.replace(
        config,
        run=str(straight.with_name("fine_tuned")),
        distil=dataclasses.replace(config.distil, epochs=0),
    )
    train(fine_tuned)
    later = _further(
        config,
        "later",
        pretrained=Path(fine_tuned.run),
        model={"keep_exits": True},
        fine_tune=dataclasses.replace(config.fine_tune, epochs=0),
    )
    train(later)
    expected, found, before = (load_model(Path(name) / "model")[0] for name in (straight, later.run, fine_tuned.run))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert "lower_exits" not in before  # nothing had trained them


@pytest.mark.slow
def test_an_exit_that_was_never_trained_is_never_asked(config: fastbert.Settings, straight: Path) -> None:
    alone = dataclasses.replace(
        config, run=str(straight.with_name("last_exit")), distil=dataclasses.replace(config.distil, epochs=0)
    )
    train(alone)
    classifier = load(alone.run)
    assert classifier.network.exits == (False, False, True) and classifier.config.exit_layers == (3,)
    for mode in ("auto", "masked", "bucketed", "cascade", "graph-cascade"):
        early, full = (classifier.predict(TEXTS, speed=speed, mode=mode) for speed in (1.0, 0.0))
        assert {answer.exit_layer for answer in early} == {3}
        assert [answer.label for answer in early] == [answer.label for answer in full]
    probabilities_BxLxN = classifier.exit_probabilities(TEXTS)
    assert np.isfinite(probabilities_BxLxN).all() and (probabilities_BxLxN[:, :2] == 0.5).all()


@pytest.mark.slow
def test_first_layers_answer_as_the_exit_after_them(config: fastbert.Settings, straight: Path) -> None:
    whole = load(straight)
    truncated = _further(
        config,
        "truncated",
        pretrained=straight,
        model={"first_layers": 2},
        truncate=TruncateConfig(epochs=0),
        distil=dataclasses.replace(config.distil, epochs=0),
    )
    train(truncated)
    found = load(truncated.run)
    assert found.config == dataclasses.replace(whole.config, num_layers=2, exit_layers=(1, 2))
    np.testing.assert_allclose(
        found.exit_probabilities(TEXTS), whole.exit_probabilities(TEXTS)[:, :2], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_truncation_brings_the_answers_closer_to_the_teacher(config: fastbert.Settings, straight: Path) -> None:
    truncated = _further(
        config,
        "closer",
        pretrained=straight,
        model={"first_layers": 1, "dropout": 0.0},
        truncate=TruncateConfig(epochs=8, batch_size=8, learning_rate=0.003),
    )
    train(truncated)
    exits_BxLxN = load(straight).exit_probabilities(TEXTS)
    found_BxLxN = load(truncated.run).exit_probabilities(TEXTS)
    assert found_BxLxN.shape[1] == 1

    def distance(answers_BxN: np.ndarray) -> float:
        teacher_BxN = exits_BxLxN[:, -1]
        return float((teacher_BxN * np.log(teacher_BxN / answers_BxN)).sum(-1).mean())

    assert distance(found_BxLxN[:, 0]) < 0.5 * distance(exits_BxLxN[:, 0])


@pytest.mark.parametrize("kind", ExitKind)
def test_new_exits_on_first_layers_are_those_of_the_seed(
    config: fastbert.Settings, straight: Path, kind: ExitKind
) -> None:
    model = ModelConfig(pretrained=str(straight), first_layers=2, exit_kind=kind, exit_size=4)
    start = model_start(model, a_world("a", "b", "c"))
    found = start.network.config
    assert (found.num_layers, found.num_classes, found.exit_kind) == (2, 3, kind)
    start.check()
    made, random = (each.params(seed=5, mesh=ONE_DEVICE) for each in (start, Start(start.network)))
    whole = load_model(straight / "model")[0]
    jax.tree.map(np.testing.assert_array_equal, made["lower_exits"], random["lower_exits"])
    jax.tree.map(
        lambda leaf, old: np.testing.assert_array_equal(leaf, old[:2]),
        made["backbone"]["layers"],
        whole["backbone"]["layers"],
    )


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        ({"first_layers": 4}, ("neg", "pos"), "--model.first-layers: expected 1 to 3, the layers of .*found 4"),
        (
            {"keep_exits": True},
            ("pos", "neg"),
            r"labels of --data.train, \['pos', 'neg'\], found \['neg', 'pos'\]",
        ),
    ],
)
def test_what_a_trained_model_cannot_give_is_refused(
    straight: Path, model: dict, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model_start(ModelConfig(pretrained=str(straight), **model), a_world(*labels))


def test_truncation_needs_a_number_of_layers(config: fastbert.Settings, straight: Path) -> None:
    settings = _further(config, "none", pretrained=straight, model={}, truncate=TruncateConfig())
    with pytest.raises(UserError, match="--model.first-layers: expected 1 to 3, the layers of .*, found 0"):
        truncated.make(settings, World(("neg", "pos"), load_tokenizer(straight / "model")))


@pytest.mark.parametrize("model", [{"keep_exits": True}, {"first_layers": 1}])
def test_random_weights_have_no_exits_and_no_first_layers(model: dict) -> None:
    with pytest.raises(UserError, match="expected the directory of weights for --model.keep-exits and --model.first"):
        model_start(ModelConfig(pretrained="random", **model), a_world("a", "b"))


def test_a_plain_bert_has_no_exits_to_keep(tiny_bert_directory: Path) -> None:
    with pytest.raises(UserError, match="expected the 'fastbert' section of a trained model, found none"):
        model_start(ModelConfig(pretrained=str(tiny_bert_directory), keep_exits=True), a_world("a", "b"))

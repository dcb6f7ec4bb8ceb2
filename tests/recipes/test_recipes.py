"""The recipes: what each phase compares, what trains, and the released formula of patient distillation."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from fastbert_jax import train
from fastbert_jax.config import DistilConfig, FineTuneConfig, KLDirection, ModelConfig, TruncateConfig
from fastbert_jax.errors import UserError
from fastbert_jax.model.bert import Bert
from fastbert_jax.recipes import RECIPES, fastbert, joint, official, pkd, recipe_module, truncated
from fastbert_jax.recipes.pkd import LayerMap, PkdConfig, layer_pairs, pkd_terms
from fastbert_jax.training import losses
from fastbert_jax.training.recipe import Start, World
from fastbert_jax.training.terms import COMPUTED, case_loss, counts_of, split
from tests.training import tiny

STEP, KEY = jnp.zeros((), jnp.int32), jax.random.key(0)
RANDOM = ModelConfig(pretrained="random", hidden_size=16, num_layers=3, num_heads=2, feed_forward_size=32, exit_size=8)
WORLD = World(("a", "b"), types.SimpleNamespace(vocab_size=30))


def _loss(phase, params, batch):
    case, views = phase.cases[COMPUTED], {"batch": batch}
    trained, frozen = split(params, case.trains)
    run = jax.jit(lambda t, f: case_loss(t, f, case, views, counts_of(case, views), step=STEP, key=KEY))
    loss, (terms, _) = run(trained, frozen)
    return loss, terms


def test_the_joint_recipe_teaches_every_exit_the_labels_and_freezes_nothing():
    model = dataclasses.replace(RANDOM, dropout=0.0)
    made = joint.make(joint.Settings(model=model), WORLD)
    (phase,) = made.phases
    params = {"model": made.network.init(KEY)}
    batch = tiny.batch(valid=6)
    assert split(params, phase.trains)[1] == {}
    loss, terms = _loss(phase, params, batch)
    trace = jax.jit(made.network.trace)(params["model"], batch)
    log_LxBxN = jax.nn.log_softmax(trace.exit_logits_LxBxKxN[:, :6, 0])
    expected_L = -np.take_along_axis(np.asarray(log_LxBxN), batch.label_BxK[None, :6], axis=-1).mean((1, 2))
    np.testing.assert_allclose([*terms["lower_exits"], terms["label"]], expected_L, rtol=1e-5)
    np.testing.assert_allclose(loss, expected_L.sum(), rtol=1e-5)
    fine_tune = fastbert.make(fastbert.Settings(model=model), WORLD).phases[0]
    assert phase.cases[COMPUTED].row_flops(10, 1) > fine_tune.cases[COMPUTED].row_flops(10, 1)


def _teacher_and_student(monkeypatch, layers):
    """A trained model of three layers, and its first ones, as the files of a run would give them."""
    small = Bert(tiny.CONFIG.first_layers(layers))
    for name in ("model_start", "trained_start"):
        network = small if name == "model_start" else tiny.model(0.5)
        start = Start(network, directory=object(), stored_exits=network.config.exit_layers)
        monkeypatch.setattr(f"fastbert_jax.training.recipe.{name}", lambda *_, start=start, **__: start)


def test_the_truncated_recipe_teaches_the_last_exit_by_a_teacher_that_stays_as_it_is(monkeypatch):
    _teacher_and_student(monkeypatch, 2)
    settings = truncated.Settings(
        model=ModelConfig(first_layers=2), truncate=TruncateConfig(kl=KLDirection.TEACHER_STUDENT)
    )
    made = truncated.make(settings, WORLD)
    assert [phase.name for phase in made.phases] == ["truncate", "distil"]
    assert [made.sources_from(index) for index in (0, 1)] == [["model", "teacher"], ["model"]]
    phase, batch = made.phases[0], tiny.batch(valid=6)
    params = {"model": made.network.init(jax.random.key(1)), "teacher": tiny.params()["model"]}
    trained, frozen = split(params, phase.trains)
    assert set(trained) == {"model"} and set(trained["model"]) == {"backbone", "last_exit"} and "teacher" in frozen
    loss, _ = _loss(phase, params, batch)
    student, teacher = (
        jax.jit(made.starts[name].network.trace)(params[name], batch).logits_BxKxN for name in ("model", "teacher")
    )
    np.testing.assert_allclose(loss, losses.kl_teacher_student(student, teacher)[:6].mean(), rtol=1e-5)
    case, views = phase.cases[COMPUTED], {"batch": batch}
    gradient = jax.jit(
        jax.grad(lambda p: case_loss(p, {}, case, views, counts_of(case, views), step=STEP, key=KEY)[0])
    )(params)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(gradient["teacher"]))


@pytest.mark.parametrize("layers", [(3,), ()])
def test_a_model_without_lower_exits_has_none_to_teach(layers):
    config = dataclasses.replace(tiny.CONFIG, num_layers=1, exit_layers=()) if not layers else tiny.CONFIG
    network = Bert(dataclasses.replace(config, exit_layers=layers))
    recipe = tiny.fastbert(network, fine_tune=FineTuneConfig(), distil=DistilConfig())
    assert [phase.name for phase in recipe.phases] == ["fine_tune"]


def test_the_released_codes_settings_take_the_place_of_those_given():
    settings = official.Settings(model=RANDOM, fine_tune=FineTuneConfig(epochs=2)).resolved
    assert settings.distil.decay_epochs == 2 and settings.fine_tune.clip_norm == 0
    phases = {module: module.make(settings, WORLD).phases for module in (official, fastbert)}
    assert phases[official][1].cases[COMPUTED].terms[0].loss is losses.kl_teacher_student
    plain = fastbert.make(
        fastbert.Settings(model=RANDOM, distil=DistilConfig(kl=KLDirection.STUDENT_TEACHER)), WORLD
    ).phases
    assert plain[1].cases[COMPUTED].terms[0].loss is losses.kl_student_teacher


def test_every_recipe_has_settings_of_its_own_name():
    for name in RECIPES:
        assert recipe_module(name).Settings().recipe == name
    with pytest.raises(UserError, match="--recipe: expected one of .*, found 'fastbret'; did you mean 'fastbert'"):
        recipe_module("fastbret")
    with pytest.raises(UserError, match="expected an instance of fastbert_jax.recipes.pkd.Settings for recipe 'pkd'"):
        train(fastbert.Settings(recipe="pkd"))


@pytest.mark.parametrize(
    ("student", "teacher", "layers", "pairs"),
    [
        (6, 12, LayerMap.SKIP, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        (6, 12, LayerMap.LAST, [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
        (3, 12, LayerMap.SKIP, [(1, 4), (2, 8)]),
        (3, 12, LayerMap.LAST, [(1, 10), (2, 11)]),
        (6, 24, LayerMap.SKIP, [(1, 4), (2, 8), (3, 12), (4, 16), (5, 20)]),
        (1, 12, LayerMap.SKIP, []),
    ],
)
def test_layer_pairs_are_those_of_the_released_code(student, teacher, layers, pairs):
    assert layer_pairs(student, teacher, layers) == pairs


@pytest.mark.parametrize(("student", "teacher", "layers"), [(5, 12, LayerMap.SKIP), (7, 6, LayerMap.LAST)])
def test_layers_that_cannot_be_paired_are_refused(student, teacher, layers):
    with pytest.raises(UserError, match=f"divisor of the teacher's {teacher} layers.* found {student}"):
        layer_pairs(student, teacher, layers)


def _released_loss(student, teacher, label_B, settings, pairs):
    """The loss of intersun/PKD-for-BERT-Model-Compression in float64: means over texts, classes, numbers and pairs."""
    (student_logits, student_hidden), (teacher_logits, teacher_hidden) = student, teacher
    cross_entropy = -scipy.special.log_softmax(student_logits, -1)[np.arange(len(label_B)), label_B].mean()
    log_student, log_teacher = (
        scipy.special.log_softmax(logits / settings.temperature, -1) for logits in (student_logits, teacher_logits)
    )
    kl = (np.exp(log_teacher) * (log_teacher - log_student)).mean() * settings.temperature**2
    s, t = (
        np.stack([hidden[layer] for layer in layers], axis=1)
        for hidden, layers in zip((student_hidden, teacher_hidden), zip(*pairs, strict=True), strict=True)
    )
    if settings.normalize:
        s, t = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) for vectors in (s, t))
    patience = np.square(s - t).mean()
    return (1 - settings.alpha) * cross_entropy + settings.alpha * kl + settings.beta * patience


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layers", LayerMap)
def test_the_loss_of_pkd_is_the_released_formula(layers, normalize):
    generator = np.random.default_rng(1)
    settings = PkdConfig(alpha=0.7, beta=500.0, temperature=10.0, layers=layers, normalize=normalize)
    texts, classes, width, pairs = 5, 4, 16, layer_pairs(3, 12, layers)
    student, teacher = (
        (3 * generator.standard_normal((texts, classes)), generator.standard_normal((depth + 1, texts, width)))
        for depth in (3, 12)
    )
    label_B = generator.integers(0, classes, texts)
    expected = _released_loss(student, teacher, label_B, settings, pairs)

    traces = {
        name: types.SimpleNamespace(
            logits_BxKxN=jnp.asarray(logits[:, None], jnp.float32),
            first_LxBxKxH=jnp.asarray(hidden[:, :, None], jnp.float32),
        )
        for name, (logits, hidden) in (("model", student), ("teacher", teacher))
    }
    batch = tiny.batch(rows=texts)._replace(label_BxK=label_B[:, None].astype(np.int32))
    traces["batch"] = batch._replace(valid_BxK=np.ones((texts, 1), bool))
    found = sum(
        term.weight * float(term.sums(traces).sum() / term.count(traces))
        for term in pkd_terms(settings, pairs, num_classes=classes, hidden_size=width)
    )
    assert found == pytest.approx(expected, rel=1e-6)


def test_directions_alone_are_compared_within_their_range():
    s, t = jax.random.normal(KEY, (2, 5, 8))
    assert np.allclose(losses.directions_squared_error(2 * s, s), 0, atol=1e-6)
    assert (losses.squared_error(2 * s, s) > 0.1).all()
    np.testing.assert_allclose(losses.directions_squared_error(-s, s), 4, rtol=1e-6)
    assert ((losses.directions_squared_error(s, t) >= 0) & (losses.directions_squared_error(s, t) <= 4)).all()
    zero = jnp.zeros((1, 8))
    gradient = jax.grad(lambda s: losses.directions_squared_error(s, t[:1]).sum())(zero)
    assert np.isfinite(gradient).all()


def test_pkd_trains_the_student_alone_and_reads_the_first_tokens(monkeypatch):
    _teacher_and_student(monkeypatch, 1)
    monkeypatch.setattr("fastbert_jax.inference.loading.model_directory", lambda path: path)
    monkeypatch.setattr("fastbert_jax.text.tokenizer.load_tokenizer", lambda _: types.SimpleNamespace(fingerprint="x"))
    world = World(("a", "b"), types.SimpleNamespace(vocab_size=30, fingerprint="x"))
    made = pkd.make(pkd.Settings(pkd=PkdConfig(teacher="somewhere")), world)
    (phase,) = made.phases
    assert set(phase.trains) == {"model/backbone", "model/last_exit"} and set(phase.sources) == {"model", "teacher"}
    trace = jax.jit(tiny.model(0.0).trace)(tiny.params()["model"], tiny.batch())
    np.testing.assert_array_equal(trace.first_LxBxKxH[:, :, 0], trace.hidden_LxBxSxH[:, :, 0])
    with pytest.raises(UserError, match="expected a model with the tokenizer of --model.pretrained"):
        pkd.make(pkd.Settings(pkd=PkdConfig(teacher="x")), World(("a", "b"), types.SimpleNamespace(fingerprint="y")))
    with pytest.raises(UserError, match="--pkd.teacher: expected the directory of the run"):
        pkd.make(pkd.Settings(), world)

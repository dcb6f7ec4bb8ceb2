"""The engines: one answer from all of them, whatever the batch; and how much they compile."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import jax
import numpy as np
import pytest

from fastbert_jax.config import ExitConfig, Mode, PolicyName
from fastbert_jax.inference.engines.auto import ENGINES
from fastbert_jax.inference.engines.bucketed import Bucketed
from fastbert_jax.inference.engines.cascade import Cascade
from fastbert_jax.inference.engines.engine import Engine, Masked, Results, side_by_side
from fastbert_jax.inference.engines.graph_cascade import GraphCascade
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import batch_buckets, plan_batches, smallest_bucket
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.model.bert import Bert
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.tokenizer import Encoded
from tests.inference.models import LAYERS, batch_of, random_texts, tiny_config, tiny_params, tiny_runtime

SPEEDS = [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0]


LENGTH = 16


@pytest.fixture(scope="module")
def binary() -> Runtime:
    return tiny_runtime(2)


@pytest.fixture(scope="module")
def engines(binary: Runtime) -> dict[Mode, Engine]:
    """All engines of one model, so that tests share their programs."""
    return {mode: engine(binary) for mode, engine in ENGINES.items()}


def answer(engine: Engine, batch: Batch, speed: float | np.ndarray) -> Results:
    """The answers to one batch."""
    (answers,) = engine.run([batch], speed)
    return answers


def answers_to(engine: Engine, texts: list[np.ndarray], speed: float, *, batch_size: int, length: int) -> Results:
    """The answers to all texts, in batches of `batch_size`, the last one padded with rows."""
    parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    batches = (batch_of(part, batch_size=batch_size, length=length) for part in parts)
    found = [
        Results(*(array[: len(part)] for array in answers))
        for part, answers in zip(parts, engine.run(batches, speed), strict=True)
    ]
    return Results(*map(np.concatenate, zip(*found, strict=True)))


def planned_answers_to(engine: Engine, texts: list[np.ndarray], speed: float, *, batch_size: int) -> Results:
    """The answers to all texts in their order, in batches of like lengths, as the predictor lays them out."""
    tokens = np.concatenate(texts)
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    plan = plan_batches(
        Encoded(tokens, np.zeros_like(tokens), offsets, 0, 0), batch_size=batch_size, lengths=(LENGTH // 2, LENGTH)
    )
    order = np.concatenate(plan.members).argsort()
    found = [
        Results(*(array[: len(texts)] for array in answers))
        for texts, answers in zip(plan.members, engine.run(plan.batches, speed), strict=True)
    ]
    return Results(*(np.concatenate(arrays)[order] for arrays in zip(*found, strict=True)))


def clear_of(uncertainty: np.ndarray, speed: float) -> float:
    """A threshold near `speed` that no uncertainty comes near: rounding may then not decide who leaves."""
    near = np.sort(np.append(uncertainty[abs(uncertainty - speed) < 0.005], [speed - 0.005, speed + 0.005]))
    widest = np.argmax(np.diff(near))
    return float(near[widest : widest + 2].mean())


def assert_same(found: Results, expected: Results) -> None:
    np.testing.assert_array_equal(found.exit_layer_B, expected.exit_layer_B)
    np.testing.assert_array_equal(found.probabilities_BxN.argmax(-1), expected.probabilities_BxN.argmax(-1))
    np.testing.assert_allclose(found.probabilities_BxN, expected.probabilities_BxN, atol=1e-5)
    np.testing.assert_allclose(found.uncertainty_B, expected.uncertainty_B, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "batch_sizes"),
    [
        (40, (2,)),
        pytest.param(2, (1, 64), marks=pytest.mark.slow),
        pytest.param(8, (5, 32), marks=pytest.mark.slow),
    ],
)
def test_all_engines_give_the_same_labels_and_exit_layers(classes: int, batch_sizes: tuple[int, ...]) -> None:
    runtime = tiny_runtime(classes)
    masked, bucketed, cascade, in_graph = (engine(runtime) for engine in ENGINES.values())
    texts = random_texts(64, longest=LENGTH, seed=1)
    uncertainty_LxB = np.asarray(runtime.all_exits(batch_of(texts, batch_size=64, length=LENGTH)).uncertainty_B)
    depths_met = set()
    for nominal in SPEEDS:
        speed = clear_of(uncertainty_LxB, nominal) if nominal > 0 else 0.0
        expected = answers_to(masked, texts, speed, batch_size=64, length=LENGTH)
        np.testing.assert_array_equal(expected.exit_layer_B, 1 + exit_indices(uncertainty_LxB, speed))
        depths_met |= set(expected.exit_layer_B)
        for batch_size in batch_sizes:
            some = min(64, 16 * batch_size)
            for engine in (bucketed, cascade, *([in_graph] if batch_size == batch_sizes[0] else [])):
                found = planned_answers_to(engine, texts[:some], speed, batch_size=batch_size)
                assert_same(found, Results(*(array[:some] for array in expected)))
        assert_same(planned_answers_to(masked, texts, speed, batch_size=batch_sizes[-1]), expected)
    assert depths_met == set(range(1, LAYERS + 1))


@pytest.mark.slow  # all of them are also met by the ten thousand texts of test_agreement.py
@pytest.mark.parametrize(
    "exits",
    [
        ExitConfig(policy=PolicyName.TOP_ENTROPY, top=3),
        ExitConfig(policy=PolicyName.MAX_PROBABILITY, layers=(2, 3)),
        ExitConfig(policy=PolicyName.MARGIN, every=2),
        ExitConfig(policy=PolicyName.PATIENCE, patience=1),
        ExitConfig(policy=PolicyName.PATIENCE, patience=1, layers=(1, 2, 4)),
    ],
    ids=lambda exits: f"{exits.policy.value} {exits.layers or exits.every}",
)
def test_every_policy_and_choice_of_exits_gives_one_answer_in_all_engines(exits: ExitConfig) -> None:
    runtime = tiny_runtime(8, exits=exits)
    texts = random_texts(40, longest=LENGTH, seed=2)
    uncertainty_LxB = np.asarray(runtime.all_exits(batch_of(texts, batch_size=40, length=LENGTH)).uncertainty_B)
    speed = clear_of(uncertainty_LxB, 0.6)
    expected = answers_to(Masked(runtime), texts, speed, batch_size=40, length=LENGTH)
    np.testing.assert_array_equal(expected.exit_layer_B, 1 + exit_indices(uncertainty_LxB, speed))
    asked = {layer for layer, is_asked in enumerate(exits.asked(LAYERS), start=1) if is_asked}
    assert 1 < len(set(expected.exit_layer_B)) and set(expected.exit_layer_B) <= asked
    for engine in (Bucketed(runtime), Cascade(runtime), GraphCascade(runtime)):
        assert_same(planned_answers_to(engine, texts, speed, batch_size=6), expected)


@pytest.mark.parametrize("mode", ENGINES)
def test_an_answer_depends_neither_on_batch_mates_nor_on_padding(engines: dict[Mode, Engine], mode: Mode) -> None:
    texts = random_texts(6, longest=LENGTH)
    together = answers_to(engines[mode], texts, 0.5, batch_size=6, length=LENGTH)
    padded = answers_to(engines[mode], texts, 0.5, batch_size=6, length=30)
    backwards = answers_to(engines[mode], texts[::-1], 0.5, batch_size=6, length=LENGTH)
    alone = answers_to(engines[mode], texts, 0.5, batch_size=1, length=LENGTH)
    assert len(set(together.exit_layer_B)) > 1
    for other in (padded, Results(*(array[::-1] for array in backwards)), alone):
        assert_same(other, together)


@pytest.mark.parametrize("mode", ENGINES)
def test_speed_0_is_the_plain_teacher_and_asks_no_student(mode: Mode) -> None:
    config = tiny_config(2)
    params = tiny_params(config)
    batch = batch_of(random_texts(6, longest=LENGTH), batch_size=6, length=LENGTH)
    teacher_BxN = jax.jit(Bert(config).trace)(params, batch).logits_BxKxN[:, 0]

    params["lower_exits"] = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params["lower_exits"])
    runtime = Runtime(params, Bert(config))
    answers = answer(ENGINES[mode](runtime), batch, 0.0)
    assert runtime.compiled_programs == 1
    np.testing.assert_allclose(answers.probabilities_BxN, jax.nn.softmax(teacher_BxN), atol=1e-6)
    assert set(answers.exit_layer_B) == {LAYERS}
    plain = jax.make_jaxpr(runtime._run_full_depth)(runtime.params, batch)
    early = jax.make_jaxpr(runtime.run_all_exits)(runtime.params, batch)
    assert products(plain.jaxpr) == LAYERS * LAYER_PRODUCTS + EXIT_PRODUCTS
    lower_exits_at_once = EXIT_PRODUCTS
    assert products(early.jaxpr) == LAYERS * LAYER_PRODUCTS + lower_exits_at_once + EXIT_PRODUCTS


LAYER_PRODUCTS = 8
"""Query, key, value, scores, context, output; and the two of the feed-forward part."""
EXIT_PRODUCTS = 9
"""Narrow, query, probe, scores, mean, value, output, dense, classifier."""


def products(jaxpr: jax.extend.core.Jaxpr) -> int:
    """How many matrix products a program does, loops counted as often as they run."""
    count = 0
    for equation in jaxpr.eqns:
        inner = [value.jaxpr for value in equation.params.values() if hasattr(value, "jaxpr")]
        count += equation.primitive.name == "dot_general"
        count += equation.params.get("length", 1) * sum(map(products, inner))
    return count


def test_both_engines_share_the_program_of_speed_0(binary: Runtime, engines: dict[Mode, Engine]) -> None:
    batch = batch_of(random_texts(6, longest=LENGTH), batch_size=6, length=LENGTH)
    answer(engines[Mode.MASKED], batch, 0)
    before = binary.compiled_programs
    answer(engines[Mode.BUCKETED], batch, 0)
    assert binary.compiled_programs == before


def test_rows_without_a_text_do_not_hold_up_a_batch(binary: Runtime) -> None:
    engine = Bucketed(binary)
    calls = []
    step, engine._step = engine._step, lambda *arguments: calls.append(arguments) or step(*arguments)
    batch = batch_of(random_texts(6, longest=LENGTH), batch_size=6, length=LENGTH)
    uncertainty_B = np.asarray(binary.all_exits(batch).uncertainty_B)[0]
    surest, second = np.argsort(uncertainty_B)[:2]
    batch = batch._replace(valid_BxK=(np.arange(6) == surest)[:, None])
    found = answer(engine, batch, float(uncertainty_B[[surest, second]].mean()))
    assert found.exit_layer_B[surest] == len(calls) == 1


@pytest.mark.parametrize("mode", ENGINES)
def test_a_text_leaves_strictly_below_the_threshold(engines: dict[Mode, Engine], mode: Mode) -> None:
    batch = batch_of(random_texts(6, longest=LENGTH), batch_size=6, length=LENGTH)
    first = np.array([1.1, 0, 0, 0, 0], np.float32)
    uncertainty = answer(engines[mode], batch, first).uncertainty_B[2]
    for threshold, leaves in ((uncertainty, False), (np.nextafter(uncertainty, np.float32(1)), True)):
        first[0] = threshold
        assert (answer(engines[mode], batch, first).exit_layer_B[2] == 1) == leaves


def test_one_threshold_per_layer_is_taken(engines: dict[Mode, Engine]) -> None:
    batch = batch_of(random_texts(6, longest=LENGTH), batch_size=6, length=LENGTH)
    for engine in engines.values():
        assert set(answer(engine, batch, np.array([0, 0, 1.1, 0, 0])).exit_layer_B) == {3}


def test_a_model_of_one_layer_answers() -> None:
    runtime = tiny_runtime(2, num_layers=1)
    batch = batch_of(random_texts(2, longest=LENGTH), batch_size=2, length=LENGTH)
    for engine in (Masked(runtime), Bucketed(runtime)):
        assert set(answer(engine, batch, 0.5).exit_layer_B) == {1}


def test_programs_are_bounded_and_neither_data_nor_speed_adds_one() -> None:
    runtime = tiny_runtime(2)
    masked, bucketed = Masked(runtime), Bucketed(runtime)
    batches = [batch_of(random_texts(6, longest=LENGTH, seed=seed), batch_size=6, length=LENGTH) for seed in range(60)]

    def run_all(speeds: tuple[float, ...]) -> int:
        for batch in batches:
            for speed in speeds:
                answer(masked, batch, speed)
                answer(bucketed, batch, speed)
        return runtime.compiled_programs

    warm = run_all((0.0, 0.1, 0.3, 0.5, 0.7))
    buckets = len(batch_buckets(6))
    steps, gathers = bucketed._step._cache_size(), bucketed._take._cache_size()
    assert steps == buckets
    assert gathers <= buckets * (buckets - 1) / 2
    embed, masked_programs, full_depth = 1, 1, 1
    assert warm == steps + gathers + embed + masked_programs + full_depth
    assert run_all((0.05, 0.2, 0.4, 0.6, 0.9)) == warm


def test_work_goes_on_side_by_side_and_results_keep_their_order() -> None:
    log: list[str] = []

    def work(name: str, waits: int) -> Generator[None, None, str]:
        for _ in range(waits):
            log.append(name)
            yield
        return name

    works = (work(name, waits) for name, waits in (("a", 3), ("b", 1), ("c", 1), ("d", 0)))
    results = side_by_side(works)
    assert log == []
    assert list(results) == ["a", "b", "c", "d"]
    assert log == ["a", "b", "a", "a", "c"]


def test_the_loop_in_the_graph_runs_little_more_than_it_must(engines: dict[Mode, Engine]) -> None:
    engine = engines[Mode.GRAPH_CASCADE]
    texts = random_texts(96, longest=LENGTH, seed=4)
    before = engine.rows_run
    depths = answers_to(engine, texts, 0.5, batch_size=6, length=LENGTH).exit_layer_B
    run = engine.rows_run - before
    rows_left_over_at_each_depth = 6
    assert depths.sum() <= run <= depths.sum() + LAYERS * rows_left_over_at_each_depth


def test_batches_are_taken_as_they_are_needed(engines: dict[Mode, Engine]) -> None:
    taken: list[int] = []

    def batches() -> Iterator[Batch]:
        for number in range(5):
            taken.append(number)
            yield batch_of(random_texts(6, longest=LENGTH, seed=number), batch_size=6, length=LENGTH)

    for mode, engine in engines.items():
        taken.clear()
        answers = engine.run(batches(), 0.5)
        next(answers)
        # The cascades go on to new texts while one of the first batch waits for company.
        assert len(taken) <= 4 or mode in (Mode.CASCADE, Mode.GRAPH_CASCADE)
        assert len(list(answers)) == 4


def test_buckets_rise_to_the_batch_size_with_little_padding() -> None:
    assert batch_buckets(1) == (1,)
    assert batch_buckets(32) == (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
    assert batch_buckets(21) == (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 21)
    for batch_size in range(1, 200):
        buckets = batch_buckets(batch_size)
        assert list(buckets) == sorted(set(buckets)) and buckets[-1] == batch_size
        for rows in range(1, batch_size + 1):
            bucket = smallest_bucket(buckets, rows)
            assert rows <= bucket <= rows * (1.25 if rows > 8 else 1.5)

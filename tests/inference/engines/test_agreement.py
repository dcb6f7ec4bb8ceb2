"""Ten thousand random texts: every engine and policy gives the labels and exit layers of the masked engine."""

from __future__ import annotations

import numpy as np
import pytest

from fastbert_jax.config import ExitConfig, Mode, PolicyName
from fastbert_jax.inference.engines.auto import make_engines
from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.inference.plan import BatchedTexts, plan_batches
from fastbert_jax.text.tokenizer import Encoded
from tests.inference.models import LAYERS, random_texts, tiny_runtime

CASES = [
    (2, ExitConfig()),
    (40, ExitConfig()),
    (8, ExitConfig(policy=PolicyName.TOP_ENTROPY, top=3)),
    (40, ExitConfig(policy=PolicyName.MAX_PROBABILITY)),
    (8, ExitConfig(policy=PolicyName.MARGIN, layers=(1, 3))),
    (8, ExitConfig(policy=PolicyName.PATIENCE, patience=1)),
]
ROUNDING = 1e-5
"""Programs of different shapes round differently; a text whose uncertainty is so near a threshold may go either way."""


def plan_of(texts: list[np.ndarray]) -> BatchedTexts:
    tokens = np.concatenate(texts)
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    return plan_batches(Encoded(tokens, np.zeros_like(tokens), offsets, 0, 0), lengths=(8, 24), batch_tokens=192)


def answers_to(engine: Engine, plan: BatchedTexts, thresholds_L: np.ndarray) -> Results:
    order = np.concatenate(plan.members).argsort()
    parts = [
        Results(*(array[: len(texts)] for array in answers))
        for texts, answers in zip(plan.members, engine.run(plan.batches, thresholds_L), strict=True)
    ]
    return Results(*(np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True)))


def assert_all_agree(classes: int, exits: ExitConfig, *, texts: int, seed: int) -> set[int]:
    """Compare all engines on texts of mixed lengths with random thresholds; the depths met."""
    runtime = tiny_runtime(classes, exits=exits)
    engines = make_engines([runtime])
    generator = np.random.default_rng(seed)
    depths: set[int] = set()
    for number in range(4):
        some = random_texts(texts // 4, longest=24, seed=seed + number)
        thresholds_L = generator.random(LAYERS).astype(np.float32)
        plan = plan_of(some)
        expected = answers_to(engines[Mode.MASKED], plan, thresholds_L)
        near = np.zeros(len(some), bool)
        for texts_B, batch in zip(plan.members, plan.batches, strict=True):
            uncertainty_LxB = np.asarray(runtime.all_exits(batch).uncertainty_B)[:, : len(texts_B)]
            near[texts_B] = (abs(uncertainty_LxB - thresholds_L[:, None]) < ROUNDING).any(0)
        assert near.mean() < 0.01
        for mode in (Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE, Mode.AUTO):
            found = answers_to(engines[mode], plan, thresholds_L)
            np.testing.assert_array_equal(found.exit_layer_B[~near], expected.exit_layer_B[~near])
            np.testing.assert_allclose(found.probabilities_BxN[~near], expected.probabilities_BxN[~near], atol=1e-5)
            leading = np.sort(expected.probabilities_BxN, -1)[:, -2:]
            clear = ~near & (leading[:, 1] - leading[:, 0] > ROUNDING)
            labels = (answers.probabilities_BxN.argmax(-1)[clear] for answers in (found, expected))
            np.testing.assert_array_equal(*labels)
        depths |= set(expected.exit_layer_B.tolist())
    return depths


@pytest.mark.slow
def test_ten_thousand_texts_get_one_answer_from_all_engines() -> None:
    depths: set[int] = set()
    for seed, (classes, exits) in enumerate(CASES):
        depths |= assert_all_agree(classes, exits, texts=10_000 // len(CASES) + 4, seed=100 * seed)
    assert depths == set(range(1, LAYERS + 1))

"""The official answers at BERT-base's size, by tests/golden/official_base.npz: 560 texts and pairs, six speeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastbert_jax
from fastbert_jax.config import ConvertConfig, Mode
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.convert import convert
from fastbert_jax.text.examples import Text
from tests.golden.official_base_weights import base_weights
from tests.model.torch_files import write_state_dict

DIRECTORY = Path(__file__).parent.parent / "golden"
TEXTS, GOLDEN = np.load(DIRECTORY / "official.npz"), np.load(DIRECTORY / "official_base.npz")
LABELS = ("bad", "fair", "good")
LENGTH = 48
TOLERANCE = 1e-5
"""Of a logit, relative to the largest of its exit."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(official_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The converted model; its length buckets are the one length that the official code has."""
    directory = tmp_path_factory.mktemp("base")
    shapes = json.loads(str(GOLDEN["shapes"]))
    tensors = {
        name: GOLDEN[name] if name in GOLDEN else base_weights(name, tuple(shape)) for name, shape in shapes.items()
    }
    checkpoint = write_state_dict(directory / "base.bin", tensors)
    convert(
        ConvertConfig(
            input=str(checkpoint),
            vocab=str(official_directory / "vocab.txt"),
            labels=LABELS,
            output=str(directory / "model"),
            max_length=LENGTH,
        )
    )
    return fastbert_jax.load(directory / "model")


def texts() -> list[Text]:
    """500 texts, and 60 pairs."""
    pairs = [(first, second) for first, second in json.loads(str(TEXTS["pairs"]))]
    return [*json.loads(str(TEXTS["texts"])), *pairs]


def test_logits_labels_and_executed_layers_are_the_official_ones(predictor: Predictor) -> None:
    plan = predictor.plan(texts())
    probabilities_BxLxN, _ = predictor.all_exits(plan)
    logits_BxLxN = np.concatenate([GOLDEN["package_logits"], GOLDEN["script_logits"]])
    # A softmax leaves of logits what their mean over the classes does not hold.
    found, expected = (
        values - values.mean(-1, keepdims=True)
        for values in (np.log(probabilities_BxLxN.astype(np.float64)), logits_BxLxN.astype(np.float64))
    )
    assert found.shape == (560, 12, 3) and (expected.std(0) > 0.5).all()
    difference_L = np.abs(found - expected).max((0, 2)) / np.abs(expected).max((0, 2))
    assert (difference_L < TOLERANCE).all(), difference_L
    depths = []
    for place, speed in enumerate(TEXTS["speeds"].tolist()):
        answers = predictor.predict(texts(), speed=speed, mode=Mode.CASCADE)
        official = np.concatenate([GOLDEN["package_answers"][place], GOLDEN["script_answers"][place]])
        ours = [(LABELS.index(answer.label), answer.exit_layer) for answer in answers]
        np.testing.assert_array_equal(ours, official, err_msg=f"speed {speed}")
        depths.append(len(np.unique(official[:, 1])))
    assert depths[0] == 1 and depths[-1] == 1 and min(depths[1:-1]) > 3

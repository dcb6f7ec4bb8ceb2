"""Our numbers against PyTorch's, from the files in tests/golden: the backbone's hidden states and an exit's logits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import Activation, BertConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.exits import Exit
from fastbert_jax.model.weights import load_params
from fastbert_jax.text.batches import Batch

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCE = 1e-4


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def backbone_difference(
    directory: Path, inputs: dict[str, np.ndarray], expected: np.ndarray, **changes: object
) -> float:
    """The largest difference of a hidden state at a real token."""
    config = read_bert_config(directory, num_classes=2, exit_size=128, exit_heads=2)
    config = dataclasses.replace(config, **changes)
    ids, types, positions, mask = (
        inputs[name].astype(np.int32) for name in ("input_ids", "token_type_ids", "position_ids", "attention_mask")
    )
    none_Bx1 = np.zeros((len(ids), 1), np.int32)
    batch = Batch(ids, types, positions, mask, none_Bx1, none_Bx1, none_Bx1 == 0)
    hidden_LxBxSxH = jax.jit(Bert(config).hidden_states)(load_params(directory, config, exits=False), batch)
    assert hidden_LxBxSxH.shape == expected.shape and hidden_LxBxSxH.dtype == jnp.float32
    real = inputs["attention_mask"] == 1
    return float(np.abs(np.asarray(hidden_LxBxSxH)[:, real] - expected[:, real]).max())


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_every_layer_of_a_random_bert(activation: str) -> None:
    inputs = golden("small_bert.npz")
    ours = {"gelu": Activation.GELU, "gelu_new": Activation.GELU_TANH, "relu": Activation.RELU}
    for name, ours_name in ours.items():
        difference = backbone_difference(
            GOLDEN / "small_bert", inputs, inputs[f"hidden_{activation}"], activation=ours_name
        )
        assert (difference < TOLERANCE) == (name == activation), (name, difference)


def test_every_layer_of_minilm(minilm_directory: Path) -> None:
    inputs = golden("minilm.npz")
    assert (inputs["attention_mask"] == 0).any(axis=1).all()
    assert backbone_difference(minilm_directory, inputs, inputs["hidden"]) < TOLERANCE


def test_exit_is_the_released_per_token_exit() -> None:
    """Neither the missing key bias nor the projections moved to the one query change an answer."""
    arrays = golden("exit.npz")
    config = BertConfig(
        vocab_size=2,
        hidden_size=arrays["hidden"].shape[-1],
        num_layers=1,
        num_heads=1,
        feed_forward_size=1,
        num_classes=arrays["logits"].shape[-1],
        exit_size=arrays["narrow.bias"].shape[0],
        exit_heads=2,
    )
    names = ("narrow", "query", "key", "value", "attention_output", "dense", "classifier")
    params = {name: {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]} for name in names}
    assert np.abs(params["key"].pop("bias")).min() > 0
    text_BxS = arrays["mask"].astype(np.int32)
    cls_BxK = np.zeros((len(text_BxS), 1), np.int32)
    logits_BxKxN = Exit(config).apply({"params": params}, arrays["hidden"], text_BxS, cls_BxK)
    np.testing.assert_allclose(logits_BxKxN[:, 0], arrays["logits"], atol=1e-5, rtol=0)

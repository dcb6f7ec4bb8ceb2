"""The parameters and the precision of what the engines run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import Precision
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.model.bert import FLOAT32_PARTS, Bert
from tests.inference.models import batch_of, random_texts, tiny_config, tiny_params

CONFIG = tiny_config(3)
BATCH = batch_of(random_texts(8, longest=16), batch_size=8, length=16)


def test_parameters_are_kept_in_the_dtype_of_their_use_and_the_answers_are_the_same() -> None:
    network, params = Bert(CONFIG, precision=Precision.BFLOAT16), tiny_params(CONFIG)
    runtime = Runtime(params, network)
    for path, leaf in jax.tree_util.tree_leaves_with_path(runtime.params):
        in_float32 = any(entry.key in FLOAT32_PARTS for entry in path)
        assert leaf.dtype == (jnp.float32 if in_float32 else jnp.bfloat16), path
    cast_at_call = jax.jit(runtime.run_all_exits)(params, BATCH)
    jax.tree.map(np.testing.assert_array_equal, runtime.all_exits(BATCH), cast_at_call)


def test_abstract_parameters_have_the_same_dtypes() -> None:
    network, params = Bert(CONFIG, precision=Precision.BFLOAT16), tiny_params(CONFIG)
    real, abstract = Runtime(params, network).params, Runtime(jax.eval_shape(lambda: params), network).params
    assert jax.tree.map(lambda leaf: leaf.dtype, abstract) == jax.tree.map(lambda leaf: leaf.dtype, real)


@pytest.mark.parametrize(("precision", "name"), [("FLOAT32", "HIGHEST"), ("TENSORFLOAT32", "HIGH")])
def test_every_matrix_product_of_float32_says_its_precision(precision: str, name: str) -> None:
    """Where a product says none, a GPU computes in TF32 and a TPU in bfloat16."""
    network, params = Bert(CONFIG, precision=Precision[precision]), tiny_params(CONFIG)

    def loss(params: dict) -> jax.Array:
        return network.trace(params, BATCH).exit_logits_LxBxKxN.sum()

    products = [line for line in jax.jit(jax.grad(loss)).lower(params).as_text().splitlines() if "dot_general" in line]
    assert products and all(f"precision = [{name}, {name}]" in line for line in products)

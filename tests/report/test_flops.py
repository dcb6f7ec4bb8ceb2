"""FLOPs: the paper's numbers to the last digit, and the true ones against a count made from the shapes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from fastbert_jax.config import BertConfig, DistilConfig, ExitKind
from fastbert_jax.model.bert import Bert, EncoderLayer
from fastbert_jax.model.exits import Exit
from fastbert_jax.recipes.fastbert import self_distillation
from fastbert_jax.report import flops
from fastbert_jax.report.flops import Count
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.optimizer import Optimizer
from fastbert_jax.training.step import init_state, train_step
from fastbert_jax.training.terms import COMPUTED, KEPT, Kept, split

BERT_BASE = Bert(
    BertConfig(vocab_size=30522, hidden_size=768, num_layers=12, num_heads=12, feed_forward_size=3072, num_classes=2)
)
MINILM = Bert(
    BertConfig(vocab_size=30522, hidden_size=384, num_layers=6, num_heads=12, feed_forward_size=1536, num_classes=8)
)


def speedup(count: Count, network: Bert, lengths: list[int], depths: list[int], **asked: tuple[bool, ...]) -> float:
    """FLOPs of plain BERT over those of early exit."""
    total = functools.partial(flops.total_flops, count, network, lengths)
    return total([network.num_layers] * len(lengths), asked=flops.only_the_last(network)) / total(depths, **asked)


def test_the_papers_numbers() -> None:
    assert flops.text_flops(Count.PAPER, BERT_BASE, 128, 12, exits_evaluated=1) == 21_785_247_744
    assert flops.text_flops(Count.PAPER, BERT_BASE, 128, 1) == 1_853_915_136
    assert flops.text_flops(Count.PAPER, BERT_BASE, 128, 12) == 22_246_981_632
    assert BERT_BASE.paper_exit_flops(128) == 41_975_808
    assert speedup(Count.PAPER, BERT_BASE, [128], [1]) == pytest.approx(11.751, abs=5e-4)


def test_the_papers_numbers_of_whole_runs() -> None:
    """Table 3's fixed depths, 11123M and 3707M a text; Book review at speed 0.5 and at full depth."""
    for depth, millions in ((6, 11123), (2, 3707)):
        run = flops.total_flops(Count.PAPER, BERT_BASE, [128] * 10_000, [depth] * 10_000)
        assert run // 10_000 // 10**6 == millions
        assert run == 10_000 * depth * 1_853_915_136
    full = flops.total_flops(
        Count.PAPER, BERT_BASE, [128] * 10_000, [12] * 10_000, asked=flops.only_the_last(BERT_BASE)
    )
    assert full == 10_000 * 21_785_247_744
    # README.md of autoliuweijie/FastBERT prints 5170940327 FLOPs a text: 27892 layers for 10,000 texts.
    depths = [2] * 2_108 + [3] * 7_892
    run = flops.total_flops(Count.PAPER, BERT_BASE, [128] * 10_000, depths)
    assert run / 10_000 == pytest.approx(5_170_940_327, rel=1e-7)
    assert speedup(Count.PAPER, BERT_BASE, [128] * 10_000, depths) == pytest.approx(4.21, abs=5e-3)


def test_the_true_numbers_of_bert_base() -> None:
    """By hand: QK^T and the average of the values are 2 x 2 x 128^2 x 768 more a layer; an exit keeps one query."""
    assert BERT_BASE.layer_flops(128) == 1_811_939_328 + 50_331_648
    assert sum(BERT_BASE.exit_flops(128)) == 25_165_824 + 131_072 + 163_840 + 512
    assert flops.text_flops(Count.TRUE, BERT_BASE, 128, 1) == 1_887_732_224
    assert flops.text_flops(Count.TRUE, BERT_BASE, 128, 12, exits_evaluated=1) == 22_372_712_960


@pytest.mark.parametrize(("network", "absorbed", "per_token"), [(MINILM, 2.8, 6.5), (BERT_BASE, 1.4, 2.3)])
def test_what_an_exit_costs_of_a_layer(network: Bert, absorbed: float, per_token: float) -> None:
    layer = network.paper_layer_flops(128)
    assert round(100 * sum(network.exit_flops(128)) / layer, 1) == absorbed
    assert round(100 * network.paper_exit_flops(128) / layer, 1) == per_token


def count_products(jaxpr: jax.extend.core.Jaxpr) -> int:
    """2 x multiplications of every matrix product in a traced program, as often as a scan repeats it."""
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            total += times * count_products(inner) if hasattr(inner, "eqns") else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner_size = np.prod([equation.invars[0].aval.shape[axis] for axis in contracted], dtype=np.int64)
            total += 2 * int(inner_size) * equation.outvars[0].aval.size
    return total


@pytest.mark.parametrize("kind", ExitKind)
def test_true_exit_flops_are_those_of_the_program(kind: ExitKind) -> None:
    config = dataclasses.replace(MINILM.config, exit_kind=kind)
    hidden = jax.ShapeDtypeStruct((1, 40, MINILM.hidden_size), np.float32)
    text, cls = jax.ShapeDtypeStruct((1, 40), np.int32), jax.ShapeDtypeStruct((1, 1), np.int32)
    program = jax.make_jaxpr(lambda key, *inputs: Exit(config).init_with_output(key, *inputs)[0])
    traced = program(jax.random.key(0), hidden, text, cls)
    assert count_products(traced.jaxpr) == sum(Bert(config).exit_flops(40))


def test_true_layer_flops_are_those_of_the_program() -> None:
    hidden, text = jax.ShapeDtypeStruct((1, 40, MINILM.hidden_size), np.float32), jax.ShapeDtypeStruct((1, 40), "int32")
    program = jax.make_jaxpr(lambda key, *inputs: EncoderLayer(MINILM.config).init_with_output(key, *inputs)[0])
    traced = program(jax.random.key(0), hidden, text)
    assert count_products(traced.jaxpr) == MINILM.layer_flops(40)


@pytest.mark.parametrize(
    ("texts", "case", "kind", "exit_layers"),
    [
        (1, COMPUTED, ExitKind.ATTENTION, ()),
        (5, COMPUTED, ExitKind.ATTENTION, (2, 4, 6)),
        (5, KEPT, ExitKind.ATTENTION, (2, 4, 6)),
        (1, COMPUTED, ExitKind.LINEAR, ()),
        (5, KEPT, ExitKind.LINEAR, ()),
    ],
)
def test_distillation_flops_are_those_of_the_step(
    texts: int, case: str, kind: ExitKind, exit_layers: tuple[int, ...]
) -> None:
    rows, length = 3, 40
    layers = exit_layers or MINILM.config.exit_layers
    network = Bert(dataclasses.replace(MINILM.config, exit_kind=kind, exit_layers=layers))
    ids = jax.ShapeDtypeStruct((rows, length), np.int32)
    places = jax.ShapeDtypeStruct((rows, texts), np.int32)
    views = {"batch": Batch(ids, ids, ids, ids, places, places, jax.ShapeDtypeStruct((rows, texts), np.bool_))}
    if case == KEPT:
        views["kept"] = Kept(jax.ShapeDtypeStruct((rows, texts, network.config.num_classes), np.float32))
    (phase,) = self_distillation(network, DistilConfig(cache_teacher=case == KEPT))
    optimizer = Optimizer(phase.settings, 9)

    def step(key: jax.Array, views: dict[str, object]) -> object:
        trained, frozen = split({"model": network.init(key)}, phase.trains)
        state = init_state(trained, optimizer, phase)
        return train_step(state, frozen, views, case=phase.cases[case], optimizer=optimizer, accumulate=1, key=key)

    key = jax.random.key(0)
    found = count_products(jax.make_jaxpr(step)(key, views).jaxpr)
    found -= count_products(jax.make_jaxpr(network.init)(key).jaxpr)
    assert found == rows * flops.distillation_flops(network, length, texts=texts, targets_known=case == KEPT)
    assert found == rows * phase.cases[case].row_flops(length, texts)


@pytest.mark.parametrize("count", Count)
def test_speed_0_is_plain_bert(count: Count) -> None:
    lengths, depths = [16, 128, 64], [6, 6, 6]
    assert speedup(count, MINILM, lengths, depths, asked=flops.only_the_last(MINILM)) == 1.0
    assert 0.8 < speedup(count, MINILM, lengths, depths) < 1.0


@pytest.mark.parametrize("count", Count)
def test_many_texts_cost_the_sum_of_each(count: Count) -> None:
    one = functools.partial(flops.text_flops, count)
    lengths, depths = [16, 128, 16, 64], [1, 6, 3, 2]
    expected = sum(one(MINILM, length, depth) for length, depth in zip(lengths, depths, strict=True))
    assert flops.total_flops(count, MINILM, lengths, depths) == expected
    assert speedup(count, MINILM, lengths, depths) == pytest.approx(
        sum(one(MINILM, length, 6, exits_evaluated=1) for length in lengths) / expected
    )


def test_small_numpy_integers_do_not_overflow() -> None:
    lengths, depths = np.full(3, 512, np.int16), np.full(3, 12, np.int8)
    expected = 3 * flops.text_flops(Count.TRUE, BERT_BASE, 512, 12)
    assert flops.total_flops(Count.TRUE, BERT_BASE, lengths, depths) == expected


@pytest.mark.parametrize(("layers", "exits"), [(0, None), (7, None), (3, 4), (3, -1)])
def test_depths_that_cannot_be(layers: int, exits: int | None) -> None:
    with pytest.raises(ValueError, match="expected 1 to 6 executed layers"):
        flops.text_flops(Count.TRUE, MINILM, 16, layers, exits_evaluated=exits)

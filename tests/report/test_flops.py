"""FLOPs: the paper's numbers to the last digit, and the true ones against a count made from the shapes."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from fastbert_jax.config import BertConfig, DistilConfig, ExitKind, FineTuneConfig
from fastbert_jax.model.bert import Bert, EncoderLayer
from fastbert_jax.model.exits import Exit
from fastbert_jax.report import flops
from fastbert_jax.report.flops import Count
from fastbert_jax.text.batches import Batch
from fastbert_jax.training.fastbert_recipe import fastbert_recipe
from fastbert_jax.training.optimizer import make_optimizer
from fastbert_jax.training.recipe import Known, split
from fastbert_jax.training.step import init_state, train_step

BERT_BASE = BertConfig(
    vocab_size=30522, hidden_size=768, num_layers=12, num_heads=12, feed_forward_size=3072, num_classes=2
)
MINILM = BertConfig(
    vocab_size=30522, hidden_size=384, num_layers=6, num_heads=12, feed_forward_size=1536, num_classes=8
)


def test_the_papers_numbers() -> None:
    assert flops.paper_flops(BERT_BASE, 128, 12, exits_evaluated=1) == 21_785_247_744
    assert flops.paper_flops(BERT_BASE, 128, 1) == 1_853_915_136
    assert flops.paper_flops(BERT_BASE, 128, 12) == 22_246_981_632
    assert flops.paper_exit_flops(BERT_BASE, 128) == 41_975_808
    assert flops.speedup(Count.PAPER, BERT_BASE, [128], [1]) == pytest.approx(11.751, abs=5e-4)


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
    assert flops.speedup(Count.PAPER, BERT_BASE, [128] * 10_000, depths) == pytest.approx(4.21, abs=5e-3)


def test_the_true_numbers_of_bert_base() -> None:
    """By hand: QK^T and the average of the values are 2 x 2 x 128^2 x 768 more a layer; an exit keeps one query."""
    assert flops.true_layer_flops(BERT_BASE, 128) == 1_811_939_328 + 50_331_648
    assert flops.true_exit_flops(BERT_BASE, 128) == 25_165_824 + 131_072 + 163_840 + 512
    assert flops.true_flops(BERT_BASE, 128, 1) == 1_887_732_224
    assert flops.true_flops(BERT_BASE, 128, 12, exits_evaluated=1) == 22_372_712_960


@pytest.mark.parametrize(("config", "absorbed", "per_token"), [(MINILM, 2.8, 6.5), (BERT_BASE, 1.4, 2.3)])
def test_what_an_exit_costs_of_a_layer(config: BertConfig, absorbed: float, per_token: float) -> None:
    layer = flops.paper_layer_flops(config, 128)
    assert round(100 * flops.true_exit_flops(config, 128) / layer, 1) == absorbed
    assert round(100 * flops.paper_exit_flops(config, 128) / layer, 1) == per_token


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
    config = dataclasses.replace(MINILM, exit_kind=kind)
    hidden = jax.ShapeDtypeStruct((1, 40, MINILM.hidden_size), np.float32)
    text, cls = jax.ShapeDtypeStruct((1, 40), np.int32), jax.ShapeDtypeStruct((1, 1), np.int32)
    program = jax.make_jaxpr(lambda key, *inputs: Exit(config).init_with_output(key, *inputs)[0])
    traced = program(jax.random.key(0), hidden, text, cls)
    assert count_products(traced.jaxpr) == flops.true_exit_flops(config, 40)


def test_true_layer_flops_are_those_of_the_program() -> None:
    hidden, text = jax.ShapeDtypeStruct((1, 40, MINILM.hidden_size), np.float32), jax.ShapeDtypeStruct((1, 40), "int32")
    program = jax.make_jaxpr(lambda key, *inputs: EncoderLayer(MINILM).init_with_output(key, *inputs)[0])
    traced = program(jax.random.key(0), hidden, text)
    assert count_products(traced.jaxpr) == flops.true_layer_flops(MINILM, 40)


@pytest.mark.parametrize(
    ("texts", "teacher_known", "kind"),
    [
        (1, False, ExitKind.ATTENTION),
        (5, False, ExitKind.ATTENTION),
        (5, True, ExitKind.ATTENTION),
        (1, False, ExitKind.LINEAR),
        (5, True, ExitKind.LINEAR),
    ],
)
def test_distillation_flops_are_those_of_the_step(texts: int, teacher_known: bool, kind: ExitKind) -> None:
    config, rows, length = dataclasses.replace(MINILM, exit_kind=kind), 3, 40
    ids = jax.ShapeDtypeStruct((rows, length), np.int32)
    places = jax.ShapeDtypeStruct((rows, texts), np.int32)
    batch = Batch(ids, ids, ids, ids, places, places, jax.ShapeDtypeStruct((rows, texts), np.bool_))
    distil = DistilConfig(cache_teacher=teacher_known)
    phase = fastbert_recipe(Bert(config), fine_tune=FineTuneConfig(), distil=distil).phases[1]
    answers = jax.ShapeDtypeStruct((rows, texts, config.num_classes), np.float32)
    known = Known(answers) if teacher_known else None
    optimizer = make_optimizer(phase.settings, total_steps=9)

    def step(key: jax.Array, batch: Batch, known: Known | None) -> object:
        trained, frozen = split({"model": Bert(config).init(key)}, phase.trainable)
        state = init_state(trained, optimizer)
        return train_step(state, frozen, batch, known, phase=phase, optimizer=optimizer, key=key)

    def init_alone(key: jax.Array) -> object:
        return Bert(config).init(key)

    key = jax.random.key(0)
    found = count_products(jax.make_jaxpr(step)(key, batch, known).jaxpr) - count_products(
        jax.make_jaxpr(init_alone)(key).jaxpr
    )
    assert found == rows * flops.distillation_flops(config, length, texts=texts, teacher_known=teacher_known)
    assert found == rows * phase.on(known).row_flops(length) or texts > 1


@pytest.mark.parametrize("count", Count)
def test_speed_0_is_plain_bert(count: Count) -> None:
    lengths, depths = [16, 128, 64], [6, 6, 6]
    assert flops.speedup(count, MINILM, lengths, depths, asked=flops.only_the_last(MINILM)) == 1.0
    assert 0.8 < flops.speedup(count, MINILM, lengths, depths) < 1.0


@pytest.mark.parametrize("one", [flops.paper_flops, flops.true_flops])
def test_many_texts_cost_the_sum_of_each(one: object) -> None:
    count = Count.PAPER if one is flops.paper_flops else Count.TRUE
    lengths, depths = [16, 128, 16, 64], [1, 6, 3, 2]
    expected = sum(one(MINILM, length, depth) for length, depth in zip(lengths, depths, strict=True))
    assert flops.total_flops(count, MINILM, lengths, depths) == expected
    assert flops.speedup(count, MINILM, lengths, depths) == pytest.approx(
        sum(one(MINILM, length, 6, exits_evaluated=1) for length in lengths) / expected
    )


def test_small_numpy_integers_do_not_overflow() -> None:
    lengths, depths = np.full(3, 512, np.int16), np.full(3, 12, np.int8)
    expected = 3 * flops.true_flops(BERT_BASE, 512, 12)
    assert flops.total_flops(Count.TRUE, BERT_BASE, lengths, depths) == expected
    assert flops.true_flops(BERT_BASE, lengths[0], depths[0]) * 3 == expected


@pytest.mark.parametrize(("layers", "exits"), [(0, None), (7, None), (3, 4), (3, -1)])
def test_depths_that_cannot_be(layers: int, exits: int | None) -> None:
    with pytest.raises(ValueError, match="expected 1 to 6 executed layers"):
        flops.true_flops(MINILM, 16, layers, exits_evaluated=exits)
    with pytest.raises(ValueError, match="at least one text"):
        flops.speedup(Count.TRUE, MINILM, [], [])

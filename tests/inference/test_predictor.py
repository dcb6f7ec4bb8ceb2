"""The predictor: order, settings, what is refused, and loading from a directory."""

from __future__ import annotations

import copy
import json
import pickle
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbert_jax
from fastbert_jax.config import DataConfig, ExitConfig, PolicyName
from fastbert_jax.config_yaml import to_dict
from fastbert_jax.errors import UserError
from fastbert_jax.inference.calibration import Calibration
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.policies import margin, patience
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.examples import checked_texts
from tests.inference.models import LAYERS
from tests.inference.saved import LABELS, save_tiny_model, some_texts
from tests.tiny_bert import write_tiny_bert

TEXTS = some_texts(40)


def test_answers_come_in_the_order_of_the_texts(predictor: Predictor) -> None:
    forwards = predictor.predict(TEXTS, speed=0.5, batch_size=8)
    backwards = predictor.predict(TEXTS[::-1], speed=0.5, batch_size=8)[::-1]
    assert len(forwards) == len(TEXTS)
    assert len({answer.label for answer in forwards}) > 1
    for one, other in zip(forwards, backwards, strict=True):
        assert (one.label, one.exit_layer) == (other.label, other.exit_layer)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_an_answer_holds_what_its_exit_said(predictor: Predictor) -> None:
    exits_NxLxC = predictor.exit_probabilities(TEXTS, batch_size=8)
    assert exits_NxLxC.shape == (len(TEXTS), LAYERS, len(LABELS)) and exits_NxLxC.dtype == np.float32
    answers = predictor.predict(TEXTS, speed=0.5, batch_size=8)
    assert len({answer.exit_layer for answer in answers}) > 2
    for answer, exits_LxC in zip(answers, exits_NxLxC, strict=True):
        expected = exits_LxC[answer.exit_layer - 1]
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        assert answer.label == LABELS[expected.argmax()]
        entropy = -(expected * np.log(expected)).sum() / np.log(len(LABELS))
        np.testing.assert_allclose(answer.uncertainty, entropy, atol=1e-4)
        assert answer.exit_layer == LAYERS or answer.uncertainty < 0.5


@pytest.mark.slow
def test_modes_are_one_answer_and_speed_0_is_full_depth(predictor: Predictor) -> None:
    for speed in (0, 0.5):
        masked = predictor.predict(TEXTS, speed=speed, mode="masked", batch_size=8)
        for mode in ("bucketed", "cascade", "graph-cascade"):
            skipping = predictor.predict(TEXTS, speed=speed, mode=mode, batch_size=8)
            assert [(a.label, a.exit_layer) for a in masked] == [(a.label, a.exit_layer) for a in skipping]
    assert {answer.exit_layer for answer in predictor.predict(TEXTS, speed=0, batch_size=8)} == {LAYERS}


@pytest.mark.slow
def test_programs_do_not_grow_with_the_texts(directory: Path) -> None:
    predictor = load(directory)
    texts = some_texts(200, seed=3)
    predictor.predict(texts, batch_size=8)
    before = predictor.compiled_programs
    predictor.predict(texts[::-1] + texts, batch_size=8)
    for speed in (0.2, 0.8):
        predictor.predict(texts, speed=speed, batch_size=8)
    lengths, buckets = len(predictor.length_buckets), 6  # 1, 2, 3, 4, 6, 8
    assert predictor.compiled_programs <= lengths * (buckets + buckets + buckets * (buckets - 1) // 2)
    assert before <= predictor.compiled_programs


def test_no_text_empty_text_and_pairs(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.exit_probabilities([]).shape == (0, LAYERS, len(LABELS))
    assert predictor.hidden_states([]) == []
    answers = predictor.predict(["", "   ", ("good film", "bad film"), ("", "")], batch_size=8)
    assert [answer.label in LABELS for answer in answers] == [True] * 4
    alone, pair = predictor.exit_probabilities(["good film", ("good film", "bad film")], batch_size=8)
    assert abs(alone - pair).max() > 1e-3


def test_texts_that_are_too_long_or_of_unknown_words_get_an_answer_too(predictor: Predictor) -> None:
    head = " ".join("a" * (predictor.max_length - 2))
    texts = [f"{head} {'the ' * 10 * predictor.max_length}", head, "龘龘", "\u3000 \t", "龘 龘"]
    plan = predictor.plan(texts, batch_size=8)
    assert plan.truncated_texts == 1
    whole, cut, *others = predictor.exit_probabilities(texts, batch_size=8)
    np.testing.assert_allclose(whole, cut, atol=1e-5)
    assert all(np.isfinite(probabilities).all() for probabilities in others)


def test_hidden_states_have_one_row_per_token(predictor: Predictor) -> None:
    encoded = predictor.tokenizer.encode(TEXTS[:5], max_length=predictor.max_length)
    states = predictor.hidden_states(TEXTS[:5], batch_size=8)
    assert [state.shape for state in states] == [(LAYERS + 1, length, 16) for length in encoded.lengths]
    assert states[0].dtype == np.float32
    for one, other in zip(states, predictor.hidden_states(TEXTS[4::-1], batch_size=8)[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_batch_callback_counts_every_text(predictor: Predictor) -> None:
    counts: list[int] = []
    predictor.predict(TEXTS, batch_size=8, on_batch=counts.append)
    assert sum(counts) == len(TEXTS) and max(counts) <= 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mode": "fast"},
            r"mode: expected one of \['auto', 'masked', 'bucketed', 'cascade', 'graph-cascade'\], found 'fast'",
        ),
        ({"speed": 1.5}, rf"speed: expected one number or {LAYERS} numbers in \[0, 1\], found 1.5"),
        ({"speed": float("nan")}, r"speed: expected one number or .* found nan"),
        ({"speed": "fast"}, r"speed: expected one number or .* found 'fast'"),
        ({"speed": True}, r"speed: expected one number or .* found True"),
        ({"speed": 10**400}, r"speed: expected one number or .* found 1000"),
        ({"target": "max-drop=7"}, r"calibration.json: no calibration for 'max-drop=7'; make it with"),
        ({"target": 0.5}, r"no calibration for 0.5; make it with"),
        ({"batch_size": "8"}, r"batch_size: expected 1 or more, or 0 to go by batch_tokens, found '8'"),
        ({"batch_tokens": 64.0}, r"batch_tokens: expected 1 or more, or 0 to go by the device, found 64.0"),
        ({"speed": [0.5, 0.5]}, r"speed: expected one number or .* found \[0.5, 0.5\]"),
        ({"batch_size": -1}, r"batch_size: expected 1 or more, or 0 to go by batch_tokens, found -1"),
        ({"batch_tokens": -1}, r"batch_tokens: expected 1 or more, or 0 to go by the device, found -1"),
    ],
)
def test_a_bad_setting_is_refused(predictor: Predictor, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predictor.predict(TEXTS, **settings)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", r"expected a list of texts, found the str 'one text'; write \[text\] or \[\(text, pair\)\]"),
        (("a", "b"), r"found the tuple \('a', 'b'\); write \[text\] or \[\(text, pair\)\]"),
        (["fine", None], r"texts\[1\]: expected a text, found none \(null\); a text is a string or a pair \(tuple\)"),
        ([("a",)], r"texts\[0\]: expected a text or a pair of texts, found 1 of them"),
        ([("a", "b", "c")], r"texts\[0\]: expected a text or a pair of texts, found 3 of them"),
        ([("a", 1)], r"texts\[0\]: expected a text, found the int '1'"),
        ([b"bytes"], r"texts\[0\]: expected a text, found the bytes"),
        (7, r"expected a list of texts, found the int 7"),
        ({"text": ["fine"]}, r"expected a list of texts, found the dict .*; write .*, pass one column of a table"),
        ({"fine", "poor"}, r"expected a list of texts, found the set .*, or a list of them in their order"),
        (frozenset(["fine"]), r"expected a list of texts, found the frozenset"),
        (b"fine", r"expected a list of texts, found the bytes"),
        (np.array("fine"), r"expected a list of texts, found the ndarray"),
        (np.array([["fine", "film"]]), r"expected a list of texts, found the ndarray"),
        (types.SimpleNamespace(), r"expected a list of texts, found the SimpleNamespace namespace\(\)"),
        ((text for text in ("fine", 1)), r"texts\[1\]: expected a text, found the int '1'"),
        (map(int, "12"), r"texts\[0\]: expected a text, found the int '1'"),
        (np.array([1.5]), r"texts\[0\]: expected a text, found the float64 '1.5'"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_texts(texts)


class DataFrame:
    """Iterates over the names of its columns, as that of pandas does."""

    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(("text", "label"))


class Series(DataFrame):
    """Iterates over its values, as that of pandas does."""

    ndim = 1


def test_a_table_is_refused_and_its_column_is_a_list_of_texts() -> None:
    with pytest.raises(
        UserError, match=r"expected a list of texts, found the DataFrame .*, pass one column of a table"
    ):
        checked_texts(DataFrame())
    assert checked_texts(Series()) == ["text", "label"]


def test_what_holds_texts_in_their_order_is_a_list_of_texts(predictor: Predictor) -> None:
    expected = [answer.to_dict() for answer in predictor.predict(TEXTS[:3], batch_size=8)]
    for texts in (tuple(TEXTS[:3]), np.array(TEXTS[:3]), np.array(TEXTS[:3], object), iter(TEXTS[:3])):
        assert [answer.to_dict() for answer in predictor.predict(texts, batch_size=8)] == expected


def test_an_answer_is_json_with_the_names_of_the_labels(predictor: Predictor) -> None:
    (answer,) = predictor.predict(["good film"], batch_size=8)
    values = json.loads(json.dumps(answer.to_dict()))
    assert list(values) == ["label", "probabilities", "exit_layer", "uncertainty"]
    assert tuple(values["probabilities"]) == LABELS
    np.testing.assert_allclose(list(values["probabilities"].values()), answer.probabilities, atol=1e-6)
    assert values["label"] == max(values["probabilities"], key=values["probabilities"].__getitem__) == answer.label
    assert list(answer.to_dict(top=1)["probabilities"]) == [answer.label]


def test_a_predictor_says_why_it_is_not_pickled_or_copied(predictor: Predictor) -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UserError, match=r"cannot be pickled or copied.*call fastbert_jax\.load\(directory\) there"):
            take(predictor)


def test_a_calibrated_target_is_what_the_command_line_makes_of_it(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    thresholds = [0.0, 0.6, 0.0, 0.6, 0.0]
    calibration = Calibration(
        target="max-drop=0.5",
        thresholds=tuple(thresholds),
        exits=ExitConfig(every=2),
        data="dev.tsv",
        texts=1,
        mean_depth=1.0,
        layers=LAYERS,
        agreement=1.0,
        accuracy=None,
        full_accuracy=None,
        speedup=Spread(1.0, 1.0, 1.0),
        confidence=None,
        mode="masked",
        device="cpu",
        date="2024-01-01",
    )
    (directory / "calibration.json").write_text(json.dumps({"max-drop=0.5": to_dict(calibration)}))
    predictor = load(directory)
    with pytest.MonkeyPatch.context() as patch:  # what fails once is not half there the next time
        patch.setattr(Predictor, "_ask", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictor.predict(TEXTS, target="max-drop=0.5")
    found = predictor.predict(TEXTS, target="max-drop=0.5", mode="masked", batch_size=8)
    asked = load(directory, exits=ExitConfig(every=2))
    expected = asked.predict(TEXTS, speed=np.array(thresholds), mode="masked", batch_size=8)
    assert [answer.to_dict() for answer in found] == [answer.to_dict() for answer in expected]
    assert {answer.exit_layer for answer in found} == {2, 4, 5}
    (directory / "calibration.json").write_text("[]")
    with pytest.raises(UserError, match=r"not a file of `infer.py calibrate` \(list in place of an object\)"):
        predictor.predict(TEXTS, target="max-drop=0.5")


def test_an_own_policy_decides_where_texts_exit(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")

    def answers(**settings: Any) -> list[tuple[str, int, float]]:
        found = load(directory, **settings).predict(TEXTS[:12], speed=0.6, mode="bucketed", batch_size=4)
        return [(answer.label, answer.exit_layer, answer.uncertainty) for answer in found]

    assert answers(policy=margin) == answers(exits=ExitConfig(policy=PolicyName.MARGIN)) != answers()
    assert answers(policy=patience(1)) == answers(exits=ExitConfig(policy=PolicyName.PATIENCE, patience=1))
    for policy, exits in ((margin, ExitConfig(policy=PolicyName.MARGIN)), (0.5, ExitConfig())):
        with pytest.raises(UserError, match="policy: expected"):
            load(directory, policy=policy, exits=exits)


def test_labels_must_fit_the_model(predictor: Predictor) -> None:
    settings = {"max_length": 16, "length_buckets": (16,)}
    with pytest.raises(UserError, match="expected 3 labels, one per class of the model, found 2"):
        Predictor({}, predictor.config, predictor.tokenizer, labels=("a", "b"), **settings)


def test_a_run_loads_as_its_model_does(directory: Path) -> None:
    for path in (directory, directory.parent, str(directory)):
        predictor = fastbert_jax.load(path)
        assert predictor.labels == LABELS
        assert predictor.length_buckets == (8, 16)
    assert fastbert_jax.Predictor is Predictor and "load" in dir(fastbert_jax)
    with pytest.raises(AttributeError, match="nothing"):
        fastbert_jax.nothing  # noqa: B018


def test_a_plain_bert_gives_hidden_states_only(tiny_bert_directory: Path) -> None:
    backbone = load(tiny_bert_directory)
    states = backbone.hidden_states(["the good", "bad"])
    assert [state.shape for state in states] == [(4, 4, 16), (4, 3, 16)]
    assert backbone.length_buckets == DataConfig(max_length=20).lengths
    for ask in (backbone.predict, backbone.exit_probabilities):
        with pytest.raises(UserError, match="found a backbone without exits, which has hidden_states only; train it"):
            ask(["the good"])


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the directory of a run or of a model, found nothing at .*; check"):
        load(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="found a file at"):
        load(tmp_path / "file")
    with pytest.raises(UserError, match=r"found neither model/config.json nor config.json in"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=r"found a run that is not finished; finish it with `python train.py --config"):
        load(tmp_path)


def test_a_model_with_strange_extras_or_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    del config["fastbert"]["extra"]["labels"]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="expected labels, max_length, length_buckets, precision, found no labels"):
        load(directory)

    directory = save_tiny_model(tmp_path / "other", vocab_size=30)
    with pytest.raises(UserError, match="expected a tokenizer of at most 30 tokens"):
        load(directory)


def test_code_that_a_model_names_is_said_once_and_not_run(tiny_bert_directory: Path, capsys: Any) -> None:
    load(tiny_bert_directory)
    assert capsys.readouterr().err == ""
    path = tiny_bert_directory / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"auto_map": {"AutoModel": "modeling_own.OwnBert"}}))
    load(tiny_bert_directory)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"{path} names code of its own (auto_map), which is never run")


def test_pairs_for_a_model_of_one_token_type_are_refused(tmp_path: Path) -> None:
    model = load(write_tiny_bert(tmp_path, type_vocab_size=1))
    assert model.plan(["good bad"]).texts == 1
    with pytest.raises(UserError, match="expected single texts, as the model has 1 token type"):
        model.plan(["good", ("good", "bad")])

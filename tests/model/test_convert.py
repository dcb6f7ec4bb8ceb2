"""Official checkpoints as models of ours: the same logits, labels and layers; and what is said of what does not fit.

The official numbers are those of tests/golden/official.npz.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import fastbert_jax
from fastbert_jax.config import CheckpointKind, ConvertConfig, LayerNormKind, Mode, TextForm
from fastbert_jax.errors import UserError
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model import convert as convert_module
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import ConfigJson
from fastbert_jax.model.convert import convert
from fastbert_jax.model.state_dicts import read_state_dict
from fastbert_jax.model.weights import load_model
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.examples import Text
from tests.model.torch_files import write_state_dict

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "official.npz")
LABELS = ("bad", "fair", "good")
LENGTH = 48
TOLERANCE = 1e-5
"""Of a logit, relative to the largest of its exit."""
Tensors = dict[str, np.ndarray]


def settings(directory: Path, name: str, output: Path, **changes: object) -> ConvertConfig:
    paths = {"input": directory / f"{name}.bin", "vocab": directory / "vocab.txt", "output": output}
    values: dict = {key: str(path) for key, path in paths.items()}
    values |= {"labels": () if name == "backbone" else LABELS, "num_heads": 4, "max_length": LENGTH}
    return ConvertConfig(**(values | changes))


@pytest.fixture(scope="module")
def models(official_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted `package`, `script` and `backbone`."""
    output = tmp_path_factory.mktemp("converted")
    for name in ("package", "script", "backbone"):
        convert(settings(official_directory, name, output / name))
    return output


@pytest.fixture(scope="module")
def predictors(models: Path) -> dict[str, Predictor]:
    return {name: fastbert_jax.load(models / name) for name in ("package", "script", "backbone")}


def texts_of(name: str) -> list[Text]:
    """The 500 single texts, and for the script the pairs too."""
    pairs = [(first, second) for first, second in json.loads(str(GOLDEN["pairs"]))]
    return json.loads(str(GOLDEN["texts"])) + (pairs if name == "script" else [])


@pytest.mark.parametrize("name", ["package", "script"])
def test_tokens_and_segments_are_the_official_ones(predictors: dict[str, Predictor], name: str) -> None:
    encoded = predictors[name].tokenizer.encode(texts_of(name), max_length=LENGTH)
    ids, segments = GOLDEN[f"{name}_ids"], GOLDEN[f"{name}_segments"]
    assert len(encoded) == len(ids) and encoded.truncated_texts > 100
    for text in range(len(ids)):
        one, real = encoded.take(np.array([text])), segments[text] > 0
        np.testing.assert_array_equal(one.token_ids, ids[text][real])
        np.testing.assert_array_equal(one.token_types + 1, segments[text][real])


@pytest.mark.parametrize("name", ["package", "script"])
def test_logits_of_every_exit_are_the_official_ones(models: Path, name: str) -> None:
    params, config, _ = load_model(models / name)
    ids, segments = (GOLDEN[f"{name}_{part}"].astype(np.int32) for part in ("ids", "segments"))
    position = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ids.shape)
    text, cls = (segments > 0).astype(np.int32), np.zeros((len(ids), 1), np.int32)
    batch = Batch(ids, np.maximum(segments - 1, 0), position, text, cls, cls, cls == 0)
    trace = jax.jit(Bert(config).trace)(params, batch)
    found, expected = np.asarray(trace.exit_logits_LxBxKxN)[:, :, 0], GOLDEN[f"{name}_logits"].swapaxes(0, 1)
    assert len(found) == 3 and (expected.std(1) > 1).all()
    difference = np.abs(found - expected).max((1, 2)) / np.abs(expected).max((1, 2))
    assert (difference < TOLERANCE).all(), difference


def labels_and_layers(predictor: Predictor, texts: list[Text], speed: float, mode: Mode) -> list[tuple[int, int]]:
    answers = predictor.predict(texts, speed=speed, mode=mode)
    return [(LABELS.index(answer.label), answer.exit_layer) for answer in answers]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["package", "script"])
def test_labels_and_executed_layers_are_the_official_ones(predictors: dict[str, Predictor], name: str) -> None:
    """At six speeds, with the shorter static lengths that the official code does not have."""
    depths = []
    for speed, expected in zip(GOLDEN["speeds"].tolist(), GOLDEN[f"{name}_answers"], strict=True):
        found = labels_and_layers(predictors[name], texts_of(name), speed, Mode.MASKED)
        np.testing.assert_array_equal(found, expected, err_msg=f"speed {speed}")
        depths.append(np.unique(expected[:, 1]).tolist())
    assert depths == [[3], *[[1, 2, 3]] * 4, [1]]


@pytest.mark.parametrize("mode", [Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE])
def test_every_engine_gives_the_official_answers(predictors: dict[str, Predictor], mode: Mode) -> None:
    """On the texts of one static length, which is quick to compile."""
    short = np.flatnonzero((GOLDEN["script_segments"] > 0).sum(1) <= 16)
    texts = texts_of("script")
    found = labels_and_layers(predictors["script"], [texts[row] for row in short], 0.6, mode)
    expected = GOLDEN["script_answers"][GOLDEN["speeds"].tolist().index(0.6), short]
    np.testing.assert_array_equal(found, expected)
    assert len(short) > 40 and set(expected[:, 1]) == {1, 2, 3}


def test_a_backbone_gives_the_hidden_states_of_uer(models: Path, predictors: dict[str, Predictor]) -> None:
    assert not ConfigJson.read(models / "backbone").is_fastbert
    first, second = json.loads(str(GOLDEN["pairs"]))[int(GOLDEN["backbone_pair"])]
    (found,) = predictors["backbone"].hidden_states([(first, second)])
    expected = GOLDEN["backbone_hidden"][:, : found.shape[1]]
    assert 10 < found.shape[1] < LENGTH
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())
    with pytest.raises(UserError, match=r"found a backbone without exits.*train\.py --model\.pretrained"):
        predictors["backbone"].predict(["a"])


def test_what_makes_a_model_of_uer_is_saved_with_it(predictors: dict[str, Predictor]) -> None:
    for name, predictor in predictors.items():
        config = predictor.config
        assert (config.layer_norm, config.layer_norm_eps) == (LayerNormKind.UNBIASED, 1e-6)
        assert (config.token_types, config.max_positions, config.num_heads) == (3, 512, 4)
        framed_as_bert = name == "backbone"
        assert predictor.tokenizer.text_form is (TextForm.BERT if framed_as_bert else TextForm.OFFICIAL)
        assert predictor.labels == (() if framed_as_bert else LABELS)
    assert predictors["package"].max_length == LENGTH and predictors["package"].length_buckets == (16, 32, LENGTH)


def test_the_command_says_what_it_made(
    official_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["--input", "package.bin", "--vocab", "vocab.txt", "--labels", *LABELS, "--num-heads", "4"]
    monkeypatch.chdir(official_directory)
    monkeypatch.setattr(
        sys, "argv", ["convert", *words, "--kind", "package", "--output", str(tmp_path / "new" / "model")]
    )
    convert_module.main()
    said = capsys.readouterr().out
    assert "a FastBERT of 3 layers, 64 wide, 4 heads, 3 classes" in said and "infer.py predict --model" in said
    assert load_model(tmp_path / "new" / "model")[2]["max_length"] == 128
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("package", {"kind": CheckpointKind.SCRIPT}, "--kind: expected 'package', which .* is, found 'script'"),
        ("script", {"kind": CheckpointKind.BACKBONE}, "--kind: expected 'script', which .* is, found 'backbone'"),
        ("backbone", {"kind": CheckpointKind.PACKAGE}, "--kind: expected 'backbone', which .* is, found 'package'"),
        (
            "package",
            {"labels": ("bad", "good")},
            r"--labels: expected 3, .*'package'\) has 3 classes, found 2: \['bad'",
        ),
        ("script", {"labels": ()}, r"--labels: expected 3, as the checkpoint .* found 0: \[\]"),
        ("backbone", {"labels": LABELS}, r"--labels: expected none, .*'backbone'\) has no classes, found 3"),
        ("package", {"max_length": 513}, "--max-length: expected at most 512, the checkpoint's positions, found 513"),
        ("package", {"num_heads": 5}, "hidden_size: expected a multiple of num_heads = 5, found 64"),
        ("none", {}, r"expected a checkpoint, found no file .*none\.bin"),
        ("package", {"vocab": "/none"}, "/none: expected a vocabulary, one token a line, found no file of text"),
        (
            "package",
            {"output": "/"},
            "--output /: expected a new or an empty directory, found one in use; name another",
        ),
        ("package", {"output": "/dev/null/a"}, "--output /dev/null/a: expected a place to write the model to, found"),
    ],
)
def test_settings_that_do_not_fit(
    official_directory: Path, tmp_path: Path, name: str, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        convert(dataclasses.replace(settings(official_directory, name, tmp_path / "model"), **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": ""}, "--input: expected a path, found ''"),
        ({"labels": ("a", "a")}, "--labels: expected each label once"),
        ({"num_heads": -1}, "--num-heads: expected 0 or more, found -1"),
        ({"max_length": 7}, "--max-length: expected 8 or more, found 7"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(tmp_path, "package", tmp_path / "model", **changes)


def test_a_vocabulary_of_another_size(official_directory: Path, tmp_path: Path) -> None:
    longer = tmp_path / "vocab.txt"
    longer.write_text((official_directory / "vocab.txt").read_text(encoding="utf-8") + "龘\n", encoding="utf-8")
    with pytest.raises(UserError, match="expected a vocabulary of 757 tokens, the rows of .* table, found one of 758"):
        convert(settings(official_directory, "package", tmp_path / "model", vocab=str(longer)))


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {kept: array for kept, array in tensors.items() if kept != name}


def shortened(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: tensors[name][:-1]}


@pytest.mark.parametrize(
    ("name", "change", "messages"),
    [
        (
            "package",
            without("kernel.encoder.transformer.1.layer_norm_2.beta"),
            [
                "'package' with 3 layers, found 1 that",
                r"missing: encoder\.transformer\.1\.layer_norm_2\.beta \[64",
            ],
        ),
        (
            "script",
            without("classifiers.2.output_layer_1.bias"),
            [r"missing: classifiers\.2\.output_layer_1\.bias \[128\]"],
        ),
        (
            "script",
            without("classifiers.0.output_layer_2.weight"),
            [r"expected a tensor classifiers\.0\.output_layer_2\.weight of 2 axes, found none; .* kind 'script'"],
        ),
        (
            "backbone",
            shortened("encoder.transformer.2.feed_forward.linear_1.weight"),
            [r"shape: encoder\.transformer\.2\.feed_forward\.linear_1\.weight: expected \[96, 64\], found \[95, 64\]"],
        ),
        (
            "package",
            shortened("kernel.embedding.segment_embedding.weight"),
            [r"shape: kernel\.embedding\.segment_embedding\.weight: expected \[3, 64\], found \[2, 64\]"],
        ),
        (
            "package",
            lambda tensors: tensors | {"classifiers.3.output_layer_1.bias": np.zeros(128, np.float32)},
            [r"extra: classifiers\.3\.output_layer_1\.bias \[128\]"],
        ),
        (
            "backbone",
            lambda tensors: tensors | {"embedding.layer_norm.beta": np.zeros(64, np.int64)},
            [r"dtype: embedding\.layer_norm\.beta: expected one of .*, found int64"],
        ),
        (
            "backbone",
            lambda tensors: {name.replace("embedding.word", "word"): array for name, array in tensors.items()},
            [r"expected a checkpoint of FastBERT or a BERT of UER, which has embedding\.word.*other names: \['"],
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_itself(
    official_directory: Path,
    tmp_path: Path,
    name: str,
    change: Callable[[Tensors], Tensors],
    messages: list[str],
) -> None:
    tensors = read_state_dict(official_directory / f"{name}.bin")
    arrays = {stored: tensors[stored] for stored in tensors if "target." not in stored and "total_" not in stored}
    path = write_state_dict(tmp_path / "changed.bin", change(arrays))
    with pytest.raises(UserError) as error:
        convert(settings(official_directory, name, tmp_path / "model", input=str(path)))
    for message in messages:
        assert error.match(message)
    assert str(error.value).startswith(str(path)) and not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["package", "script", "backbone"])
def test_a_prefix_of_all_names_is_left_out(official_directory: Path, models: Path, tmp_path: Path, name: str) -> None:
    tensors = read_state_dict(official_directory / f"{name}.bin")
    arrays = {f"module.{stored}": tensors[stored] for stored in tensors if "total_" not in stored}
    path = write_state_dict(tmp_path / "wrapped.bin", arrays)
    convert(settings(official_directory, name, tmp_path / "model", input=str(path)))
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "model" / file).read_bytes() == (models / name / file).read_bytes()


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused_by_name(
    official_directory: Path, tmp_path: Path, number: float
) -> None:
    tensors = dict(read_state_dict(official_directory / "backbone.bin"))
    tensors["embedding.layer_norm.beta"] = np.full(64, number)
    path = write_state_dict(tmp_path / "nan.bin", tensors)
    with pytest.raises(UserError, match=r"nan\.bin: embedding\.layer_norm\.beta: expected finite .* found 64 of 64"):
        convert(settings(official_directory, "backbone", tmp_path / "model", input=str(path)))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert."])
def test_a_bert_of_hugging_face_is_told_apart(official_directory: Path, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    write_state_dict(path, {f"{prefix}embeddings.word_embeddings.weight": np.zeros((9, 4), np.float32)})
    expected = r"found a BERT of Hugging Face, which needs no converting; .*save_pretrained.*--model\.pretrained NEW"
    with pytest.raises(UserError, match=expected):
        convert(settings(official_directory, "backbone", tmp_path / "model", input=str(path)))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"found \.safetensors; .* needs no converting: `.*--model\.pretrained"):
        convert(settings(official_directory, "backbone", tmp_path / "out", input=str(tmp_path / "model.safetensors")))

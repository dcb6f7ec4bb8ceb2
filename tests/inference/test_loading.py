"""Loading a model directory: what is saved beside the weights is checked, and each mistake says the next step."""

from __future__ import annotations

import json
import os
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fastbert_jax.config import ModelConfig, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load, model_directory
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model import config_json
from fastbert_jax.model.tensor_files import read_json
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.training.recipe import World, model_start, pretrained_weights
from tests.inference.saved import LABELS
from tests.tiny_bert import write_tiny_bert

DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]


@pytest.fixture
def model(directory: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(directory, tmp_path / "model"))


def change(model: Path, **values: Any) -> None:
    """Set keys of `config.json`: `fastbert.extra.labels` as `extra__labels`, those of `fastbert` as `fastbert__KEY`."""
    config = json.loads((model / "config.json").read_text())
    for name, value in values.items():
        *section, key = name.split("__")
        place = {"extra": config["fastbert"]["extra"], "fastbert": config["fastbert"]}.get("".join(section), config)
        if value == "remove":
            del place[key]
        else:
            place[key] = value
    (model / "config.json").write_text(json.dumps(config))


EXTRA: list[tuple[str, Any, str]] = [
    ("labels", [0, 1, 2], "expected str, found 0"),
    ("labels", "abc", "expected a list, found 'abc'"),
    ("labels", {"a": 0, "b": 1, "c": 2}, "expected a list, found"),
    ("labels", [["a"], ["b"], ["c"]], r"expected str, found \['a'\]"),
    ("labels", DEEP, r"expected str, found \[\["),
    ("labels", [None, "b", "c"], "expected str, found None"),
    ("labels", [True, "b", "c"], "expected str, found True"),
    ("labels", ["a", "b", "a"], "expected 3 different names, one for each class, found"),
    ("labels", ["a", "b"], "expected 3 different names, one for each class, found"),
    ("labels", [], r"expected 3 different names, one for each class, found \[\]"),
    ("labels", ["a", "b", "\udc80"], "expected 3 different names"),
    ("labels", ["a", "b", "\ud800"], "expected Unicode text"),
    ("labels", None, "expected a list, found None"),
    ("max_length", 33, "expected 4 to 32, the model's positions, found 33"),
    ("max_length", 10**30, "expected a number of at most 64 bits"),
    ("max_length", 0, "expected 4 to 32, the model's positions, found 0"),
    ("max_length", -16, "expected 4 to 32, the model's positions, found -16"),
    ("max_length", 16.0, "expected int, found 16.0"),
    ("max_length", "16", "expected int, found '16'"),
    ("max_length", True, "expected int, found True"),
    ("max_length", None, "expected int, found None"),
    ("length_buckets", [], r"expected rising lengths, the last 16, found \[\]"),
    ("length_buckets", [-8, 16], r"expected rising lengths, the last 16, found \[-8, 16\]"),
    ("length_buckets", [0, 16], "expected rising lengths, the last 16"),
    ("length_buckets", [16, 8], "expected rising lengths, the last 16"),
    ("length_buckets", [8, 8, 16], "expected rising lengths, the last 16"),
    ("length_buckets", [8], "expected rising lengths, the last 16"),
    ("length_buckets", [8, 16, 32], "expected rising lengths, the last 16"),
    ("length_buckets", [8.0, 16], "expected int, found 8.0"),
    ("length_buckets", [[8], [16]], r"expected int, found \[8\]"),
    ("length_buckets", 16, "expected a list, found 16"),
    ("length_buckets", {"8": 16}, "expected a list, found"),
    ("precision", "float64", r"expected one of \['float32', .*\], found 'float64'"),
    ("precision", ["float32"], r"expected one of .* found \['float32'\]"),
    ("precision", None, "expected one of .* found None"),
]


@pytest.mark.parametrize(("key", "value", "message"), EXTRA)
def test_what_is_saved_beside_the_weights_is_checked(model: Path, key: str, value: Any, message: str) -> None:
    change(model, **{f"extra__{key}": value})
    with pytest.raises(UserError, match=rf"config\.json: fastbert\.extra\.{key}: {message}"):
        load(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extra__labels": "remove"}, "fastbert.extra: expected labels, .* found no labels; the model was not saved"),
        ({"fastbert": None}, "expected the 'fastbert' section of a trained model, found none"),
        ({"fastbert__extra": ["labels"]}, "expected the 'fastbert' section of a trained model, found none"),
        ({"fastbert__exit_layers": [0, 5]}, "exit_layers: expected rising numbers from 1 to 5, the last one included"),
        ({"fastbert__exit_layers": [1, 2, 3, 4, 5, 6]}, "exit_layers: expected rising numbers from 1 to 5"),
        ({"fastbert__exit_layers": [3, 1, 5]}, "exit_layers: expected rising numbers"),
        ({"fastbert__exit_layers": [True, 5]}, "exit_layers: expected int, found True"),
        ({"fastbert__exit_layers": 5}, "exit_layers: expected a list, found 5"),
        ({"fastbert__num_classes": 10**9}, r"shape: exits\.1\.classifier\.weight: expected \[1000000000, 8\]"),
        ({"fastbert__num_classes": 1}, "number of classes: expected 2 or more, found 1"),
        ({"fastbert__exit_size": 10**12}, "differ; use the config.json and the weights of one model"),
        ({"fastbert__exit_heads": 3}, "exit_size: expected a multiple of exit_heads = 3"),
        ({"fastbert__exit_kind": {}}, "exit_kind: expected one of"),
        ({"hidden_size": 10**9}, "differ; use the config.json"),
        ({"vocab_size": 10**12}, r"shape: bert\.embeddings\.word_embeddings\.weight: expected \[1000000000000, 16\]"),
        ({"num_hidden_layers": 1000, "fastbert__exit_layers": [1000]}, r"\n  and \d+ more"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers: expected 1 to 1000, found 10000000"),
        ({"max_position_embeddings": 33}, "shape: bert.embeddings.position_embeddings.weight"),
    ],
)
def test_sizes_are_checked_before_anything_is_built(model: Path, values: dict, message: str) -> None:
    change(model, **values)
    with pytest.raises(UserError, match=message) as error:
        load(model)
    assert str(model) in str(error.value) and len(str(error.value)) < 10_000


def test_a_text_column_that_is_one_name_is_read(model: Path) -> None:
    for written in ("opinion", ["opinion"]):
        change(model, extra__reading={"text_column": written, "pair_column": "none", "label_column": "verdict"})
        assert load(model).reading == ReadingConfig(text_column="opinion", pair_column="none", label_column="verdict")
    change(model, extra__reading={"text_column": 5})
    with pytest.raises(UserError, match=r"fastbert\.extra\.reading\.text_column: expected a list, found 5"):
        load(model)


def test_an_unknown_key_of_a_later_version_is_no_mistake(model: Path) -> None:
    change(model, extra__later=[1], fastbert__later={}, later=None)
    assert load(model).max_length == 16


@pytest.mark.parametrize("key", ["labels", "max_length"])
def test_starting_from_a_model_checks_it_as_well(model: Path, key: str) -> None:
    change(model, **{f"extra__{key}": [1]})
    with pytest.raises(UserError, match=rf"fastbert\.extra\.{key}: expected"):
        model_start(
            ModelConfig(pretrained=str(model), keep_exits=True),
            World(("a", "b", "c"), types.SimpleNamespace(vocab_size=9)),
        )


def rescaled(model: Path, factor: float) -> Predictor:
    """The tiny model with larger weights in its second layer."""
    tensors = safetensors.numpy.load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    tensors[name] = tensors[name] * np.float32(factor)
    safetensors.numpy.save_file(tensors, model / "model.safetensors")
    return load(model)


def test_an_answer_is_never_nan(model: Path) -> None:
    predictor = rescaled(model, 1e38)
    for ask in (predictor.predict, predictor.exit_probabilities, predictor.hidden_states):
        with pytest.raises(UserError, match="expected finite answers, found NaN or infinite numbers: .* too large"):
            ask(["a good film", "the plot"])


@pytest.mark.parametrize(("positions", "longest"), [(4, 4), (7, 7), (20, 20), (600, 600)])
def test_a_bert_of_few_or_many_positions_loads(tmp_path: Path, positions: int, longest: int) -> None:
    backbone = load(write_tiny_bert(tmp_path / "bert", max_position_embeddings=positions))
    assert backbone.max_length == backbone.length_buckets[-1] == longest
    (states,) = backbone.hidden_states(["the good " * 400])
    assert states.shape == (4, longest, 16) and np.isfinite(states).all()


def test_a_bert_of_too_few_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: max_position_embeddings: expected 4 or more, found 3"):
        load(write_tiny_bert(tmp_path / "bert", max_position_embeddings=3))


def test_pairs_need_a_token_type_of_their_own(tmp_path: Path) -> None:
    backbone = load(write_tiny_bert(tmp_path / "bert", type_vocab_size=1))
    (alone,) = backbone.hidden_states(["the good"])
    assert np.isfinite(alone).all()
    with pytest.raises(UserError, match=r"expected single texts, as the model has 1 token type \(type_vocab_size\)"):
        backbone.hidden_states([("the good", "bad")])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["bert_config.json"], r'copy bert_config\.json there to config\.json, and add `"model_type": "bert"` to it'),
        (["adapter_config.json"], "an adapter is no model: merge it"),
        (["0_BERT/config.json"], "there is a config.json in .*0_BERT: give that directory"),
        (["snapshots/1a2b/config.json"], "there is a config.json in .*snapshots/1a2b: give that directory"),
    ],
)
def test_a_directory_without_a_model_says_what_it_has(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    with pytest.raises(UserError, match=rf"found neither model/config\.json nor config\.json in .*; {message}"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_a_name_of_the_hub_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    expected = rf"found nothing at {name}; .*`hf download {name}` and then the same command again"
    with pytest.raises(UserError, match=expected):
        load(name)
    with pytest.raises(UserError, match=rf"--model\.pretrained: .*{expected}"):
        model_start(ModelConfig(pretrained=name), World(("a", "b"), types.SimpleNamespace(vocab_size=9)))
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=r"found nothing at runs/demo; check the path$"):
        load("runs/demo")


@pytest.mark.parametrize(
    ("kept", "asked"), [("org/name", "org/name"), ("name", "google-bert/name"), ("google-bert/name", "name")]
)
def test_a_model_of_the_hub_is_found_where_it_was_downloaded_unless_a_directory_has_its_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, asked: str
) -> None:
    cache = tmp_path / "hub" / f"models--{kept.replace('/', '--')}"
    snapshot = cache / "snapshots" / "1a2b"
    snapshot.parent.mkdir(parents=True)
    (cache / "blobs").mkdir()
    shutil.copytree(model, snapshot)
    for path in snapshot.iterdir():  # as huggingface_hub keeps them
        blob = cache / "blobs" / path.name
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, snapshot))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("1a2b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.chdir(tmp_path)
    assert model_directory(asked) == pretrained_weights(asked) == pretrained_directory(asked) == snapshot
    assert load(asked).predict(["a film"])[0].label in LABELS
    shutil.copytree(model, tmp_path / asked)
    assert model_directory(asked) == Path(asked)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"])
def test_a_pipe_among_the_files_is_refused_at_once(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with pytest.raises(UserError, match=rf"{name}: expected a file, found a pipe or a device"):
        model_directory(model)


def test_config_json_is_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> dict[str, Any]:
        read.append(path)
        return read_json(path)

    monkeypatch.setattr(config_json, "read_json", counted)
    load(model)
    assert read == [model / "config.json"]

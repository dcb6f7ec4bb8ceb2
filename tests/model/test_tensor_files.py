"""Weight files of strangers: prefixes and heads, numbers that are none, other formats, and what is no file at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from fastbert_jax.errors import UserError
from fastbert_jax.model import tensor_files
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.weights import load_params

Tensors = dict[str, np.ndarray]
BIAS = "encoder.layer.1.output.dense.bias"


def load(directory: Path) -> dict:
    return load_params(directory, read_bert_config(directory, num_classes=3, exit_size=8, exit_heads=2), exits=False)


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = directory / "model.safetensors"
    safetensors.numpy.save_file(change(safetensors.numpy.load_file(path)), path)


def same(left: dict, right: dict) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "encoder.", "0.auto_model.", "bert.", "_orig_mod.module.bert.", "a.b.c.d.e.f.g.h.i."],
)
def test_a_prefix_of_all_names_is_left_out(tiny_bert_directory: Path, prefix: str) -> None:
    expected = load(tiny_bert_directory)
    rewrite(tiny_bert_directory, lambda tensors: {f"{prefix}{name}": value for name, value in tensors.items()})
    assert same(load(tiny_bert_directory), expected)


@pytest.mark.parametrize("prefix", ["", "bert.", "module.model."])
def test_what_is_beside_the_encoder_is_left_out_with_one_note(
    tiny_bert_directory: Path, capsys: pytest.CaptureFixture, prefix: str
) -> None:
    expected, head = load(tiny_bert_directory), np.full((2, 16), np.nan, np.float32)
    heads = ("linear.weight", "fc.1.weight", "crf.transitions", "lstm.weight_hh_l0", "cls.seq_relationship.weight")
    rewrite(
        tiny_bert_directory,
        lambda tensors: {f"{prefix}{name}": value for name, value in tensors.items()} | dict.fromkeys(heads, head),
    )
    assert same(load(tiny_bert_directory), expected) and same(load(tiny_bert_directory), expected)
    said = f"{tiny_bert_directory}: not used: 4 tensors beside the encoder: "
    assert capsys.readouterr().err == said + "crf.transitions, fc.1.weight, linear.weight, lstm.weight_hh_l0\n"


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.adapter.weight",
        "bert.embeddings.task_type_embeddings.weight",
        "bert.embeddings_project.weight",
        "ema.encoder.layer.0.output.dense.bias",
    ],
)
def test_what_the_encoder_computes_with_is_not_left_out(tiny_bert_directory: Path, name: str) -> None:
    extra = {name: np.zeros((2, 2), np.float32)}
    rewrite(tiny_bert_directory, lambda tensors: {f"bert.{key}": value for key, value in tensors.items()} | extra)
    with pytest.raises(UserError, match=rf"found 1 that differ; .*\n  extra: {name} \[2, 2\]"):
        load(tiny_bert_directory)


def test_two_models_in_one_file_are_refused(tiny_bert_directory: Path) -> None:
    rewrite(
        tiny_bert_directory,
        lambda tensors: {f"{side}.{name}": value for name, value in tensors.items() for side in ("query", "answer")},
    )
    with pytest.raises(UserError, match=r"expected the tensors of one BERT, .* begin with 'answer\.', 'query\.'; save"):
        load(tiny_bert_directory)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_numbers_that_are_not_finite_are_refused_by_name(tiny_bert_directory: Path, number: float, dtype: type) -> None:
    def damage(tensors: Tensors) -> Tensors:
        tensors = {f"bert.{name}": value.astype(dtype) for name, value in tensors.items()}
        tensors[f"bert.{BIAS}"][[0, 3]] = number
        return tensors

    rewrite(tiny_bert_directory, damage)
    with pytest.raises(
        UserError, match=rf"model\.safetensors: bert\.{BIAS}: expected finite .* found 2 of 16 that are"
    ):
        load(tiny_bert_directory)


def test_a_number_beyond_float32_is_not_finite(tiny_bert_directory: Path) -> None:
    rewrite(tiny_bert_directory, lambda tensors: tensors | {BIAS: np.full(16, 1e300)})
    with pytest.raises(UserError, match=rf"{BIAS}: expected finite float32 numbers, found 16 of 16"):
        load(tiny_bert_directory)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pytorch_model.bin", r"AutoModel\.from_pretrained\('OLD'\)\.save_pretrained\('NEW'\)"),
        ("pytorch_model-00001-of-00002.bin", r"AutoModel\.from_pretrained\('OLD'\)\.save_pretrained\('NEW'\)"),
        ("tf_model.h5", r"transformers 4 .* PyTorch and TensorFlow, .*\('OLD', from_tf=True\)"),
        ("flax_model.msgpack", r"transformers 4 .* PyTorch and Flax, .*\('OLD', from_flax=True\)"),
        (
            "bert_model.ckpt.index",
            r"TensorFlow 1 wrote; .*BertForPreTraining\.from_pretrained\('OLD/bert_model\.ckpt\.index', .*from_tf=True",
        ),
        ("openvino_model.bin", "cannot be turned back; take model.safetensors where the model comes from"),
        ("model.onnx", "cannot be turned back"),
        ("model-q4.gguf", "cannot be turned back"),
        ("last.ckpt", r"can run code .* with the program that wrote it, .*model\.save_pretrained\('NEW'\)"),
        ("adapter_model.safetensors", r"another name; .*rename it .*merge_and_unload\(\)"),
    ],
)
def test_other_formats_have_advice_of_their_own(tiny_bert_directory: Path, name: str, advice: str) -> None:
    (tiny_bert_directory / "model.safetensors").unlink()
    (tiny_bert_directory / name).write_bytes(b"")
    (tiny_bert_directory / "training_args.bin").write_bytes(b"")
    with pytest.raises(UserError, match=rf"expected model\.safetensors, found only {name}, which .*{advice}"):
        load(tiny_bert_directory)


def test_a_pointer_of_git_lfs(tiny_bert_directory: Path) -> None:
    (tiny_bert_directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 4\n")
    with pytest.raises(UserError, match=r"model\.safetensors: .*found a pointer of git LFS; `git lfs pull` fetches it"):
        load(tiny_bert_directory)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "loop"])
def test_what_is_no_file_is_refused_at_once(tiny_bert_directory: Path, name: str, kind: str) -> None:
    path = tiny_bert_directory / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)
    with pytest.raises(UserError, match=rf"{name}: expected a (safetensors |JSON )?(file|object)"):
        load(tiny_bert_directory)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, " " * 2**25, "{" * 10])
def test_deep_or_huge_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: expected a JSON object, found a file that cannot be read"):
        tensor_files.read_json(tmp_path / "config.json")


def test_an_error_about_a_stranger_s_file_stays_short(tiny_bert_directory: Path) -> None:
    names = [f"encoder.{'x' * 50_000}.{number}\x1b[31m" for number in range(100)]
    rewrite(tiny_bert_directory, lambda tensors: tensors | dict.fromkeys(names, np.zeros(1, np.float32)))
    with pytest.raises(UserError, match="found 100 that differ") as error:
        load(tiny_bert_directory)
    assert len(str(error.value)) < 20_000 and "\x1b" not in str(error.value) and "and 70 more" in str(error.value)
    config = json.loads((tiny_bert_directory / "config.json").read_text())
    (tiny_bert_directory / "config.json").write_text(json.dumps(config | {"hidden_size": [["x" * 10**4] * 99] * 9}))
    with pytest.raises(UserError, match="hidden_size: expected int, found ") as error:
        load(tiny_bert_directory)
    assert len(str(error.value)) < 20_000

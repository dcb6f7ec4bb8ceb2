"""docs/model_format.md is true: its code gives our answers without us, and its tables tell all that is in the files."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from fastbert_jax.config import ExitKind
from fastbert_jax.inference.policies import entropy_uncertainty
from fastbert_jax.model import in_numpy
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Trace
from fastbert_jax.model.weights import load_model, save_model
from tests.inference.models import batch_of, random_texts, tiny_config, tiny_params

DOCUMENT = (Path(__file__).parents[2] / "docs" / "model_format.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
CONFIG = tiny_config(3)
EXTRA = {
    "labels": ["zebra", "ant", "mole"],
    "max_length": 16,
    "length_buckets": [8, 16],
    "precision": "float32",
    "story": "MiniLM, fine-tuned on animals.csv",
    "reading": {"text_column": "text", "pair_column": "none", "label_column": "label", "delimiter": "auto"},
    "excluded_labels": ["other"],
}
LENGTH = 12


@pytest.fixture(params=[False, True], ids=["a run's", "an export"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_model(tmp_path, tiny_params(CONFIG), CONFIG, extra=EXTRA, exits_apart=request.param)
    return tmp_path


@pytest.fixture(scope="module")
def texts() -> list[np.ndarray]:
    return random_texts(5, longest=LENGTH)


@pytest.fixture(scope="module")
def ours(texts: list[np.ndarray]) -> Trace:
    batch = batch_of(texts, batch_size=len(texts), length=LENGTH)
    return jax.device_get(jax.jit(Bert(CONFIG).trace)(tiny_params(CONFIG), batch))


def run_document() -> dict:
    """The names that the document's code defines, which may need nothing but safetensors and numpy."""
    code = "\n".join(CODE)
    nodes = list(ast.walk(ast.parse(code)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "pathlib", "typing", "numpy", "safetensors.numpy"}
    names: dict = {}
    exec(compile(code, "docs/model_format.md", "exec"), names)
    return names


def test_the_documents_code_answers_as_every_exit_does(directory: Path, texts: list[np.ndarray], ours: Trace) -> None:
    code = run_document()
    config, tensors = code["read_model"](directory)
    logits_LxBxN = ours.exit_logits_LxBxKxN[:, :, 0]
    for layer in range(1, CONFIG.num_layers + 1):
        for row, text in enumerate(texts):
            hidden_SxH = np.asarray(ours.hidden_LxBxSxH[layer, row, : len(text)])
            logits_N, expected_N = code["exit_logits"](config, tensors, layer, hidden_SxH), logits_LxBxN[layer - 1, row]
            np.testing.assert_allclose(logits_N, expected_N, atol=1e-5, rtol=0)
            label, uncertainty = code["answer"](config, logits_N)
            assert label == EXTRA["labels"][expected_N.argmax()]
            assert uncertainty == pytest.approx(float(entropy_uncertainty(expected_N)), abs=1e-5)


def test_the_documents_code_answers_as_linear_exits_do(tmp_path: Path, texts: list[np.ndarray]) -> None:
    linear = dataclasses.replace(CONFIG, exit_kind=ExitKind.LINEAR)
    params = tiny_params(linear)
    save_model(tmp_path, params, linear, extra=EXTRA)
    assert load_model(tmp_path)[1] == linear
    batch = batch_of(texts, batch_size=len(texts), length=LENGTH)
    trace = jax.device_get(jax.jit(Bert(linear).trace)(params, batch))
    code = run_document()
    config, tensors = code["read_model"](tmp_path)
    assert {name for name in tensors if name.startswith("exits.2.")} == {
        "exits.2.classifier.weight",
        "exits.2.classifier.bias",
    }
    for layer in range(1, CONFIG.num_layers + 1):
        hidden_SxH = np.asarray(trace.hidden_LxBxSxH[layer, 0, : len(texts[0])])
        found_N = code["exit_logits"](config, tensors, layer, hidden_SxH)
        np.testing.assert_allclose(found_N, trace.exit_logits_LxBxKxN[layer - 1, 0, 0], atol=1e-5, rtol=0)


def test_the_first_block_is_what_a_model_card_repeats() -> None:
    assert CODE[0] == inspect.getsource(in_numpy)


def rows_of(*, header: str) -> list[list[str]]:
    """The cells of all tables with such a header."""
    rows, inside = [], False
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == header)
        if inside and cells[0] != header and set(cells[0]) != {"-"}:
            rows.append(cells)
    return rows


def test_every_tensor_is_told_and_is_there(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    letters = {"V": "vocab_size", "P": "max_position_embeddings", "T": "type_vocab_size"}
    letters |= {"H": "hidden_size", "F": "intermediate_size", "C": "exit_size", "N": "num_classes"}
    sizes = {letter: (config | config["fastbert"])[key] for letter, key in letters.items()}
    layers = config["num_hidden_layers"]
    told = {
        name.strip("`").format(i=number, k=number + 1): tuple(sizes[letter] for letter in re.findall(r"[A-Z]", shape))
        for name, shape in rows_of(header="tensor")
        for number in range(layers if "{" in name else 1)
    }
    found = {}
    for path in directory.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(path)
    assert {name.removeprefix("bert."): tensor.shape for name, tensor in found.items()} == told
    assert {tensor.dtype for tensor in found.values()} == {np.dtype(np.float32)}


def test_every_key_is_told_and_is_there(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    found = [*config, *config["fastbert"], *config["fastbert"]["extra"]]
    assert [key for cells in rows_of(header="key") for key in re.findall(r"`(\w+)`", cells[0])] == found


def test_the_two_forms_hold_the_same_under_the_names_that_are_told(tmp_path: Path) -> None:
    params = tiny_params(CONFIG)
    save_model(tmp_path / "run", params, CONFIG, extra=EXTRA)
    save_model(tmp_path / "export", params, CONFIG, extra=EXTRA, exits_apart=True)
    whole = safetensors.numpy.load_file(tmp_path / "run" / "model.safetensors")
    backbone = safetensors.numpy.load_file(tmp_path / "export" / "model.safetensors")
    exits = safetensors.numpy.load_file(tmp_path / "export" / "fastbert_exits.safetensors")
    assert {f"bert.{name}": tensor.tobytes() for name, tensor in backbone.items()} | {
        name: tensor.tobytes() for name, tensor in exits.items()
    } == {name: tensor.tobytes() for name, tensor in whole.items()}
    assert all(name.startswith("exits.") for name in exits)

"""The benchmarks run and write what they promise. What they measure is not judged here."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import draw_figures
import pytest

from tests.inference.saved import LABELS, save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent


def result_of(script: str, tmp_path: Path, *, texts: object = None, model: bool = True, **settings: object) -> dict:
    """What a benchmark prints, which must be what it writes, with the tiny model and 60 texts, or `texts` of them.

    `texts` is False for a script that has its own texts, `model` for one that takes no run.
    """
    (tmp_path / "texts.txt").write_text("\n".join(some_texts(60)))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    if texts is not False:
        settings |= {"data": tmp_path / "texts.txt", "texts": texts or 0}
    if model:
        settings |= {"model": save_tiny_model(tmp_path / "model")}
    settings |= {"output": tmp_path / "out.json"}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", *str(value).split())]
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / script), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(done.stdout) == result
    assert result["command"].startswith("python ") and result["device"] and result["jax"] and result["git_commit"]
    return result


def labelled(directory: Path, *names: str) -> dict[str, Path]:
    """Files of 40 labelled texts each, by name."""
    for seed, name in enumerate(names):
        rows = [f"{text}\t{LABELS[place % 3]}" for place, text in enumerate(some_texts(40, seed=seed))]
        (directory / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]))
    return {name: directory / f"{name}.tsv" for name in names}


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "benchmarks").rglob("*.py")))
def test_what_a_benchmark_imports_of_the_package_is_there(script: str) -> None:
    (path,) = (ROOT / "benchmarks").rglob(script)
    imported = [
        (str(node.module), name.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastbert_jax")
        for name in node.names
    ]
    missing = [
        (module, name)
        for module, name in imported
        if not hasattr(importlib.import_module(module), name) and not importlib.util.find_spec(f"{module}.{name}")
    ]
    assert missing == []


@pytest.mark.slow
def test_engine_efficiency(tmp_path: Path) -> None:
    result = result_of("engine_efficiency.py", tmp_path, texts=30, batch_size=4, repeats=2)
    assert list(result["engines"]) == ["bucketed", "cascade", "graph-cascade"]
    assert all(engine["efficiency"] > 0 for engine in result["engines"].values())
    assert sum(result["texts_by_exit_layer"]) == sum(result["texts_by_padded_length"].values()) == 30
    assert abs(result["mean_depth"] - result["layers"] / 3) < 0.5


@pytest.mark.slow
def test_accelerator_keeps_what_its_parts_found_and_why_one_found_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.json"

    def measured(*words: str) -> dict:
        command = [sys.executable, "-W", "error", str(ROOT / "benchmarks/accelerator.py"), "--tiny", "--repeats", "2"]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, "--output", str(output), *words], env=environment, capture_output=True, check=True)
        return json.loads(output.read_text())["parts"]

    parts = measured("--seconds", "3000")
    assert [name for name, found in parts.items() if "error" in found] == []
    assert set(parts["training"]["runs"]) == {"fine-tuning", "distillation"}
    assert parts["precisions"]["float32"] == parts["precisions"]["tensorfloat32"] == 0 < parts["precisions"]["bfloat16"]
    assert measured("--seconds", "0.5", "--parts", "engines")["engines"]["error"].startswith("took more than 0 s")


@pytest.mark.slow
def test_many_classes(tmp_path: Path) -> None:
    settings = {"max_drop": 5, "policies": "entropy margin", "repeats": 1, "timed_texts": 20}
    result = result_of("many_classes.py", tmp_path, texts=False, **labelled(tmp_path, "dev", "test"), **settings)
    assert list(result["policies"]) == ["entropy", "margin"]
    for policy in result["policies"].values():
        assert policy["dev"]["accuracy"] >= policy["dev"]["full_accuracy"] - 0.05 - 1e-9
        assert 1 <= policy["test"]["mean_depth"] <= result["layers"] and policy["speedup"]["median"] > 0
        assert len(policy["test"]["accuracy_of_exits"]) == result["layers"]
    assert (result["classes"], result["test_texts"], result["timed_texts"]) == (3, 40, 20)


@pytest.mark.slow
def test_unlabelled_texts(tmp_path: Path) -> None:
    files = labelled(tmp_path, "dev", "test", "few") | {"many": tmp_path / "texts.txt"}
    result = result_of("unlabelled_texts.py", tmp_path, texts=False, **files, share=0.5, seeds=0, steps=2, rows=2)
    assert [run["texts"] for run in result["runs"]] == ["few", "many"] and result["texts"] == {"few": 20, "many": 60}
    few, many = (run["accuracy_of_exits"] for run in result["runs"])
    assert few[-1] == many[-1], "the teacher stays as it is"


@pytest.mark.slow
def test_exits_cost(tmp_path: Path) -> None:
    sizes = {"random_layers": 2, "random_hidden_size": 8, "random_texts": 2, "random_length": 8}
    result = result_of("exits_cost.py", tmp_path, texts=4, modes="cascade", repeats=2, **sizes)
    for case in ("trained", "random"):
        assert list(result[case]["over_full_depth"]) == ["one program", "cascade"]
        assert all(0 < found["low"] <= found["high"] for found in result[case]["over_full_depth"].values())
    assert result["random"]["batches"] == [[2, 8]] and result["trained"]["texts"] == 4


@pytest.mark.slow
def test_one_text(tmp_path: Path) -> None:
    sizes = {"random_layers": 3, "random_hidden_size": 8, "random_lengths": 8}
    result = result_of(
        "one_text.py", tmp_path, texts=False, data=tmp_path / "texts.txt", modes="bucketed", seconds=0.01, **sizes
    )
    assert [found["length"] for found in result["trained"]["full_depth"]] == [8, 16]
    assert [found["length"] for found in result["random"]["early"]] == [8]
    for found in result["trained"]["full_depth"] + result["random"]["full_depth"]:
        assert list(found["planned_before"]) == list(found["planned_inside"]) == ["bucketed"]
    for found in result["random"]["early"]:
        assert list(found["engines"]) == ["bucketed"] and found["exit_layer"] == 1


@pytest.mark.slow
def test_distillation(tmp_path: Path) -> None:
    settings = {"models": "2x16x2 3x8x2", "rows": "4 2", "text_rows": 4, "length": 16, "repeats": 2}
    result = result_of("distillation.py", tmp_path, texts=30, model=False, **settings)
    assert list(result["cases"]) == ["2x16x2", "3x8x2"]
    for case, layers in zip(result["cases"].values(), (2, 3), strict=True):
        assert case["layers"] == layers and case["length"] == 16 and case["utilisation"] is None
        assert case["step_over_backbone"]["median"] > 0 and case["flops_of_step_over_backbone"] > 1
        assert case["step_over_step_with_known_teacher"]["median"] > 0
        assert 1 < case["flops_of_step_over_step_with_known_teacher"] < 3
    packed, padded, buckets = result["texts"]["layouts"].values()
    assert packed["texts_per_row"] > padded["texts_per_row"] == buckets["texts_per_row"] == 1
    assert packed["shapes"] == padded["shapes"] == [[4, 16]]
    assert padded["batches"] == buckets["batches"] == 8 and packed["batches"] < 8
    assert packed["real_token_share"] > buckets["real_token_share"] >= padded["real_token_share"]


@pytest.mark.slow
def test_cascade_memory_is_flat_and_as_promised(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "layers": 2, "rows": 4, "length": 8}
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "cascade_memory.py")]
    words = [word for name, value in sizes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    arguments = [*command, *words, "--texts", "4000", "--modes", "cascade", "--output", str(tmp_path / "out.json")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    found = result["engines"]["cascade"]
    held = [look["device_bytes"] for look in found["looks"]]
    assert len(held) == 20 and max(held) - min(held) < found["queues_of_the_formula"]


@pytest.mark.slow
def test_input_memory(tmp_path: Path) -> None:
    words = ["--texts", "300", "600", "--window", "100", "--tokenizer", str(save_tiny_model(tmp_path / "model"))]
    words += ["--ways", "prepare", "stream, packed"]
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "input_memory.py"), *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    output = ["--output", str(tmp_path / "out.json")]
    done = subprocess.run([*command, *output], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "out.json").read_text())
    looks = result["ways"]["stream, packed"]["looks"]
    assert [look["texts"] for look in looks] == [300, 600]
    assert all(look["peak_bytes"] > 0 and look["real_tokens"] > 0.5 for look in looks)
    assert [look["texts"] for look in result["ways"]["prepare"]["looks"]] == [300, 600]


def test_a_figure_of_the_docs_has_the_colours_of_both_schemes() -> None:
    light, dark = (
        f'<svg xmlns="http://www.w3.org/2000/svg"><title>a</title><rect fill="{back}"/><path stroke="red"/></svg>'
        for back in ("white", "black")
    )
    both = draw_figures.in_both_schemes(light, dark)
    assert "@media (prefers-color-scheme: dark) { .c0 { fill: black; } }" in both
    assert 'fill="white" class="c0"' in both and both.count("class=") == 1
    pictures = [*(ROOT / "docs" / "fidelity").rglob("*.svg")]
    assert len(pictures) == 12
    for picture in pictures:
        assert ".c0 { fill: rgb(24, 30, 37); }" in picture.read_text(encoding="utf-8"), picture

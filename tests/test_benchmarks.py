"""The benchmarks run and write what they promise. What they measure is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.inference.saved import LABELS, save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent


ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}


def result_of(script: str, output: Path, **settings: object) -> dict:
    """What a benchmark printed, which is what it wrote."""
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", *str(value).split())]
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / script), *words, "--output", str(output)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert json.loads(done.stdout) == result
    assert result["command"].startswith("python ") and result["jax"] and result["git_commit"]
    return result


def test_engine_efficiency(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(some_texts(60)))
    settings = {"model": model, "data": tmp_path / "texts.txt", "texts": 30, "batch_size": 4, "repeats": 2}
    result = result_of("engine_efficiency.py", tmp_path / "out.json", **settings)
    assert list(result["engines"]) == ["bucketed", "cascade", "graph-cascade"]
    assert all(engine["efficiency"] > 0 for engine in result["engines"].values())
    assert sum(result["texts_by_exit_layer"]) == sum(result["texts_by_padded_length"].values()) == 30
    assert abs(result["mean_depth"] - result["layers"] / 3) < 0.5


def test_many_classes(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    for name, seed in (("dev", 0), ("test", 1)):
        texts = some_texts(40, seed=seed)
        rows = [f"{text}\t{LABELS[place % 3]}" for place, text in enumerate(texts)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]))
    settings = {"model": model, "dev": tmp_path / "dev.tsv", "test": tmp_path / "test.tsv", "max_drop": 5}
    settings |= {"policies": "entropy margin", "repeats": 1, "timed_texts": 20}
    result = result_of("many_classes.py", tmp_path / "out.json", **settings)
    assert list(result["policies"]) == ["entropy", "margin"]
    for policy in result["policies"].values():
        assert policy["dev"]["accuracy"] >= policy["dev"]["full_accuracy"] - 0.05 - 1e-9
        assert 1 <= policy["test"]["mean_depth"] <= result["layers"] and policy["speedup"]["median"] > 0
        assert len(policy["test"]["accuracy_of_exits"]) == result["layers"]
    assert (result["classes"], result["test_texts"], result["timed_texts"]) == (3, 40, 20)

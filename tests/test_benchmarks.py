"""The benchmarks run and write what they promise. What they measure is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.inference.saved import save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent


def result_of(script: str, tmp_path: Path, **settings: object) -> dict:
    """What a benchmark prints, which must be what it writes, with the tiny model and 60 texts."""
    model = save_tiny_model(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(some_texts(60)))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    settings = {"model": model, "data": tmp_path / "texts.txt", "output": tmp_path / "out.json"} | settings
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", *str(value).split())]
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / script), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(done.stdout) == result
    assert result["command"].startswith("python ") and result["device"] and result["jax"] and result["git_commit"]
    return result


def test_engine_efficiency(tmp_path: Path) -> None:
    result = result_of("engine_efficiency.py", tmp_path, texts=30, batch_size=4, repeats=2)
    assert list(result["engines"]) == ["bucketed", "cascade", "graph-cascade"]
    assert all(engine["efficiency"] > 0 for engine in result["engines"].values())
    assert sum(result["texts_by_exit_layer"]) == sum(result["texts_by_padded_length"].values()) == 30
    assert abs(result["mean_depth"] - result["layers"] / 3) < 0.5


def test_exits_cost(tmp_path: Path) -> None:
    sizes = {"random_layers": 2, "random_hidden_size": 8, "random_texts": 2, "random_length": 8}
    result = result_of("exits_cost.py", tmp_path, texts=4, modes="cascade", repeats=2, **sizes)
    for case in ("trained", "random"):
        assert list(result[case]["over_full_depth"]) == ["one program", "cascade"]
        assert all(0 < found["low"] <= found["high"] for found in result[case]["over_full_depth"].values())
    assert result["random"]["batches"] == [[2, 8]] and result["trained"]["texts"] == 4


def test_one_text(tmp_path: Path) -> None:
    sizes = {"random_layers": 3, "random_hidden_size": 8, "random_lengths": 8}
    result = result_of("one_text.py", tmp_path, modes="bucketed", seconds=0.01, **sizes)
    assert [found["length"] for found in result["trained"]["full_depth"]] == [8, 16]
    assert [found["length"] for found in result["random"]["early"]] == [8]
    for found in result["trained"]["full_depth"] + result["random"]["full_depth"]:
        assert list(found["planned_before"]) == list(found["planned_inside"]) == ["bucketed"]
    for found in result["random"]["early"]:
        assert list(found["engines"]) == ["bucketed"] and found["exit_layer"] == 1

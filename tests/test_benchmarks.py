"""The benchmarks run and write what they promise. What they measure is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.inference.saved import save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent


def test_engine_efficiency(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(some_texts(60)))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    settings = {"model": model, "data": tmp_path / "texts.txt", "output": tmp_path / "out.json", "texts": 30}
    settings |= {"batch-size": 4, "repeats": 2}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    script = ROOT / "benchmarks" / "engine_efficiency.py"
    command = [sys.executable, "-W", "error", str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(done.stdout) == result
    assert list(result["engines"]) == ["bucketed", "cascade", "graph-cascade"]
    assert all(engine["efficiency"] > 0 for engine in result["engines"].values())
    assert sum(result["texts_by_exit_layer"]) == sum(result["texts_by_padded_length"].values()) == 30
    assert abs(result["mean_depth"] - result["layers"] / 3) < 0.5
    assert result["command"].startswith("python ") and result["jax"] and result["git_commit"]

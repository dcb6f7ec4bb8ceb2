"""Compiled programs are kept for the next process, where they can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src.lib import xla_client

from fastbert_jax.command_line import keep_compiled_programs

PROGRAM = """
from fastbert_jax.command_line import keep_compiled_programs
keep_compiled_programs()
import jax, jax.numpy as jnp
jax.jit(lambda x: jnp.linalg.svd(x @ x))(jnp.ones((3, 3)))
"""


def kept_after(folder: Path, **environment: str) -> set[Path]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION")}
    own = {"FASTBERT_JAX_CACHE": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], env=inherited | own | environment, check=True)
    return {path for path in folder.rglob("*-cache")}


def test_a_program_is_kept_and_found_again(tmp_path: Path) -> None:
    first = kept_after(tmp_path)
    assert first and all(path.is_relative_to(tmp_path / "compiled") for path in first)
    assert kept_after(tmp_path) == first


def test_jax_s_own_setting_wins(tmp_path: Path) -> None:
    assert not kept_after(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path.parent / "elsewhere"))


def test_processors_do_not_share_programs() -> None:
    """The keys of jax's cache hold the devices' fingerprint, which must depend on the features of the processor."""
    source = (
        "import jax\nfrom jax._src.lib import xla_client\n"
        "print(xla_client.get_topology_for_devices(jax.devices()).fingerprint())"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2", "JAX_NUM_CPU_DEVICES": "8"}
    older = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, check=True).stdout
    assert int(older) != xla_client.get_topology_for_devices(jax.devices()).fingerprint()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("FASTBERT_JAX_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ

"""What is installed: pyproject.toml and requirements.txt say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fastbert_jax.training.loggers import LOGGERS

ROOT = Path(__file__).parent.parent


def required(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def test_the_package_asks_for_what_requirements_install() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    extra = [line for line in required(ROOT / "requirements.txt") if line not in dependencies]
    assert set(dependencies) <= set(required(ROOT / "requirements.txt"))
    for_tests = {"pytest", "pytest-xdist", "hypothesis", "playwright", "tensorboardX", "ruff", "mypy", "types-PyYAML"}
    assert {line.partition(">")[0] for line in extra} == for_tests


def test_the_extra_for_peers_is_what_their_benchmarks_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["peers"] == required(ROOT / "benchmarks/peers/requirements.txt")


def test_there_is_an_extra_for_every_logger_and_tests_need_no_other_tensorboardx() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    packages = {target.value: logger.package for target, logger in LOGGERS.items()}
    assert {name: extras[name][0].partition(">")[0] for name in packages} == packages
    assert extras["tensorboard"][0] in required(ROOT / "requirements.txt")


def test_what_the_site_shares_with_the_package_has_the_same_range() -> None:
    ours, shared = required(ROOT / "requirements.txt"), {"tyro", "pyyaml", "ruff"}
    docs = required(ROOT / "requirements-docs.txt")
    assert {line.partition(">")[0] for line in docs if line in ours} == shared
    assert all(">=" in line and "<" in line for line in docs)


def test_every_requirement_has_both_bounds_and_data_is_exact() -> None:
    for line in required(ROOT / "requirements.txt"):
        assert ">=" in line and ("<" in line or line.startswith("importlib_resources"))
    assert all("==" in line for line in required(ROOT / "requirements-data.txt"))

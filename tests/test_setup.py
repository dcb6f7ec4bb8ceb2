"""What is installed: pyproject.toml and requirements.txt say the same."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastbert_jax.training.loggers import LOGGERS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "grain": "grain",
    "array-record": "array_record",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
    "importlib_resources": None,
}
"""What a package of an extra is imported as here; None for one that is not."""


def required(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def test_the_package_and_its_extras_ask_for_what_requirements_install() -> None:
    extras = PROJECT["optional-dependencies"]
    package = {*PROJECT["dependencies"], *extras["train"], *extras["tfds"]}
    assert package <= set(required(ROOT / "requirements.txt"))
    for_tests = {"pytest", "pytest-xdist", "hypothesis", "beartype", "playwright", "tensorboardX"}
    for_tests |= {"ruff", "mypy", "types-PyYAML", "setuptools"}
    others = [line for line in required(ROOT / "requirements.txt") if line not in package]
    assert {line.partition(">")[0] for line in others} == for_tests


@pytest.mark.parametrize("extra", ["train", "tfds"])
def test_the_first_import_of_an_extras_package_says_how_to_install_it(extra: str) -> None:
    modules = {MODULES[line.partition(">")[0]] for line in PROJECT["optional-dependencies"][extra]} - {None}
    found = set()
    for path in (ROOT / "fastbert_jax").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrapped = [module for block in ast.walk(tree) if is_wrapped(block) for module in imported(block)]
        for module in modules.intersection(imported(tree)):
            assert module in wrapped, f"{path}: import {module} inside `with needs_extra(...)`"
            found.add(module)
    assert found == modules


def imported(tree: ast.AST) -> Iterator[str]:
    """The first name of every module that is imported anywhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def is_wrapped(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any(
        isinstance(item.context_expr, ast.Call) and getattr(item.context_expr.func, "id", "") == "needs_extra"
        for item in node.items
    )


def test_the_extra_for_peers_is_what_their_benchmarks_install() -> None:
    assert PROJECT["optional-dependencies"]["peers"] == required(ROOT / "benchmarks/peers/requirements.txt")


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

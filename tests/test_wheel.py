"""The wheel works alone: its files, its commands, and a prediction where none of the extras' packages is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fastbert_jax
from tests.inference.saved import save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("train", "tfds")
MODULES_OF_EXTRAS = ("grain", "array_record", "sklearn", "tensorflow_datasets")
PREDICT = """
import json, sys, fastbert_jax
found = fastbert_jax.load(sys.argv[1]).predict(json.loads(sys.stdin.read()), speed=0.5)
print(json.dumps([[prediction.label, prediction.exit_layer] for prediction in found]))
"""
MISSING = """
import fastbert_jax, fastbert_jax.text.tfds as tfds
try:
    tfds.splits("glue/sst2")
except fastbert_jax.UserError as error:
    print(error)
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of these sources, built outside of them."""
    directory = tmp_path_factory.mktemp("wheel")
    sources = directory / "sources"
    shutil.copytree(ROOT / "fastbert_jax", sources / "fastbert_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", directory, sources])
    [found] = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the wheel, what it depends on without any extra, and nothing else."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    packages = directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for distribution in dependencies_of(PROJECT["dependencies"]):
        link(distribution, packages)
    python = directory / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel])
    return directory / "bin"


def dependencies_of(requirements: list[str]) -> list[importlib.metadata.Distribution]:
    """What the requirements install, as it is installed here, with what that depends on in turn."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(requirement) for requirement in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = found[key[0]] = importlib.metadata.distribution(wanted.name)
        for requirement in map(Requirement, distribution.requires or ()):
            extras = wanted.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    return list(found.values())


def link(distribution: importlib.metadata.Distribution, packages: Path) -> None:
    """Make an installed distribution's files importable from `packages`; its scripts are left out."""
    for file in distribution.files or ():
        if ".." not in file.parts:
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            (packages / file).symlink_to(distribution.locate_file(file))


def run(command: list[str | Path], **settings: str) -> str:
    """Run a command with no way to the repository; what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, cwd=Path(command[0]).parent, capture_output=True, text=True, check=False, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastbert_jax").rglob("*") if path.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    assert "fastbert_jax/py.typed" in files and any(file.endswith(".html") for file in files)
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == files


def test_no_package_of_an_extra_comes_with_the_dependencies(installed: Path) -> None:
    code = f"import importlib.util; print([m for m in {MODULES_OF_EXTRAS} if importlib.util.find_spec(m)])"
    assert run([installed / "python", "-c", code]).strip() == "[]"


def test_a_model_predicts_without_extras_as_it_does_with_them(installed: Path, tmp_path: Path) -> None:
    model, texts = save_tiny_model(tmp_path / "model"), some_texts(12)
    here = fastbert_jax.load(model).predict(texts, speed=0.5)
    found = run([installed / "python", "-c", PREDICT, model], input=json.dumps(texts))
    assert json.loads(found) == [[prediction.label, prediction.exit_layer] for prediction in here]


def test_data_that_needs_an_extra_says_how_to_install_it(installed: Path) -> None:
    assert 'pip install "fastbert-jax[tfds]"' in run([installed / "python", "-c", MISSING])


@pytest.mark.skipif("scripts" not in PROJECT, reason="the package has no commands")
def test_the_commands_work_without_extras(installed: Path, tmp_path: Path) -> None:
    model, texts, answers = save_tiny_model(tmp_path / "model"), tmp_path / "texts.txt", tmp_path / "answers.jsonl"
    texts.write_text("a good film\na dull plot\n", encoding="utf-8")
    assert "--data.train" in run([installed / "fastbert-train", "--help"])
    run([installed / "fastbert-infer", "predict", "--model", model, "--input", texts, "--output", answers])
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 2

"""The import rule: a room imports only from earlier rooms, no files import each other, and the package is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "fastbert_jax"
FLOORS = (
    "errors",
    "stopping",
    "version log",
    "config",
    "atomic_files",
    "config_yaml processes",
    "command_line",
    "report",
    "text",
    "model",
    "inference",
    "training",
    "recipes",
    "commands",
    "surface",
)
"""Lowest first; rooms of one floor do not import each other. `surface` is the package itself and the scripts."""
RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms.split()}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else "surface"


def project_modules(root: Path) -> dict[str, Path]:
    """Every module of the package and every script beside it, by its import name."""
    modules = {}
    for path in [*root.glob("*.py"), *(root / PACKAGE).rglob("*.py")]:
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of the project that a file imports, anywhere in it, `if TYPE_CHECKING` included."""
    found = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else base for name in names}
    return {name for name in found if name in modules}


def wrong_directions(root: Path) -> list[str]:
    modules = project_modules(root)
    wrong = []
    for module, path in modules.items():
        for target in imports_of(module, path, modules):
            here, there = room_of(module), room_of(target)
            if here != there and RANK[there] >= RANK[here]:
                wrong.append(f"{module} imports {target}")
    return sorted(wrong)


def cycles(root: Path) -> list[list[str]]:
    """Groups of files that import each other, directly or round about."""
    modules = project_modules(root)
    reach = {module: imports_of(module, path, modules) for module, path in modules.items()}
    for middle in modules:
        for start in modules:
            if middle in reach[start]:
                reach[start] |= reach[middle]
    groups = {tuple(sorted(m for m in reach[start] if start in reach[m])) for start in modules}
    return [list(group) for group in sorted(groups) if group]


def test_every_room_has_its_place() -> None:
    rooms = {room_of(module) for module in project_modules(ROOT)}
    assert rooms <= RANK.keys(), f"give these a floor in FLOORS: {rooms - RANK.keys()}"
    assert rooms >= {"errors", "config", "report", "text", "model", "inference", "training", "surface"}


def test_rooms_import_only_from_earlier_rooms() -> None:
    assert wrong_directions(ROOT) == []


def test_no_files_import_each_other() -> None:
    assert cycles(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "finding"),
    [
        ("model/a.py", "from fastbert_jax.training import b", "fastbert_jax.model.a imports fastbert_jax.training.b"),
        ("report/a.py", "import fastbert_jax.text.b", "fastbert_jax.report.a imports fastbert_jax.text.b"),
        ("text/a.py", "def f():\n    from ..model.b import x", "fastbert_jax.text.a imports fastbert_jax.model.b"),
        ("text/a.py", "from fastbert_jax import __version__", "fastbert_jax.text.a imports fastbert_jax"),
        ("inference/a.py", "from ..training import b", "fastbert_jax.inference.a imports fastbert_jax.training.b"),
        ("training/a.py", "from fastbert_jax.text import b", None),
        ("model/a.py", "from . import b", None),
    ],
)
def test_the_rule_sees_a_wrong_import(tmp_path: Path, file: str, line: str, finding: str | None) -> None:
    for room in ("model", "training", "report", "text", "inference"):
        (tmp_path / PACKAGE / room).mkdir(parents=True)
        (tmp_path / PACKAGE / room / "__init__.py").write_text("")
        (tmp_path / PACKAGE / room / "b.py").write_text("x = 1\n")
    (tmp_path / PACKAGE / "__init__.py").write_text("__version__ = '1'\n")
    (tmp_path / PACKAGE / file).write_text(line + "\n")
    assert wrong_directions(tmp_path) == ([finding] if finding else [])
    assert cycles(tmp_path) == []


def test_the_rule_sees_a_cycle(tmp_path: Path) -> None:
    (tmp_path / PACKAGE / "model").mkdir(parents=True)
    for name, target in (("a", "b"), ("b", "c"), ("c", "a")):
        path = tmp_path / PACKAGE / "model" / f"{name}.py"
        path.write_text(f"def later():\n    from fastbert_jax.model import {target}\n")
    assert cycles(tmp_path) == [[f"{PACKAGE}.model.{name}" for name in "abc"]]


def loaded_by(program: str, names: tuple[str, ...], tmp_path: Path) -> list[str]:
    """Which of `names` a fresh process has loaded after `program`.

    torch and tensorflow are stand-ins that import without fault: where neither is installed, an attempt shows too.
    """
    for name in ("torch", "tensorflow"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text("__version__ = '99.0.0'\n")
    source = f"{program}\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def import_all(rooms: tuple[str, ...] | None = None) -> str:
    modules = [m for m in project_modules(ROOT) if m.startswith(PACKAGE) and not m.endswith("__main__")]
    return "\n".join(f"import {module}" for module in sorted(modules) if rooms is None or room_of(module) in rooms)


def test_importing_loads_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    for program in (f"import {PACKAGE}", import_all()):
        assert loaded_by(program, ("torch", "tensorflow", "keras"), tmp_path) == []


def test_settings_and_numbers_know_no_jax(tmp_path: Path) -> None:
    assert loaded_by(import_all(("errors", "config", "report")), ("jax", "flax"), tmp_path) == []


def test_the_stand_ins_are_seen(tmp_path: Path) -> None:
    assert loaded_by("import torch, tensorflow", ("torch", "tensorflow"), tmp_path) == ["torch", "tensorflow"]

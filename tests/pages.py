"""Readers of README.md, CONTRIBUTING.md and docs/: shell lines, code in sentences, and the commands among them.

A command is a line of a shell block that begins with `python` and `train.py`, `infer.py`, `benchmarks/ablations.py` or
`-m fastbert_jax`, also as `source <(...)`; such a line as code inside a sentence; or one that `make` runs.
`fastbert-train` and `fastbert-infer` count as the scripts. A backslash at the end joins lines, ` # ` begins a comment,
words after a pipe or `>` belong to the shell, and `...` is ignored. Commands of `docs/launch/` that another program
starts are tested in `tests/test_launch.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = ROOT / "Makefile"
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "console")
OURS = re.compile(r"python (train\.py|infer\.py|benchmarks/ablations\.py|-m fastbert_jax[\w.]*)(?= |$)")
ENDS_OF_A_COMMAND = ("|", ">", "<", "&&", "||", ";")


class Command(NamedTuple):
    """A command of the project."""

    program: str
    """`train.py`, `infer.py`, `benchmarks/ablations.py`, or `-m` and a module."""
    words: tuple[str, ...]
    """Its arguments."""

    @classmethod
    def of(cls, line: str) -> Command | None:
        """The command of a shell line; None if it has none of ours."""
        line = re.sub(r"^source <\((.*?)\)", r"\1", line)
        found = OURS.match(re.sub(r"^fastbert-(train|infer) ", r"python \1.py ", line))
        if found is None:
            return None
        words = shlex.split(re.split(r"\s#\s", found.string[found.end() :])[0])
        ends = [at for at, word in enumerate(words) if word in ENDS_OF_A_COMMAND]
        return cls(found[1], tuple(word for word in words[: ends[0] if ends else None] if word != "..."))


def commands() -> dict[Command, str]:
    """Each command once, with the first place that shows it."""
    shown = [(page, line) for page in PAGES for line in shell_lines(page)]
    shown += [(MAKEFILE, line) for line in recipe_lines()]
    found: dict[Command, str] = {}
    for page, line in (*shown, *inline_code()):
        if command := Command.of(line):
            found.setdefault(command, f"{page.relative_to(ROOT)}: {line}")
    return found


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks, continued lines joined."""
    for indent, language, body in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in SHELL:
            yield from (line.removeprefix(indent) for line in body.replace("\\\n", " ").splitlines())


def recipe_lines() -> Iterator[str]:
    """The commands that `make` runs, without the path of its Python."""
    for line in MAKEFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("\t"):
            yield line.strip().removeprefix("$(BIN)/")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def inline_code() -> Iterator[tuple[Path, str]]:
    """The code in every page's sentences."""
    for page in PAGES:
        for span in re.findall(r"`([^`]+)`", prose(page)):
            yield page, " ".join(span.split())

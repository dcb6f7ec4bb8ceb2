"""What README.md, CONTRIBUTING.md and docs/ show: shell lines, code in sentences, and the commands among them.

A command is a line of a fenced block that begins with `python train.py`, `python infer.py` or `python -m fastbert_jax`,
also as `source <(...)`, such a line as code inside a sentence, or one that `make` runs. Lines that end in a backslash
go on in the next, ` # ` begins a comment, what follows a pipe or `>` is the shell's, and of `...` nothing is asked.
Commands of `docs/launch/` that another program starts are `tests/test_launch.py`'s.
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
OURS = re.compile(r"python (train\.py|infer\.py|-m fastbert_jax[\w.]*)(?= |$)")
ENDS_OF_A_COMMAND = ("|", ">", "<", "&&", "||", ";")
SOURCED = re.compile(r"^source <\((.*?)\)")


class Command(NamedTuple):
    """What is typed after `python`."""

    program: str
    """`train.py`, `infer.py`, or `-m` and a module."""
    words: tuple[str, ...]
    """What the program is given."""

    @classmethod
    def of(cls, line: str) -> Command:
        """The command of a line that `OURS` matches."""
        found = OURS.match(line)
        words = shlex.split(re.split(r"\s#\s", line[found.end() :])[0])
        ends = [at for at, word in enumerate(words) if word in ENDS_OF_A_COMMAND]
        return cls(found[1], tuple(word for word in words[: ends[0] if ends else None] if word != "..."))


def commands() -> dict[Command, str]:
    """Each command once, and the first place that shows it."""
    shown = [(page, line) for page in PAGES for line in shell_lines(page)]
    shown += [(MAKEFILE, line) for line in recipe_lines()]
    found: dict[Command, str] = {}
    for page, line in (*shown, *inline_code()):
        typed = SOURCED.sub(r"\1", line)
        if OURS.match(typed):
            found.setdefault(Command.of(typed), f"{page.relative_to(ROOT)}: {line}")
    return found


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks, those that go on joined."""
    for indent, language, body in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in SHELL:
            yield from (line.removeprefix(indent) for line in body.replace("\\\n", " ").splitlines())


def recipe_lines() -> Iterator[str]:
    """What `make` runs, without the place of its Python."""
    for line in MAKEFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("\t"):
            yield line.strip().removeprefix("$(BIN)/")


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def inline_code() -> Iterator[tuple[Path, str]]:
    """The code in every page's sentences."""
    for page in PAGES:
        for span in re.findall(r"`([^`]+)`", prose(page)):
            yield page, " ".join(span.split())

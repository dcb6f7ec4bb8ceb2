"""What README.md, CONTRIBUTING.md and docs/ name is there: commands, options, make targets, paths, links. Nothing runs.

A command is a line of a fenced block that begins with `python train.py`, `python infer.py` or `python -m fastbert_jax`,
or such a line as code inside a sentence. Lines that end in a backslash go on in the next, ` # ` begins a comment, what
follows a pipe or `>` is the shell's, and of `...` nothing is asked. Placeholders in capitals (DIR, TEXTS) stand for
words, and COMMAND for `predict`. A `--config` is read where it is in `configs/`; others are somebody's own. Commands of
`docs/launch/` that another program starts are `tests/test_launch.py`'s.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs.hooks.pages import HELP, fenced, help_of, requests_of
from fastbert_jax import voice
from fastbert_jax.command_line import TrainArguments, parse_train, read_command
from fastbert_jax.command_line.names import EVERYWHERE, option_names
from fastbert_jax.commands import COMMANDS
from fastbert_jax.config import AblationsConfig, ConvertConfig, PrepareConfig
from fastbert_jax.errors import UserError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "console")
OURS = re.compile(r"python (train\.py|infer\.py|-m fastbert_jax[\w.]*)(?= |$)")
ENDS_OF_A_COMMAND = ("|", ">", "<", "&&", "||", ";")
ROOMS = ("fastbert_jax", "configs", "benchmarks", "docs", "launch", "tests", "examples")
SCHEMAS = (TrainArguments, *COMMANDS.values(), AblationsConfig, ConvertConfig, PrepareConfig)
OPTIONS = {name for schema in SCHEMAS for name in option_names(schema)} | {*EVERYWHERE, "--completion"}
FOREIGN_OPTIONS = re.compile(r"--(signal|ntasks|gpus|max-restarts|stop-timeout|kind)\b.*")
"""Of Slurm, xpk and Docker, in sentences of docs/launch/."""
ANSWERED_AT_ONCE = ("--help", "--version", "--completion")
FILES_OF_RUNS = {
    *("calibration", "comparison", "config", "data", "files", "labels", "loggers", "study"),
    *("tokenizer", "tokenizer_config", "NAME.partial"),
}
"""JSON files that pages name and users make."""


def places(found: Iterator[tuple[Path, str]]) -> list:
    """Parameters of a test, each with the page that it stands in."""
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}: {text}") for page, text in dict.fromkeys(found)]


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks, those that go on joined."""
    for indent, language, body in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in SHELL:
            yield from (line.removeprefix(indent) for line in body.replace("\\\n", " ").splitlines())


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def inline_code() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for span in re.findall(r"`([^`]+)`", prose(page)):
            yield page, " ".join(span.split())


def commands() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        yield from ((page, line) for line in shell_lines(page) if OURS.match(line))
    yield from ((page, span) for page, span in inline_code() if OURS.match(span))


def words_of(command: str) -> list[str]:
    """What the program is given: the words after its name, without the comment and the shell's part."""
    words = shlex.split(re.split(r"\s#\s", command)[0])[len(OURS.match(command)[0].split()) :]
    ends = [at for at, word in enumerate(words) if word in ENDS_OF_A_COMMAND]
    return [word for word in words[: ends[0] if ends else None] if word != "..."]


def parse(command: str) -> object:
    """The settings that a command line gives its program."""
    program, words = OURS.match(command)[1], words_of(command)
    for at, word in enumerate(words):
        if word == "--config" and not words[at + 1].startswith("configs/"):
            return parse(command.replace(f"{word} {words[at + 1]}", ""))
    if program == "train.py":
        return parse_train(words)
    if program == "infer.py":
        words = ["predict" if word == "COMMAND" else word for word in words]
        return read_command(COMMANDS, words, program=program, description="")
    return parse_module(program.removeprefix("-m "), words)


def parse_module(name: str, words: list[str]) -> object:
    """The settings that a module's `main` reads; it is stopped before it does anything with them."""

    class Read(Exception):
        pass

    module = importlib.import_module(name)
    reader = next(reader for reader in ("parse_ablations", "read_settings") if hasattr(module, reader))

    def stop(*arguments: object, **named: object) -> None:
        raise Read(getattr(importlib.import_module("fastbert_jax.command_line"), reader)(*arguments, **named))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Read) as read:
        patch.setattr(module, reader, stop)
        patch.setattr("sys.argv", [name, *words])
        module.main()
    return read.value.args[0]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As users type: from the root. `--quiet` and `--json` are forgotten after each test."""
    monkeypatch.chdir(ROOT)
    yield
    voice.speak(quiet=False, json=False)


@pytest.mark.parametrize("command", places(commands()))
def test_every_command_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if any(word in ANSWERED_AT_ONCE for word in words_of(command)):
        with pytest.raises(SystemExit) as end:
            parse(command)
        assert end.value.code == 0 and capsys.readouterr().out
    else:
        assert parse(command) is not None


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --data.trian mine.csv",
        "python infer.py forecast --model runs/mine",
        "python infer.py compare --model runs/mine --data test.csv --speeds 2  # too fast",
        "python -m fastbert_jax.text.prepare --input 'a*.txt' --outptu corpora/texts",
        "python -m fastbert_jax.training.ablations --config configs/reuters_r8.yaml --seeds 0 0",
    ],
)
def test_a_wrong_command_does_not_parse(command: str) -> None:
    with pytest.raises(UserError):
        parse(command)


def test_the_commands_are_found() -> None:
    found = [command for _, command in commands()]
    assert len(found) > 60
    for name in (*(f"infer.py {command}" for command in COMMANDS), "train.py", "-m fastbert_jax.text.prepare"):
        assert any(command.startswith(f"python {name}") for command in found), f"no page shows {name}"
    (joined,) = (words_of(command) for command in found if "--distil.steps 20000" in command)
    assert joined[-2:] == ["--checkpoints.every", "500"]
    assert "builtin:reuters_r8#test" in words_of("python infer.py compare --data builtin:reuters_r8#test  # all of it")


def test_options_in_sentences_exist() -> None:
    for page, span in inline_code():
        option = re.match(r"--[\w.-]+", span)
        if option and not (page.parent.name == "launch" and FOREIGN_OPTIONS.match(span)):
            name = option[0].rstrip(".").replace("_", "-")
            section = any(known.startswith(f"{name}.") for known in OPTIONS)
            assert name in OPTIONS or section, f"{page}: {span}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {found for page in PAGES for line in shell_lines(page) for found in re.findall(r"^make ([a-z]+)", line)}
    named |= {found for _, span in inline_code() for found in re.findall(r"^make ([a-z]+)", span)}
    assert {"demo", "test", "docs"} <= named <= targets


@pytest.mark.parametrize("path", places((page, span) for page, span in inline_code() if span.split("/")[0] in ROOMS))
def test_paths_of_the_repository_exist(path: str) -> None:
    assert list(ROOT.glob(path.partition("#")[0].rstrip("/"))), path


def test_scripts_and_numbers_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"\bbenchmarks/[\w/*.]+\.(?:json|py)\b", page.read_text(encoding="utf-8")):
            assert list(ROOT.glob(path)), f"{page}: {path}"
    for page, span in inline_code():
        if span.endswith(".json") and "/" not in span:
            assert span.removesuffix(".json") in FILES_OF_RUNS, f"{page}: {span}; name a result by its whole path"


def anchors_of(page: Path) -> set[str]:
    """The ends of links to a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if not re.match(r"[a-z]+:", link):
                name, _, anchor = link.partition("#")
                target = page.parent / name if name else page
                assert target.is_file(), f"{page}: {link}"
                assert not anchor or anchor in anchors_of(target), f"{page}: {link}"
                assert page.parent == ROOT or target.resolve().is_relative_to(ROOT / "docs"), f"{page}: {link}"


def test_the_site_has_every_page_once() -> None:
    def leaves(part: object) -> Iterator[str]:
        match part:
            case str():
                yield part
            case dict():
                for inner in part.values():
                    yield from leaves(inner)
            case list():
                for inner in part:
                    yield from leaves(inner)

    named = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    there = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert sorted(named) == sorted(there)


def test_every_commands_help_is_in_the_reference() -> None:
    asked = [command for page in PAGES for command in HELP.findall(page.read_text(encoding="utf-8"))]
    assert {f"infer.py {name}" for name in COMMANDS} < set(asked)
    for command in asked:
        said = help_of(command)
        assert said.startswith(f"usage: {'python ' if command.startswith('-m') else ''}{command} [-h]")
        assert "\x1b" not in said and "show this help message" in said


def test_examples_in_docstrings_become_code() -> None:
    assert fenced("One.\n\n>>> a\n>>> b\n2\n\nArgs:\n  c: d") == (
        "One.\n\n```pycon\n>>> a\n>>> b\n2\n```\n\nArgs:\n  c: d"
    )
    assert fenced("None here, 2 > 1.") == "None here, 2 > 1."


@pytest.mark.parametrize(
    ("page", "asks"),
    [
        ('<a href="https://arxiv.org">paper</a> <link rel="canonical" href="https://example.com/">', False),
        ('<link rel="stylesheet" href="assets/main.css"><script src="../bundle.js"></script>', False),
        ('<script async src="https://unpkg.com/shim"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example.com/css">', True),
        ('<img alt="" src=http://example.com/pixel.gif>', True),
        ("@import url('https://example.com/a.css');", True),
        ("a { background: url(https://example.com/a.png) }", True),
    ],
)
def test_a_page_that_asks_another_host_is_refused(page: str, asks: bool) -> None:
    assert bool(list(requests_of(page))) == asks

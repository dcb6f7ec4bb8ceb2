"""What README.md, CONTRIBUTING.md and docs/ name is there: options, make targets, paths, links. Nothing runs.

`tests/pages.py` reads the pages, and `tests/test_documented_commands.py` runs their commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs.hooks.pages import HELP, fenced, help_of, requests_of
from fastbert_jax.command_line import TrainArguments
from fastbert_jax.command_line.names import EVERYWHERE, option_names
from fastbert_jax.commands import COMMANDS
from fastbert_jax.config import ConvertConfig, PrepareConfig
from tests.pages import MAKEFILE, PAGES, ROOT, inline_code, prose, shell_lines

ROOMS = ("fastbert_jax", "configs", "benchmarks", "docs", "launch", "tests", "examples")
SCHEMAS = (TrainArguments, *COMMANDS.values(), ConvertConfig, PrepareConfig)
OPTIONS = {name for schema in SCHEMAS for name in option_names(schema)} | {*EVERYWHERE, "--completion"}
OPTIONS |= {"--ablations", "--seeds"}  # of benchmarks/ablations.py
FOREIGN_OPTIONS = re.compile(r"--(signal|ntasks|gpus|max-restarts|stop-timeout|kind)\b.*")
"""Of Slurm, xpk and Docker, in sentences of docs/launch/."""
FILES_OF_RUNS = {
    *("calibration", "comparison", "config", "data", "files", "labels", "loggers", "study"),
    *("tokenizer", "tokenizer_config", "NAME.partial"),
}
"""JSON files that pages name and users make."""


def test_options_in_sentences_exist() -> None:
    for page, span in inline_code():
        option = re.match(r"--[\w.-]+", span)
        if option and not (page.parent.name == "launch" and FOREIGN_OPTIONS.match(span)):
            name = option[0].rstrip(".").replace("_", "-")
            section = any(known.startswith(f"{name}.") for known in OPTIONS)
            assert name in OPTIONS or section, f"{page}: {span}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE))
    named = {found for page in PAGES for line in shell_lines(page) for found in re.findall(r"^make ([a-z]+)", line)}
    named |= {found for _, span in inline_code() for found in re.findall(r"^make ([a-z]+)", span)}
    assert {"demo", "test", "docs"} <= named <= targets


def test_paths_of_the_repository_exist() -> None:
    for page, span in inline_code():
        if span.split("/")[0] in ROOMS:
            assert list(ROOT.glob(span.partition("#")[0].rstrip("/"))), f"{page}: {span}"


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

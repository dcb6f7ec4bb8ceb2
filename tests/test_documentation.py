"""Options, make targets, paths and links in README.md, CONTRIBUTING.md and docs/ exist. Nothing runs.

`make docs` checks the links and the navigation of the site too; `tests/test_documented_commands.py` runs the commands.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.hooks.pages import HELP, fenced, help_of, readers, requests_of, settings_of
from docs.hooks.pages import SETTINGS as SETTINGS_OF
from fastbert_jax.commands import SETTINGS
from fastbert_jax.recipes import RECIPES
from tests.pages import MAKEFILE, PAGES, ROOT, inline_code, prose, shell_lines

FOLDERS = ("fastbert_jax", "configs", "benchmarks", "docs", "launch", "tests", "examples")
COMMANDS = (
    *(f"train.py --recipe {recipe}" for recipe in RECIPES),
    *(f"infer.py {name}" for name in SETTINGS),
    *(command for command in readers() if command.startswith("-m")),
)
OPTIONS = {option for command in COMMANDS for option in re.findall(r"(?<!\S)--[a-z][\w.-]*", help_of(command))}
OPTIONS |= {
    "--version",
    "--completion",
    "--ablations",
    "--layers",
    "--seeds",
}  # the last three of benchmarks/ablations.py
FOREIGN_OPTIONS = re.compile(r"--(signal|ntasks|gpus|max-restarts|stop-timeout|kind|spot|scopes|worker)\b.*")
"""Of Slurm, xpk, Docker and gcloud, in sentences of docs/launch/."""
FILES_OF_USERS = {
    *("calibration", "comparison", "config", "data", "files", "labels", "loggers"),
    *("tokenizer", "tokenizer_config"),
}
"""JSON files that are not in the repository."""


def test_options_in_sentences_exist() -> None:
    for page, span in inline_code():
        option = re.match(r"--[\w.-]+", span)
        if option and not (page.parent.name == "launch" and FOREIGN_OPTIONS.match(span)):
            name = option[0].rstrip(".").replace("_", "-")
            section = any(known.startswith(f"{name}.") for known in OPTIONS)
            assert name in OPTIONS or section, f"{page}: {span}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE))
    lines = [*(line for page in PAGES for line in shell_lines(page)), *(span for _, span in inline_code())]
    named = {found for line in lines for found in re.findall(r"^make ([a-z-]+)", line)}
    assert {"demo", "test", "docs", "pages"} <= named <= targets


def test_paths_of_the_repository_exist() -> None:
    for page, span in inline_code():
        if span.split("/")[0] in FOLDERS:
            assert list(ROOT.glob(span.partition("#")[0].rstrip("/"))), f"{page}: {span}"
        elif span.endswith(".json") and "/" not in span:
            assert span.removesuffix(".json") in FILES_OF_USERS, f"{page}: {span}; name a result by its whole path"


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


def test_the_help_of_every_command_is_in_the_reference() -> None:
    named = [command for page in PAGES for command in HELP.findall(page.read_text(encoding="utf-8"))]
    assert {f"infer.py {name}" for name in SETTINGS} < set(named)
    for command in named:
        shown = help_of(command)
        assert shown.startswith(f"usage: python {command} [-h]")
        assert "\x1b" not in shown and "show this help message" in shown


def test_every_setting_is_in_a_table_with_its_default_and_meaning() -> None:
    named = [command for page in PAGES for command in SETTINGS_OF.findall(page.read_text(encoding="utf-8"))]
    assert {f"infer.py {name}" for name in SETTINGS} | {"train.py"} <= set(named)
    tables = {command: settings_of(command) for command in named}
    rows = [line for table in tables.values() for line in table.splitlines() if line.startswith("| `")]
    assert all(re.fullmatch(r"\| `[\w.-]+` \| [^|]+ \| (\\\||[^|]){10,} \|", row) for row in rows), rows
    for option in ("`data.train`", "`fine-tune.learning-rate`", "`mesh.fsdp`", "`evaluate.speeds`"):
        assert sum(row.startswith(f"| {option}") for row in tables["train.py"].splitlines()) == 1, option


def test_examples_in_docstrings_become_code() -> None:
    assert fenced("One.\n\n>>> a\n>>> b\n2\n\nArgs:\n  c: d") == (
        "One.\n\n```pycon\n>>> a\n>>> b\n2\n```\n\nArgs:\n  c: d"
    )
    assert fenced("None here, 2 > 1.") == "None here, 2 > 1."


@pytest.mark.parametrize(
    ("page", "loads"),
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
def test_a_page_that_loads_from_another_host_is_refused(page: str, loads: bool) -> None:
    assert bool(list(requests_of(page))) == loads

"""Measured numbers of the pages are those of the committed results: `make pages` writes them."""

from __future__ import annotations

import copy
import re

import pytest

import write_pages
from tests.pages import ROOT, prose
from write_pages import CONFIGS, NUMBER, NUMBERS, PAGES, SCORE, SCORES, TABLE, TABLES, written

MEASURED = re.compile(r"\d+\.\d+|\d+(?= ?%| times)")
NOT_MEASURED = {
    "README.md": ["3.11"],
    "docs/explanation/early_exit.md": ["2.8", "1.4"],  # counted: tests/model/test_flops.py
    "docs/fidelity.md": ["0.02", "2.8", "6.5", "1.02", "0.01"],  # counted, or the paper's
    "docs/howto/calibrate.md": ["3", "5", "0.5"],  # what the options ask for, and a default
    "docs/howto/extend.md": ["3.1"],  # a section of a paper
    "docs/howto/own_data.md": ["2.0"],  # of a licence's name
    "docs/howto/measure.md": ["95", "5"],  # levels of confidence
    "docs/howto/one_text.md": ["127.0", "0.1"],
    "docs/launch/gpu.md": ["4.4"],
    "docs/launch/tpu.md": ["0.6", "3.11", "3.10"],
    "docs/official_models.md": ["1.6", "0.2", "0.4", "0.6", "0.8"],
    "docs/scaling.md": ["0.7"],
    "docs/tutorial.md": ["3.11", "0.9", "95", "1.5"],
    "docs/unlabelled_texts.md": ["28"],
}
"""Versions, settings, addresses, and what is counted from a model's sizes."""


def test_pages_have_the_numbers_of_the_results() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (*PAGES, *CONFIGS)}
    assert [path for path, text in texts.items() if written(text) != text] == [], "run `make pages`"


def test_other_numbers_repeat_those_of_their_page() -> None:
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        generated = " ".join(found[3] for pattern in (TABLE, NUMBER) for found in pattern.finditer(text))
        known = {*MEASURED.findall(generated), *NOT_MEASURED.get(name, [])}
        left = re.sub(r"`[^`]*`|\]\([^)]*\)", "", NUMBER.sub("", TABLE.sub("", prose(page))))
        assert [number for number in MEASURED.findall(left) if number not in known] == [], name


def test_every_table_and_number_is_on_a_page() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (*PAGES, *CONFIGS))
    for pattern, known in ((TABLE, TABLES), (NUMBER, NUMBERS), (SCORE, SCORES)):
        assert {found[2] for found in pattern.finditer(text)} == set(known)


def test_a_result_that_changes_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(write_pages.result("early_exit_movie_reviews"))
    for row in changed["batch_sizes"][0]["rows"]:
        row["accuracy"] += 0.001
    others = write_pages.result
    monkeypatch.setattr(
        write_pages, "result", lambda name: changed if name == "early_exit_movie_reviews" else others(name)
    )
    for path in (ROOT / "README.md", ROOT / "configs" / "movie_reviews.yaml"):
        text = path.read_text(encoding="utf-8")
        assert written(text) != text


@pytest.mark.parametrize("text", ["<!-- number: peak -->1<!-- end --> TFLOP/s", "a <!-- number: none -->1<!-- end -->"])
def test_a_wrong_marker_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"move the marker|expected one of"):
        written(text)

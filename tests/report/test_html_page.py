"""The page of a report contains all it needs, no text of a user is run as code, and every text has enough contrast."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from fastbert_jax.report.tables import ASSETS, SCRIPTS, mislabelled_csv, render_page
from tests.report.reports import HARM, MEASURED, MISLABELLED, page_of, values_of


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each by its `id`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.text: dict[str, str] = {}
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.text[self._inside] = self.text.get(self._inside, "") + data


def test_what_anybody_wrote_is_text_and_nothing_else() -> None:
    page = Elements(page_of())
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "b"} and [tag for tag, _ in page.elements].count("script") == 2
    assert not any(name.startswith("on") or name == "style" for _, given in page.elements for name in given)
    assert page.text["h1"].strip() == f"runs/{HARM}"
    shown = json.loads(page.text["values"])
    assert shown["easy"][0]["text"] == shown["easy"][0]["pair"] == shown["classes"][0]["label"] == HARM


def test_the_page_asks_nobody_for_anything() -> None:
    page = page_of()
    for _, given in Elements(page).elements:
        assert not given.keys() & {"src", "action", "data", "srcset", "background"}
        assert given.get("href", "data:").startswith("data:")
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert len(page.encode()) < 3e6


def test_the_texts_to_check_are_shown_and_all_of_them_are_in_the_file_that_is_downloaded() -> None:
    page = page_of()
    (link,) = [given for tag, given in Elements(page).elements if tag == "a"]
    kind, _, content = link["href"].partition(",")
    assert (kind, link["download"]) == ("data:text/csv;charset=utf-8;base64", "mislabelled.csv")
    assert base64.b64decode(content).decode() == mislabelled_csv(MISLABELLED)
    shown = page[page.index('id="mislabelled"') : page.index('id="use"')]
    assert shown.count('<th scope="row">') == 20 and "All 25 of them" in shown and "20 %</td>" in shown
    nothing = render_page(MEASURED, values_of(), model="m", data="d")
    assert 'id="mislabelled"' not in nothing and "<a " not in nothing


def test_numbers_are_those_of_the_report_and_what_is_none_is_null() -> None:
    broken = dataclasses.replace(MEASURED.exits[0], true_speedup=float("nan"))
    values = json.loads(Elements(page_of(dataclasses.replace(MEASURED, exits=(broken,)))).text["values"])
    assert values["exits"][0]["true_speedup"] is None and values["speeds"][0]["class_depth"][2] is None
    assert [one["speed"] for one in values["speeds"]] == [0.0, 0.1, 0.3, 0.5, 1.0]
    assert values["speeds"][2]["texts_per_exit"] == [0, 2, 1, 0, 0, 1]
    assert values["speeds"][2]["mean_depth"] == 3.25
    assert [size["batches"] for size in values["sizes"]] == ["1 text", "2048 tokens"]
    assert [mode["mode"] for mode in values["sizes"][0]["modes"]] == ["bucketed", "masked"]
    assert values["sizes"][0]["full"]["low"] == 0.99  # of both runs of full depth


def test_half_a_surrogate_pair_is_no_obstacle() -> None:
    assert "runs/?" in page_of(model="runs/\udcff")


def test_what_was_not_found_out_is_not_shown() -> None:
    page = Elements(page_of(dataclasses.replace(MEASURED, baseline_accuracy=None), training=[]))
    ids = {given.get("id") for _, given in page.elements}
    assert "training" not in ids and "tradeoff" in ids and "linear SVM" not in page.text["measured"]


def _colours() -> dict[str, dict[str, str]]:
    """The colours of the style sheet by name, light and dark."""
    light, dark = (ASSETS / "page.css").read_text().split("@media (prefers-color-scheme: dark)")
    found = {"light": dict(re.findall(r"--([\w-]+): (#\w{6});", light))}
    return found | {"dark": found["light"] | dict(re.findall(r"--([\w-]+): (#\w{6});", dark))}


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two colours `#rrggbb`, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_marks_can_be_seen(scheme: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    colours = _colours()[scheme]
    kinds = {kind: [name for name in colours if name.startswith(f"{kind}-")] for kind in ("text", "surface", "mark")}
    assert all(len(names) >= 3 for names in kinds.values())
    for text, surface in itertools.product(kinds["text"], kinds["surface"]):
        assert contrast(colours[text], colours[surface]) >= 4.5, (text, surface)
    for step in range(1, 6):
        assert contrast(colours[f"heat-text-{step}"], colours[f"heat-{step}"]) >= 4.5, step
    for mark in kinds["mark"]:
        assert contrast(colours[mark], colours["surface-card"]) >= 3, mark


def test_no_text_has_another_colour() -> None:
    """So that the test above sees all of them."""
    css = (ASSETS / "page.css").read_text()
    assert set(re.findall(r"[{;]\s*color: ([^;]+);", css)) <= {f"var(--text-{kind})" for kind in TEXT_KINDS}
    assert set(re.findall(r"svg text[^{]*{[^}]*fill: ([^;]+);", css)) <= {f"var(--text-{kind})" for kind in TEXT_KINDS}
    scripts = "".join((ASSETS / name).read_text() for name in SCRIPTS)
    assert set(re.findall(r"label\.style\.fill = (.*)", scripts)) == {
        'step ? `var(--heat-text-${step})` : "var(--text-soft)";'
    }


TEXT_KINDS = ("strong", "soft", "chosen", "right", "wrong")

"""The page in a browser, from disk: it draws without an error, loads nothing, follows the slider, fits a phone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.comparisons import FULL, SIZE
from tests.report.reports import HARM, MEASURED, page_of

PLOTS = ("tradeoff", "depths", "clock", "curves", "reached", "luha", "classes", "reliability", "training")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page_of(), encoding="utf-8")
    return path


class Opened:
    """The page, and what it complained of and asked for."""

    def __init__(self, browser, path: Path, **settings: object) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**settings)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def pictures(self) -> dict[str, str]:
        """What is drawn in every plot."""
        return {name: self.page.inner_html(f"#{name} .plot") for name in PLOTS}

    def words(self, selector: str) -> str:
        return self.page.inner_text(selector)


@pytest.fixture
def opened(browser, path: Path) -> Iterator[Opened]:
    made = Opened(browser, path)
    yield made
    assert made.complaints == [] and made.requests == [path.as_uri()]
    assert made.page.title() != "harmed"
    made.page.close()


def test_it_opens_at_its_speed_with_every_plot_drawn_and_told(opened: Opened) -> None:
    page = opened.page
    assert opened.words("#speed-value") == "0.5" and opened.words("#number-accuracy") == "100.00 %"
    assert (
        opened.words("#number-depth") == "2.25" and opened.words("#note-clock") == "bucketed, measured (2.30 to 2.50)"
    )
    for name, picture in opened.pictures().items():
        assert "<svg" in picture and "NaN" not in picture and "undefined" not in picture, name
        label = page.get_attribute(f"#{name} svg[role=img]", "aria-label")
        assert opened.words(f"#{name} .said") in label and len(label) > 40 and "NaN" not in label
        page.click(f"#{name} summary")
        page.wait_for_selector(f"#{name} details tbody tr:nth-child(2)")
        assert "NaN" not in opened.words(f"#{name} details") and "undefined" not in opened.words(f"#{name} details")
    assert page.locator("#easy p").first.inner_text().startswith(HARM[:20])


def test_keys_move_the_slider_and_everything_follows(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "speed"
    before = opened.pictures()
    page.click("#depths summary")
    page.wait_for_selector("#depths tbody tr")
    page.focus("#speed")
    page.keyboard.press("ArrowLeft")
    assert opened.words("#speed-value") == opened.words("#use-speed") == "0.3"
    assert opened.words("#number-depth") == "3.25" and opened.words("#note-clock") == "bucketed, estimated"
    assert page.get_attribute("#speed", "aria-valuetext") == "speed 0.3, accuracy 100.00 %"
    after = opened.pictures()
    assert {name for name in PLOTS if before[name] == after[name]} == {"training"}
    assert opened.words("#depths tbody tr:nth-child(2)").split()[:2] == ["2", "2"]
    assert "exits after layer 2" in opened.words("#easy") and "expected" not in opened.words("#easy")
    page.keyboard.press("Home")
    assert opened.words("#speed-value") == "0" and opened.words("#number-depth") == "6.00"
    assert opened.words("#number-clock") == "1.00x" and opened.pictures()["clock"] != before["clock"]
    page.click("#jumps button:last-child")
    assert opened.words("#speed-value") == "0.5" and opened.pictures()["tradeoff"] == before["tradeoff"]


def test_every_batch_size_has_its_own_times(opened: Opened) -> None:
    before = opened.words("#clock .plot")
    opened.page.select_option("#size", label="2048 tokens")
    assert "128 texts" in before and "512 texts" in opened.words("#clock .plot")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_has_the_colours_of_its_scheme(browser, path: Path, width: int, scheme: str) -> None:
    made = Opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name in PLOTS:
        made.page.click(f"#{name} summary")
    for place in (0, 4):
        made.page.evaluate(f"choose({place})")
        assert made.page.evaluate("document.documentElement.scrollWidth") == width
    light = made.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(244, 246, 248)"
    assert light == (scheme == "light") and made.complaints == []
    made.page.close()


def test_full_depth_alone_is_drawn_too(browser, tmp_path: Path) -> None:
    alone = dataclasses.replace(SIZE, rows=(FULL,))
    comparison = dataclasses.replace(MEASURED, batch_sizes=(alone,), baseline_accuracy=None)
    (tmp_path / "a.html").write_text(page_of(comparison, training=[]))
    made = Opened(browser, tmp_path / "a.html")
    assert made.complaints == [] and "no speed was timed" in made.words("#tradeoff .said")
    assert made.words("#note-clock") == "no speed was timed" and not made.page.is_visible("#size")
    made.page.close()

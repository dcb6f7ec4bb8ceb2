"""The page in a browser, from disk: it draws without an error, loads nothing, follows the slider, fits a phone."""

from __future__ import annotations

import csv
import dataclasses
import re
import types
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fastbert_jax.inference.exit_outputs import ExitOutputs
from fastbert_jax.inference.report_page import MATRIX, page_values
from fastbert_jax.report.tables import mislabelled_csv, render_page
from tests.report.comparisons import FULL, SIZE
from tests.report.reports import EVALUATED, HARM, LOSSES, MEASURED, MISLABELLED, page_of

PLOTS = (
    *("tradeoff", "depths", "clock", "curves", "reached", "luha", "confusion", "classes", "groups", "reliability"),
    "training",
)

ONE_MEASUREMENT = [{"step": 2, "phase": "fine_tune", "accuracy": [0.5] * 6, "loss": [*[float("nan")] * 5, 0.4]}]


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
    assert opened.words("#number-depth") == "2.25"
    assert opened.words("#note-clock") == "bucketed, measured: 2.30 to 2.50"
    assert opened.words("#note-accuracy") == "51.0 to 100.0 %; as many correct as at full depth"
    for name, picture in opened.pictures().items():
        assert "<svg" in picture and "NaN" not in picture and "undefined" not in picture, name
        label = page.get_attribute(f"#{name} svg[role=img]", "aria-label")
        assert opened.words(f"#{name} .said") in label and len(label) > 40 and "NaN" not in label
        page.click(f"#{name} summary")
        page.wait_for_selector(f"#{name} details tbody tr:nth-child(2)")
        assert "NaN" not in opened.words(f"#{name} details") and "undefined" not in opened.words(f"#{name} details")
    assert page.locator("#easy p").first.inner_text().startswith(HARM[:20])


def test_the_texts_to_check_can_be_downloaded(opened: Opened) -> None:
    with opened.page.expect_download() as download:
        opened.page.click("#mislabelled a")
    assert download.value.suggested_filename == "mislabelled.csv"
    assert Path(download.value.path()).read_text(encoding="utf-8") == mislabelled_csv(MISLABELLED)


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
    assert opened.words("#number-depth") == "3.25" and opened.words("#note-clock") == "bucketed, estimated; noise 3 %"
    assert page.get_attribute("#speed", "aria-valuetext") == "speed 0.3, accuracy 100.00 %"
    after = opened.pictures()
    same = {name for name in PLOTS if before[name] == after[name]}
    assert same == {"training", "confusion", "groups"}  # no text changes its answer
    assert opened.words("#depths tbody tr:nth-child(2)").split()[:2] == ["2", "2"]
    assert "exits after layer 2" in opened.words("#easy") and "expected" not in opened.words("#easy")
    page.keyboard.press("End")
    assert opened.words("#note-accuracy").endswith("−2 of 4 texts, within the noise")
    last = opened.pictures()
    assert {name for name in PLOTS if last[name] == after[name]} == {"training"}
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


def test_every_figure_can_be_kept_as_svg_and_csv(browser, path: Path, tmp_path: Path) -> None:
    made = Opened(browser, path, color_scheme="dark")
    for name in PLOTS:
        made.page.goto(path.as_uri())  # a browser asks before it keeps more than ten files of one page
        kept = {}
        for kind in ("svg", "csv"):
            with made.page.expect_download() as download:
                made.page.click(f"#{name} .save [data-kind={kind}]")
            kept[kind] = tmp_path / download.value.suggested_filename
            download.value.save_as(kept[kind])
        assert kept["svg"].name == ("training.svg" if name == "training" else f"{name}_speed_0.5.svg")
        picture = kept["svg"].read_text(encoding="utf-8")
        root = ElementTree.fromstring(picture)
        assert not re.search(r"var\(|color-mix|oklab|style=|class=|NaN|undefined", picture)
        assert HARM not in picture and root.tag == "{http://www.w3.org/2000/svg}svg"
        (background,) = [one.get("fill") for one in root if one.tag.endswith("rect")]
        assert background == "rgb(24, 30, 37)"  # the dark card's
        drawn = {one.text for one in root.iter() if one.tag.endswith("text")}
        shown = made.page.eval_on_selector_all(f"#{name} .plot text", "all => all.map((one) => one.textContent)")
        assert drawn >= set(shown) and len(drawn) > 3
        header, *rows = csv.reader(kept["csv"].read_text(encoding="utf-8").split("\n")[:-1])
        made.page.click(f"#{name} summary")
        made.page.wait_for_selector(f"#{name} tbody tr")
        assert header == made.page.locator(f"#{name} th[scope=col]").all_text_contents()
        assert len(rows) == made.page.locator(f"#{name} tbody tr").count() and {len(row) for row in rows} == {
            len(header)
        }
    assert made.complaints == [] and {url.split(":")[0] for url in made.requests} <= {"file", "blob"}
    made.page.close()


def test_a_value_in_csv_is_a_number_and_no_formula(opened: Opened) -> None:
    made = opened.page.evaluate(
        """csv(["a", "=b"], [["-1+1", 0.12345], ['say "x"', null], ["@sum", [percent, 0.5, 2]]])"""
    )
    assert list(csv.reader(made.splitlines())) == [
        ["a", "'=b"],
        ["'-1+1", "0.12345"],
        ['say "x"', ""],
        ["'@sum", "0.5"],
    ]


def boxes(page, selector: str) -> list[dict[str, float]]:
    """Where the elements stand."""
    return page.eval_on_selector_all(
        selector,
        "all => all.map((one) => one.getBoundingClientRect().toJSON())",
    )


def test_no_bar_or_its_label_covers_the_mean_and_all_numbers_fit_on_a_phone(browser, path: Path) -> None:
    made = Opened(browser, path, viewport={"width": 390, "height": 844})
    for place in range(5):
        made.page.evaluate(f"choose({place})")
        (mean,) = boxes(made.page, "#depths text.chosen")
        for one in boxes(made.page, "#depths rect, #depths text.strong"):
            apart_x = one["x"] >= mean["x"] + mean["width"] or mean["x"] >= one["x"] + one["width"]
            assert apart_x or one["y"] >= mean["y"] + mean["height"] or one["height"] == 0
        numbers = boxes(made.page, "#numbers dd:not(.note)")
        assert len(numbers) == 4 and all(one["width"] > 0 and one["x"] + one["width"] <= 390 for one in numbers)
    made.page.close()


@pytest.mark.parametrize("classes", [2, 8, 52, 150])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_matrix_can_be_read_at_any_number_of_classes(browser, tmp_path: Path, classes: int, width: int) -> None:
    number = 300
    expected = np.arange(number) % classes
    evaluated = dataclasses.replace(
        EVALUATED,
        predictor=types.SimpleNamespace(
            **vars(EVALUATED.predictor) | {"labels": [f"a long class {i}" for i in range(classes)]}
        ),
        texts=["a"] * number,
        expected_B=expected,
        outputs=ExitOutputs(
            np.full((6, number), 0.3),
            np.tile(np.where(np.arange(number) % 3, expected, 0), (6, 1)),
            np.full((6, number), 0.9),
        ),
        lengths_B=np.full(number, 16),
        groups={},
    )
    page = render_page(MEASURED, page_values(evaluated, MEASURED), model="m", data="d")
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    made = Opened(browser, tmp_path / "a.html", viewport={"width": width, "height": 800})
    cells = boxes(made.page, "#confusion svg g rect")
    shown = min(classes, MATRIX)
    assert len(cells) == shown * (shown + (classes > MATRIX)) and all(one["width"] >= 20 for one in cells)
    assert made.page.evaluate("document.documentElement.scrollWidth") == width
    assert ("→" in made.words("#confusion .plot")) == (classes > MATRIX) and made.complaints == []
    for label, cell in zip(boxes(made.page, "#confusion svg g text"), cells, strict=True):
        assert label["width"] <= cell["width"]
    made.page.close()


def test_one_mode_is_compared_with_full_depth_and_none_is_left_out(browser, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        page_of(dataclasses.replace(MEASURED, batch_sizes=(dataclasses.replace(SIZE, rows=SIZE.rows[:2]),)))
    )
    made = Opened(browser, tmp_path / "a.html")
    assert made.words("#clock h2") == "Time with and without early exit" and "bucketed" in made.words("#clock .plot")
    made.page.close()


def test_a_model_of_one_exit_has_no_figure_of_a_lone_bar(browser, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(page_of(dataclasses.replace(MEASURED, exits=MEASURED.exits[-1:])))
    made = Opened(browser, tmp_path / "a.html")
    assert made.page.locator("#depths, #reached").count() == 0 and "The model has one exit" in made.words("main")
    made.page.evaluate("choose(4)")
    assert made.complaints == []
    made.page.close()


def test_full_depth_alone_is_drawn_too(browser, tmp_path: Path) -> None:
    alone = dataclasses.replace(SIZE, rows=(FULL,))
    comparison = dataclasses.replace(MEASURED, batch_sizes=(alone,), baseline_accuracy=None)
    (tmp_path / "a.html").write_text(page_of(comparison, training=ONE_MEASUREMENT, losses=LOSSES[:1]))
    made = Opened(browser, tmp_path / "a.html")
    assert made.complaints == [] and "no speed was timed" in made.words("#tradeoff .said")
    assert made.words("#note-clock") == "no speed was timed" and not made.page.is_visible("#size")
    assert "NaN" not in made.page.inner_html("#training .plot") and "exit 6" in made.words("#training .plot")
    assert made.page.locator("#clock").count() == 0 and "No engine was timed" in made.words("main")
    made.page.close()

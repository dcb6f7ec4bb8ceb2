"""Tables: aligned columns, every number of a comparison and how it was measured, and the paper's tables in Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

import pytest

from fastbert_jax.report import tables
from fastbert_jax.report.comparison import BatchSizeComparison, Comparison
from fastbert_jax.report.tables import (
    MislabelledText,
    baseline_words,
    curve_csv,
    mislabelled_csv,
    ranked,
    render,
    render_markdown,
    speeds_csv,
    table,
)
from tests.report.comparisons import COMPARISON, FULL, SIZE
from tests.report.reports import HARM, MEASURED, MISLABELLED


def one_size(**changes: object) -> Comparison:
    return dataclasses.replace(COMPARISON, batch_sizes=(dataclasses.replace(SIZE, **changes),))


def words(comparison: Comparison) -> str:
    """The notes below the table, on one line."""
    return " ".join(render(comparison).split())


def test_every_batch_size_is_a_block_with_its_own_full_depth() -> None:
    lines = render(COMPARISON).split("\n")
    assert lines[0].split() == "mode speed accuracy depth FLOPs/paper FLOPs/true measured (min..max) efficiency".split()
    assert lines[2] == "batches of 1 text: 128 texts timed in 128 batches, 0% padding"
    assert lines[6:8] == ["", "batches of 2048 tokens: 512 texts timed in 40 batches, 25% padding"]
    for start in (3, 8):
        assert lines[start].split() == "full depth 0 0.9700 6.00 1.00x 1.00x 1.00x 0.99..1.03 1.00".split()
        assert lines[start + 1].split() == "bucketed 0.5 0.9651 2.00 2.95x 2.93x 2.40x 2.30..2.50 0.84".split()
        assert lines[start + 2].startswith("masked")
    assert lines[12].split() == "TF-IDF + linear SVM 0.9735".split()
    assert max(map(len, lines)) <= 120


def test_the_notes_tell_what_the_table_rests_on() -> None:
    told = words(COMPARISON)
    for fact in (
        "2189 texts, 6 layers, on cpu.",
        "median of 3 interleaved repeats",
        "differed by 1.0% (median; maximum 3.0%) in batches of 1 text, where differences below 3.0% mean nothing; 1.0%",
        "Small batches are timed on fewer texts",
        "batches of 1 text: speed 0.5 bucketed 2.40x; speed 0.1 masked 0.95x (no faster than full depth)",
    ):
        assert fact in told
    for problem in ("answers of the engines", "could not be read", "were truncated", "are few", "Other models"):
        assert problem not in told


def test_modes_that_noise_cannot_tell_apart_are_named_together() -> None:
    twin = dataclasses.replace(SIZE.rows[1], mode="cascade", speedups=(2.41, 2.31, 2.51))
    assert "speed 0.5 cascade or bucketed 2.41x;" in words(one_size(rows=(*SIZE.rows, twin)))


@pytest.mark.parametrize(
    ("comparison", "told"),
    [
        (dataclasses.replace(COMPARISON, disagreements=2), "WARNING: 2 answers of the engines differ"),
        (dataclasses.replace(COMPARISON, skipped_rows=3), "3 rows were left out: they could not be read, or the model"),
        (
            dataclasses.replace(COMPARISON, truncated_texts=4),
            "4 texts are longer than the model's maximum length and were truncated.",
        ),
        (one_size(timed_batches=5), "Batches of 2048 tokens: 5 are few for engines that keep their batches full"),
    ],
)
def test_what_a_reader_must_know_is_told(comparison: Comparison, told: str) -> None:
    assert told in words(comparison) and told not in words(COMPARISON)


def test_no_baseline_no_row_and_no_speeds_no_winner() -> None:
    nothing: BatchSizeComparison = dataclasses.replace(SIZE, rows=(FULL,))
    told = words(dataclasses.replace(COMPARISON, baseline_accuracy=None, batch_sizes=(nothing,)))
    assert "SVM" not in told and "Fastest" not in told and "full depth" in told


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_texts_per_second_are_told_of_accelerators_only(platform: str) -> None:
    origin = dataclasses.replace(COMPARISON.origin, platform=platform)
    lines = render(dataclasses.replace(COMPARISON, origin=origin)).split("\n")
    assert lines[0].endswith("texts/s") == (platform != "cpu")
    assert lines[9].endswith("1280") == (platform != "cpu")  # 512 texts in 0.4 seconds
    assert max(map(len, lines)) <= 120


def test_columns_line_up_names_left_numbers_right() -> None:
    assert table(("mode", "x", "y"), [("a", "1.5", ""), ("longer", "10.25", "1")]).split("\n") == [
        "mode        x  y",
        "------  -----  -",
        "a         1.5",
        "longer  10.25  1",
    ]
    with pytest.raises(ValueError, match="shorter"):
        table(("mode", "x"), [("a",)])


def test_other_models_stand_in_the_block_of_their_batch_size() -> None:
    other = dataclasses.replace(FULL, mode="runs/small", mean_depth=2.0, timed_depth=2.0, speedups=(2.9, 2.8, 3.0))
    comparison = one_size(baselines=(other,))
    lines = render(comparison).split("\n")
    assert lines[6].split() == "runs/small 0 0.9700 2.00 1.00x 1.00x 2.90x 2.80..3.00 0.97".split() and lines[7] == ""
    assert "Other models are at their full depth" in words(comparison)
    assert (
        "| runs/small | 0.9700 (0.9620 to 0.9764) | 2.00 | 0M | 1.00x | 1.00x | 2.90x (2.80 to 3.00) |"
        in render_markdown(comparison, "")
    )


def test_the_papers_tables_have_every_speed_every_exit_and_every_bin() -> None:
    text = render_markdown(MEASURED, "my model")
    assert text.startswith("# my model\n\n4 texts, 6 layers, on cpu. Command: `python infer.py compare`.")
    assert "| wall clock, batches of 1 text | wall clock, batches of 2048 tokens |" in text
    assert "| 2.95x | 2.93x | 2.40x (2.30 to 2.50), bucketed | 2.40x (2.30 to 2.50), bucketed |" in text
    exits = text[text.index("## Every exit alone") : text.index("## Lower uncertainty")]
    assert [line.split(" | ")[0] for line in exits.splitlines() if line.startswith("| ")][2:] == [
        f"| {layer}" for layer in range(1, 7)
    ]
    assert "| 1 | 0.5000 (0.1500 to 0.8500) | 0.5000 |" in exits and "| 6 | 1.0000 (" in exits
    assert "| 0.8 to 0.9 | 0.000 (2) | 0.000 (1) | - | - | - | - |" in text and text.count(" to 1.0 |") == 1
    one_mode = render_markdown(one_size(rows=SIZE.rows[:2]), "my model")
    assert "| 2.93x | 2.40x (2.30 to 2.50) |" in one_mode and "| wall clock |" in one_mode


BEHIND = "this model at full depth (accuracy 0.9700) answers 8 fewer of 2189 texts correctly than TF-IDF + linear SVM"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline_gained": 30, "baseline_lost": 22}, f"{BEHIND} .* the difference is within the noise"),
        ({"baseline_gained": 9, "baseline_lost": 1}, f"{BEHIND} .* the difference is beyond the noise"),
        ({}, f"{BEHIND} .* the difference is within the noise"),  # a file of an earlier version
        ({"baseline_accuracy": 0.99}, "beyond the noise"),
        ({"baseline_accuracy": 0.97}, "is no more accurate than TF-IDF"),
        ({"baseline_accuracy": 0.9695}, ""),
        ({"baseline_accuracy": None}, ""),
    ],
)
def test_a_model_that_does_not_beat_the_baseline_says_so(changes: dict, said: str) -> None:
    comparison = dataclasses.replace(COMPARISON, **changes)
    found = re.sub(r"[()]", "", baseline_words(comparison))
    assert bool(said) == bool(found) and re.search(re.sub(r"[()]", "", said).replace("+", r"\+"), found)
    assert ("--data.unlabelled" in found) == bool(said)
    for text in (words(comparison), render_markdown(comparison, "")):
        assert ("than TF-IDF + linear SVM" in text) == bool(said)


def test_gained_and_lost_texts_are_told_with_their_noise() -> None:
    rows = (
        dataclasses.replace(FULL, gained=0, lost=0),
        dataclasses.replace(SIZE.rows[1], gained=1, lost=12),
        dataclasses.replace(SIZE.rows[2], gained=4, lost=5),
    )
    told = words(one_size(rows=rows))
    assert "speed 0.5 12 lost, 1 gained, beyond the noise; speed 0.1 5 lost, 4 gained, within the noise." in told
    assert "one text is 0.046 points" in told and "full depth 0.9620 to 0.9764; speed 0.5 0.9566 to 0.9720" in told
    assert "| speed 0.5 | 0.9651 (0.9566 to 0.9720) | 12 lost, 1 gained, beyond the noise |" in render_markdown(
        one_size(rows=rows), ""
    )
    assert " gained" not in words(COMPARISON)  # a file of an earlier version


def test_every_class_and_group_has_its_interval_and_markup_is_text() -> None:
    text, printed = render_markdown(MEASURED, "my model"), render(MEASURED)
    assert "| b | 2 | 2 | 1.0000 (0.3424 to 1.0000) | 1.0000 (0.3424 to 1.0000) | 1.0000 (0.5101 to 1.0000) |" in text
    assert "## Every class at full depth" in text and "## Every class at speed 0.5" in text
    assert "| c | 0 | 0 | - | - | - |" in text and "| en | 2 | 1.0000 (0.3424 to 1.0000) |" in text
    assert "<img" not in text
    assert "en" in [line.split(" ")[0] for line in printed.split("\n")] and "Accuracy by <" in printed


def test_files_of_csv_have_every_speed() -> None:
    curve, speeds = (list(csv.DictReader(io.StringIO(make(MEASURED)))) for make in (curve_csv, speeds_csv))
    assert [float(row["speed"]) for row in curve] == [0.0, 0.1, 0.3, 0.5, 1.0]
    assert {float(row["accuracy_low"]) < float(row["accuracy"]) <= float(row["accuracy_high"]) for row in curve} == {
        True
    }
    assert len(speeds) == 6 and speeds[1]["mode"] == "bucketed" and speeds[1]["batches"] == "1 text"
    assert (speeds[1]["speedup"], speeds[1]["speedup_low"], speeds[1]["gained"]) == ("2.4", "2.3", "")


def test_the_recommended_speed_is_the_last_line_where_there_is_one() -> None:
    assert "Recommended" not in render(COMPARISON)
    best = dataclasses.replace(MEASURED.curve[1], speed=0.23, accuracy=0.5, mean_depth=4.25)
    found = dataclasses.replace(COMPARISON, recommended=best)
    line = render(found).splitlines()[-1]
    assert line.startswith("Recommended speed 0.23, ") and line.endswith("(0.9700 at full depth), depth 4.25 of 6")
    assert len(line) <= tables.WIDTH
    assert Comparison.from_json(found.to_json()) == found and COMPARISON.to_json()["recommended"] is None


def test_texts_to_check_are_ranked_by_how_far_the_model_prefers_another_label(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [*MISLABELLED[10:], *MISLABELLED[:10]]
    equal = [dataclasses.replace(MISLABELLED[0], place=place) for place in "xy"]
    assert ranked(mixed) == MISLABELLED
    assert [one.place for one in ranked([*equal, *mixed])][:3] == ["x", "y", MISLABELLED[0].place]
    monkeypatch.setattr(tables, "MOST_MISLABELLED", 3)
    assert ranked(mixed) == MISLABELLED[:3]


def test_a_csv_file_of_texts_to_check_holds_each_as_it_is_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(mislabelled_csv(MISLABELLED))))
    assert len(rows) == len(MISLABELLED) and [row["rank"] for row in rows] == [str(n) for n in range(1, 26)]
    assert rows[0] == {
        "rank": "1",
        "place": f"{HARM}.csv:1",
        "label": HARM,
        "suggested": "b",
        "probability": "0.0100",
        "suggested_probability": "0.9000",
        "exits_that_agree": "5 of 6",
        "text": HARM,
        "pair": "",
    }
    assert rows[1]["text"] == "'=HYPERLINK(1)" and rows[2]["pair"] == HARM
    assert mislabelled_csv([]) == "rank,place,label,suggested,probability,suggested_probability,exits_that_agree,text\n"
    (computed,) = csv.DictReader(
        io.StringIO(mislabelled_csv([dataclasses.replace(MISLABELLED[0], label="=1+1", suggested="@b", place="+a:1")]))
    )
    assert (computed["label"], computed["suggested"], computed["place"]) == ("'=1+1", "'@b", "'+a:1")
    single: list[MislabelledText] = [dataclasses.replace(MISLABELLED[0], text='Größe "9", 中文')]
    assert mislabelled_csv(single).endswith(',5 of 6,"Größe ""9"", 中文"\n')

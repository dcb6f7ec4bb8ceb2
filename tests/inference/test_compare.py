"""The comparison: its numbers are those of the answers, its times are taken in turns."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert_jax.config import BadRow, CompareConfig, MeasureConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference import compare as module
from fastbert_jax.inference.compare import compare, compare_data, save
from fastbert_jax.inference.engines.engine import Results
from fastbert_jax.inference.exit_outputs import EvaluatedTexts
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.model.flops import Count, text_flops
from fastbert_jax.report.comparison import Comparison
from tests.inference.models import LAYERS
from tests.inference.saved import LABELS, save_tiny_model, some_texts

TEXTS = some_texts(40)
EXPECTED = np.arange(40) % 3
BAD_SETTINGS = [
    {"limit": -1},
    {"timed_texts": -1},
    {"speeds": (2.0,)},
    {"repeats": 0},
    {"batch_sizes": (8, -1)},
    {"batch_sizes": (8, 8)},
    {"batch_sizes": (8,), "batch_size": 8},
    {"json": "a", "report": "a"},
    {"baselines": ("a", "a")},
    {"by": ("a", "a")},
]
MEASURE = MeasureConfig(speeds=(0.0, 0.3, 0.6), batch_size=4, repeats=2)


@pytest.mark.slow
def test_nothing_compiles_while_the_clock_runs(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade keeps the steps of the largest batches it has met: sizes that shared one would compile in turns."""
    programs: list[int] = []
    right = module.interleaved_times

    def counted(runs: list[Callable[[], object]], repeats: int, *, on_run: Callable[[], None]) -> list[list[float]]:
        programs.append(predictor.compiled_programs)
        times = right(runs, repeats, on_run=on_run)
        programs.append(predictor.compiled_programs)
        return times

    monkeypatch.setattr(module, "interleaved_times", counted)
    measure = MeasureConfig(speeds=(0.6,), modes=(Mode.CASCADE,), batch_sizes=(1, 4), repeats=1)
    compare(EvaluatedTexts.of(predictor, TEXTS, EXPECTED), measure=measure, timed_texts=20)
    before, after = programs
    assert before == after


@pytest.mark.slow
def test_every_row_says_what_predict_gives(predictor: Predictor) -> None:
    comparison = compare(
        EvaluatedTexts.of(predictor, TEXTS, EXPECTED, batch_tokens=64),
        measure=MEASURE,
        baseline_right_B=np.arange(40) % 2 == 0,
        timed_texts=20,
    )
    assert [(row.mode, row.speed) for row in comparison.rows] == [
        ("full depth", 0.0),
        ("masked", 0.3),
        ("masked", 0.6),
        ("bucketed", 0.3),
        ("bucketed", 0.6),
        ("cascade", 0.3),
        ("cascade", 0.6),
    ]
    assert (comparison.texts, comparison.batch_sizes[0].timed_texts, comparison.disagreements) == (40, 20, 0)
    for row in comparison.rows:
        answers = predictor.predict(TEXTS, speed=row.speed, batch_size=4)
        right = [answer.label == LABELS[label] for answer, label in zip(answers, EXPECTED, strict=True)]
        assert row.accuracy == np.mean(right)
        assert row.mean_depth == np.mean([answer.exit_layer for answer in answers])
        assert row.timed_depth == np.mean([answer.exit_layer for answer in answers[::2]])
        assert 0 < row.speedup.low <= row.speedup.median <= row.speedup.high
        assert row.efficiency == pytest.approx(row.speedup.median / (LAYERS / row.timed_depth))
        assert len(row.seconds) == len(row.speedups) == 2
        exits = 1 if row.mode == "full depth" else None
        spent = [LAYERS if row.mode == "masked" else answer.exit_layer for answer in answers]
        for count, depths, found in (
            (Count.PAPER, [answer.exit_layer for answer in answers], row.paper_flops),
            (Count.TRUE, spent, row.true_flops),
        ):
            lengths_and_depths = zip(predictor.plan(TEXTS).padded_lengths.tolist(), depths, strict=True)
            assert found == sum(
                text_flops(count, predictor.network, *one, exits_evaluated=exits) for one in lengths_and_depths
            )
    full, masked, _, bucketed, faster, *_ = comparison.rows
    assert full.paper_speedup == full.true_speedup == 1
    assert masked.true_speedup < 1 < bucketed.true_speedup < faster.true_speedup
    assert masked.paper_speedup == bucketed.paper_speedup == full.paper_flops / bucketed.paper_flops
    assert bucketed.true_speedup == full.true_flops / bucketed.true_flops


@pytest.mark.slow
def test_every_batch_size_is_held_against_its_own_full_depth(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that tells how much was computed, each speedup is that of its own batches."""
    now, order = 0.0, []
    right = module.answer

    def counted(run: module.TimedRun) -> Results:
        nonlocal now
        order.append((len(run.plan.batches), run.candidate.name, run.candidate.point.speed))
        answers = right(run)
        # A batch costs 10 for itself, and 1 for every layer of a text.
        now += 10 * len(run.plan.batches) + int(answers.exit_layer_B.sum())
        return answers

    monkeypatch.setattr(module, "answer", counted)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    monkeypatch.setattr(module, "TIMED_BATCHES", 8)
    measure = MeasureConfig(speeds=(0.6,), modes=(Mode.CASCADE,), batch_sizes=(1, 4, 0), repeats=2)
    comparison = compare(EvaluatedTexts.of(predictor, TEXTS, EXPECTED), measure=measure)

    assert [(size.batches, size.timed_texts) for size in comparison.batch_sizes] == [
        ("1 text", 8),
        ("4 texts", 32),
        ("2048 tokens", 40),
    ]
    for size in comparison.batch_sizes:
        full, early = size.rows
        texts, depth = size.timed_texts, early.timed_depth
        cost = 10 * size.timed_batches + texts * LAYERS, 10 * size.timed_batches + texts * depth
        assert full.seconds == size.seconds_again == (cost[0],) * 2 and size.noise.high == 0
        assert early.seconds == pytest.approx((cost[1],) * 2)
        assert early.speedups == pytest.approx((cost[0] / cost[1],) * 2)
        timed = predictor.predict(TEXTS, speed=0.6)[:: 40 // texts] if texts != 32 else None
        assert timed is None or depth == np.mean([answer.exit_layer for answer in timed])
    there, back = order[6:15], order[15:]
    assert there == back[::-1]
    assert [run[1:] for run in there] == [("full depth", 0.0), ("cascade", 0.6), ("full depth", 0.0)] * 3


@pytest.mark.parametrize(("batch_size", "timed_texts", "count"), [(1, 0, 40), (1, 512, 2), (3, 5, 5), (0, 5, 5)])
def test_only_small_batches_take_fewer_texts_unless_all_are_asked_for(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, batch_size: int, timed_texts: int, count: int
) -> None:
    monkeypatch.setattr(module, "TIMED_BATCHES", 2)
    evaluated = EvaluatedTexts.of(predictor, TEXTS, EXPECTED)
    full = module.Candidate("full depth", evaluated, Mode.MASKED, evaluated.full_depth())
    runs = module.timed_runs([full], batch_size=batch_size, batch_tokens=64, timed_texts=timed_texts)
    assert [(len(run.texts), run.plan.texts) for run in runs] == [(count, count)] * 2


def test_an_engine_that_answers_otherwise_is_found_out(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.answer

    def wrong(run: module.TimedRun) -> Results:
        answers = right(run)
        answers.exit_layer_B[3] = answers.exit_layer_B[3] % LAYERS + 1
        answers.probabilities_BxN[5] = answers.probabilities_BxN[5, ::-1]
        return answers

    monkeypatch.setattr(module, "answer", wrong)
    comparison = compare(
        EvaluatedTexts.of(predictor, TEXTS, EXPECTED, batch_tokens=64),
        measure=MeasureConfig(speeds=(), batch_size=4, repeats=1),
    )
    assert 1 <= comparison.disagreements <= 2


@pytest.mark.slow
def test_the_bar_sees_every_pass(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    @contextlib.contextmanager
    def bar(name: str, *, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        seen.append(-total)
        yield lambda count, note: seen.append(count)

    monkeypatch.setattr(module, "progress_bar", bar)
    compare(EvaluatedTexts.of(predictor, TEXTS, EXPECTED), measure=MEASURE)
    assert len(seen) > 1 and sum(seen) == 0


def test_no_texts_are_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="expected at least one text, found none"):
        EvaluatedTexts.of(predictor, [], np.zeros(0, int))


def test_every_speed_and_exit_of_the_curves_is_what_predict_gives(predictor: Predictor) -> None:
    comparison = compare(EvaluatedTexts.of(predictor, TEXTS, EXPECTED), measure=MeasureConfig(speeds=(), repeats=1))
    full = comparison.rows[0]
    for point in (full, *comparison.curve[:: len(comparison.curve) // 2]):
        answers = predictor.predict(TEXTS, speed=point.speed, mode="masked")
        right = [answer.label == LABELS[label] for answer, label in zip(answers, EXPECTED, strict=True)]
        depths = [answer.exit_layer for answer in answers]
        assert point.accuracy == pytest.approx(np.mean(right)) and point.mean_depth == pytest.approx(np.mean(depths))
        assert point.texts_per_exit == tuple(np.bincount(depths, minlength=LAYERS + 1)[1:])
    labels_BxL = predictor.exit_probabilities(TEXTS).argmax(-1)
    assert [row.accuracy for row in comparison.exits] == (labels_BxL == EXPECTED[:, None]).mean(0).tolist()
    assert comparison.exits[-1].agreement == 1 and comparison.exits[-1].accuracy == full.accuracy
    assert all(sum(one.texts for one in row.bins) == 40 for row in comparison.exits)
    lengths = predictor.plan(TEXTS).padded_lengths.tolist()
    one = [text_flops(Count.PAPER, predictor.network, length, 1) for length in lengths]
    assert comparison.exits[0].paper_speedup == pytest.approx(full.paper_flops / np.sum(one))
    # Speed 0 of the curve includes every exit, full depth the last one alone.
    assert comparison.curve[0].paper_flops > full.paper_flops


@pytest.mark.slow
def test_another_model_is_measured_at_its_full_depth(predictor: Predictor) -> None:
    evaluated = EvaluatedTexts.of(predictor, TEXTS, EXPECTED)
    comparison = compare(evaluated, measure=MEASURE, timed_texts=8, baselines={"itself": evaluated})
    (size,) = comparison.batch_sizes
    (row,), full = size.baselines, size.rows[0]
    assert (row.mode, row.speed, row.accuracy, row.mean_depth) == ("itself", 0.0, full.accuracy, LAYERS)
    assert row.paper_speedup == row.true_speedup == 1 and row.speedup.median > 0
    assert [one.mode for one in size.rows] == ["full depth", *["masked"] * 2, *["bucketed"] * 2, *["cascade"] * 2]


@pytest.fixture
def settings(directory: Path, tmp_path: Path) -> dict[str, Any]:
    """For the command, with 40 labelled rows and one without a label."""
    rows = "".join(f"{text}\t{LABELS[label]}\n" for text, label in zip(TEXTS, EXPECTED, strict=True))
    (tmp_path / "test.tsv").write_text("text\tlabel\n" + rows + "no label\t\n")
    found = {"model": str(directory), "data": str(tmp_path / "test.tsv"), "on_bad_row": BadRow.SKIP, "limit": 10}
    return found | {"speeds": (0.5,), "modes": (Mode.BUCKETED,), "batch_size": 4, "repeats": 1}


def test_the_command_reads_and_measures(settings: dict[str, Any], tmp_path: Path) -> None:
    config = CompareConfig(baseline=settings["data"], report=str(tmp_path / "report.html"), **settings)
    compared = compare_data(config)
    comparison, page = compared.comparison, compared.page
    assert comparison.texts == comparison.batch_sizes[0].timed_texts == 10
    assert comparison.baseline_accuracy and 0 < comparison.baseline_accuracy <= 1
    assert comparison.skipped_rows == 2  # one of the data, one of the baseline
    assert save(config, compared).startswith(config.report)
    assert (tmp_path / "report.html").read_text() == page and "test.tsv" in page and not list(tmp_path.glob("*.json"))

    (tmp_path / "other.tsv").write_text("text\tlabel\na\t0\nb\t1\n")
    with pytest.raises(UserError, match=r"found '0' at .*other.tsv:2 .*\['0', '1'\]\); no row has one of these"):
        compare_data(CompareConfig(baseline=str(tmp_path / "other.tsv"), report="", **settings))
    (tmp_path / "test.tsv").write_text("text\tlabel\nsome text\twhale\n")
    with pytest.raises(UserError, match="expected label one of .*, found 'whale' at .*test.tsv:2"):
        compare_data(CompareConfig(report="", **settings))


def test_all_passes_are_counted_before_and_long_ones_have_an_estimate(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated, answered, answer = EvaluatedTexts.of(predictor, TEXTS, EXPECTED), [], module.answer
    monkeypatch.setattr(module, "answer", lambda run: answered.append(run) or answer(run))
    measure = MeasureConfig(speeds=(0.0, 0.6), modes=(Mode.BUCKETED,), batch_sizes=(4, 8), repeats=2)
    for early, long, is_told in ((20.0, 1e9, False), (1e9, 0.0, True), (-1.0, 0.0, True)):
        monkeypatch.setattr(module, "EARLY", early)
        monkeypatch.setattr(module, "LONG", long)
        answered.clear()
        compare(evaluated, measure=measure, timed_texts=8)
        assert len(answered) == module.passes(measure) == 2 * (2 + 3 * 2)
        assert capsys.readouterr().err.count("measuring, about 1 min left") == is_told


def test_rows_that_training_excluded_are_left_out_and_counted(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_model(Path(settings["model"]), excluded_labels=("whale",))
    with (tmp_path / "test.tsv").open("a") as stream:
        stream.write("some text\twhale\n" * 2)
    stop = settings | {"on_bad_row": BadRow.STOP, "limit": 0}
    (tmp_path / "test.tsv").write_text((tmp_path / "test.tsv").read_text().replace("no label\t\n", ""))
    whales = "".join(f"{text}\twhale\n" * 9 for text in TEXTS)
    (tmp_path / "train.tsv").write_text((tmp_path / "test.tsv").read_text() + whales)
    comparison = compare_data(CompareConfig(report="", baseline=str(tmp_path / "train.tsv"), **stop)).comparison
    assert (comparison.texts, comparison.skipped_rows) == (40, 2)
    assert comparison.baseline_accuracy > 0.5  # none of its answers is a whale
    assert "2 of 42 (4.8 %) rows have excluded labels and are left out: ['whale (2)']\n" in capsys.readouterr().err


def test_accuracy_by_a_column_of_the_data(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = zip(TEXTS, EXPECTED, range(40), ["en", " en ", "d'e", "en"] * 10, strict=True)
    lines = [f'"{text}",{LABELS[label]},{number},{language}' for text, label, number, language in rows]
    (tmp_path / "test.csv").write_text("\n".join(["text,label,id,Sprache ä", *lines]))
    changed = settings | {"data": str(tmp_path / "test.csv"), "limit": 0, "report": ""}
    comparison = compare_data(CompareConfig(by=("Sprache ä",), **changed)).comparison
    full = comparison.answers[0]
    found = [(one.column, one.value, one.texts) for one in full.groups]
    assert found == [("Sprache ä", "en", 30), ("Sprache ä", "d'e", 10)]
    assert sum(one.right for one in full.groups) == round(40 * comparison.rows[0].accuracy)
    with pytest.raises(UserError, match=r"--by: expected a column 'Sprache', found .*did you mean 'Sprache ä'"):
        compare_data(CompareConfig(by=("Sprache",), **changed))
    with pytest.raises(
        UserError, match=r"--by id: expected a column whose values repeat, .* 40 different values in 40"
    ):
        compare_data(CompareConfig(by=("Sprache ä", "id"), **changed))


def test_an_output_directory_gets_tables_numbers_and_the_report(settings: dict[str, Any], tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other")
    output = tmp_path / "new" / "out"
    config = CompareConfig(baselines=(str(other),), output=str(output), **settings)
    compared = compare_data(config)
    comparison = compared.comparison
    told = save(config, compared)
    assert {path.name for path in output.iterdir()} == {
        "comparison.json",
        "comparison.md",
        "curve.csv",
        "speeds.csv",
        "report.html",
    }
    assert Comparison.from_json(json.loads((output / "comparison.json").read_text())) == comparison
    tables = (output / "comparison.md").read_text()
    assert (output / "curve.csv").read_text().startswith("speed,accuracy,accuracy_low,accuracy_high,gained,lost,")
    assert len((output / "curve.csv").read_text().splitlines()) == 1 + 41
    rows = (output / "speeds.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["full depth", "bucketed", str(other)]
    assert "| speed 0.5 |" in tables and f"| {other} |" in tables and "## Every exit alone" in tables
    assert str(output / "report.html") in told and "comparison.md" in told

    save_tiny_model(tmp_path / "third", labels=("zebra", "ant", "whale"))
    with pytest.raises(UserError, match="--baselines .*third: expected the labels of --model, .*'mole'.*whale"):
        compare_data(CompareConfig(baselines=(str(tmp_path / "third"),), report="", **settings))
    with pytest.raises(UserError, match=r"--output .*test.tsv: cannot make the directory: File exists"):
        compare_data(CompareConfig(output=settings["data"], **settings))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x" * 300, "File name too long"),
        ("", "it is a directory"),
        ("none/out.json", "there is no directory .*none"),
        ("a.txt/b", "no directory .*a.txt"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_before_anything_is_measured(
    tmp_path: Path, name: str, found: str
) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=f"cannot write the numbers: .*{found}"):
        compare_data(CompareConfig(model="no model", data="no data", report="", json=str(tmp_path / name)))
    with pytest.raises(UserError, match=f"cannot write the report: .*{found}.*; name another file with --report"):
        compare_data(CompareConfig(model="no model", data="no data", report=str(tmp_path / name)))
    config = {"report": "", "mislabelled": str(tmp_path / f"{name}.csv") if name else str(tmp_path)}
    with pytest.raises(UserError, match=f"cannot write the texts to check: .*{found}|--mislabelled: expected a name"):
        compare_data(CompareConfig(model="no model", data="no data", **config))


def test_each_file_is_written_when_another_cannot_be(settings: dict[str, Any], tmp_path: Path) -> None:
    mislabelled = str(tmp_path / "mislabelled.csv")
    config = CompareConfig(report=str(tmp_path / "report.html"), mislabelled=mislabelled, **settings)
    compared = compare_data(config)
    assert f"{mislabelled}: {len(compared.mislabelled)} texts whose label" in save(config, compared)
    with open(mislabelled, newline="") as stream:
        rows = list(csv.DictReader(stream))
    texts = (tmp_path / "test.tsv").read_text().splitlines()
    assert len(rows) == len(compared.mislabelled) > 0
    for row in rows:
        line = texts[int(row["place"].removeprefix(f"{tmp_path / 'test.tsv'}:")) - 1]
        assert line == f"{row['text']}\t{row['label']}" and row["suggested"] in {*LABELS} - {row["label"]}
    (tmp_path / "taken").mkdir()
    places = {"json": str(tmp_path / "taken"), "report": str(tmp_path / "kept.html")}
    with pytest.raises(UserError, match="taken: cannot write the numbers: Is a directory"):
        save(CompareConfig(**settings, **places), compared)
    assert (tmp_path / "kept.html").stat().st_size > 10_000
    places = {"json": str(tmp_path / "out.json"), "report": str(tmp_path / "taken")}
    with pytest.raises(UserError, match="taken: cannot write the report: Is a directory"):
        save(CompareConfig(**settings, **places), compared)
    values = json.loads((tmp_path / "out.json").read_text())
    assert (values["texts"], values["schema"]) == (10, 1)
    assert set(values["origin"]["packages"]) == {"fastbert_jax", "jax", "jaxlib", "python"}
    assert values["origin"]["platform"] == "cpu" and values["origin"]["command"].startswith("python ")


@pytest.mark.parametrize("bad", BAD_SETTINGS)
def test_a_bad_setting_is_refused(bad: dict) -> None:
    with pytest.raises(UserError, match="expected"):
        CompareConfig(model="m", data="d", **bad)

"""The comparison: its numbers are those of the answers, its times are taken in turns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fastbert_jax.config import BadRow, CompareConfig, EvaluateConfig, Mode
from fastbert_jax.errors import UserError
from fastbert_jax.inference import compare as module
from fastbert_jax.inference import timing
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.compare_command import Compared, compare_spec, save, save_json
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.report_contents import report_of
from fastbert_jax.report.flops import paper_flops, true_flops
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
]
EVALUATE = EvaluateConfig(speeds=(0.0, 0.3, 0.6), batch_size=4, repeats=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def predictor(directory: Path) -> Predictor:
    return load(directory)


def test_nothing_compiles_while_the_clock_runs(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade keeps the steps of the largest batches it has met: sizes that shared one would compile in turns."""
    programs: list[int] = []

    def counted(runs: list[Callable[[], object]], repeats: int, *, on_run: Callable[[], None]) -> list[list[float]]:
        programs.append(predictor.compiled_programs)
        times = timing.interleaved_times(runs, repeats, on_run=on_run)
        programs.append(predictor.compiled_programs)
        return times

    monkeypatch.setattr(module, "interleaved_times", counted)
    evaluate = EvaluateConfig(speeds=(0.6,), modes=(Mode.CASCADE,), batch_sizes=(1, 4), repeats=1)
    compare(AskedTexts.of(predictor, TEXTS, EXPECTED), evaluate=evaluate, timed_texts=20)
    before, after = programs
    assert before == after


def test_every_row_says_what_predict_gives(predictor: Predictor) -> None:
    comparison = compare(
        AskedTexts.of(predictor, TEXTS, EXPECTED, batch_tokens=64),
        evaluate=EVALUATE,
        baseline_accuracy=0.5,
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
            (paper_flops, [answer.exit_layer for answer in answers], row.paper_flops),
            (true_flops, spent, row.true_flops),
        ):
            lengths_and_depths = zip(predictor.plan(TEXTS).padded_lengths, depths, strict=True)
            assert found == sum(count(predictor.config, *one, exits_evaluated=exits) for one in lengths_and_depths)
    full, masked, _, bucketed, faster, *_ = comparison.rows
    assert full.paper_speedup == full.true_speedup == 1
    assert masked.true_speedup < 1 < bucketed.true_speedup < faster.true_speedup
    assert masked.paper_speedup == bucketed.paper_speedup == full.paper_flops / bucketed.paper_flops
    assert bucketed.true_speedup == full.true_flops / bucketed.true_flops


def test_every_batch_size_is_held_against_its_own_full_depth(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that tells how much was computed, each speedup is that of its own batches."""
    now, order = 0.0, []
    right = module.answer

    def counted(predictor: Predictor, plan: module.Plan, choice: module.Choice) -> module.Answers:
        nonlocal now
        order.append((len(plan.batches), choice))
        answers = right(predictor, plan, choice)
        # A batch costs 10 for itself, and 1 for every layer of a text.
        now += 10 * len(plan.batches) + int(answers.exit_layer_B.sum())
        return answers

    monkeypatch.setattr(module, "answer", counted)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(module, "TIMED_BATCHES", 8)
    evaluate = EvaluateConfig(speeds=(0.6,), modes=(Mode.CASCADE,), batch_sizes=(1, 4, 0), repeats=2)
    comparison = compare(AskedTexts.of(predictor, TEXTS, EXPECTED), evaluate=evaluate)

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
    assert [choice for _, choice in there] == [(None, 0.0), (Mode.CASCADE, 0.6), (None, 0.0)] * 3


@pytest.mark.parametrize(("batch_size", "timed_texts", "count"), [(1, 0, 40), (1, 512, 2), (3, 5, 5), (0, 5, 5)])
def test_only_small_batches_take_fewer_texts_unless_all_are_asked_for(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, batch_size: int, timed_texts: int, count: int
) -> None:
    monkeypatch.setattr(module, "TIMED_BATCHES", 2)
    case = module.timed_case(predictor, TEXTS, batch_size=batch_size, batch_tokens=64, timed_texts=timed_texts)
    assert len(case.texts) == case.plan.texts == count


def test_an_engine_that_answers_otherwise_is_found_out(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.answer

    def wrong(*arguments: object) -> module.Answers:
        answers = right(*arguments)
        answers.exit_layer_B[3] = answers.exit_layer_B[3] % LAYERS + 1
        answers.probabilities_BxN[5] = answers.probabilities_BxN[5, ::-1]
        return answers

    monkeypatch.setattr(module, "answer", wrong)
    comparison = compare(
        AskedTexts.of(predictor, TEXTS, EXPECTED, batch_tokens=64),
        evaluate=EvaluateConfig(speeds=(), batch_size=4, repeats=1),
    )
    assert 1 <= comparison.disagreements <= 2


def test_the_bar_sees_every_pass(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    @contextlib.contextmanager
    def bar(name: str, *, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        seen.append(-total)
        yield lambda count, note: seen.append(count)

    monkeypatch.setattr(module, "progress_bar", bar)
    compare(AskedTexts.of(predictor, TEXTS, EXPECTED), evaluate=EVALUATE)
    assert len(seen) > 1 and sum(seen) == 0


def test_no_texts_are_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="expected at least one text, found none"):
        AskedTexts.of(predictor, [], np.zeros(0, int))


def test_the_command_reads_and_measures(directory: Path, tmp_path: Path) -> None:
    rows = "".join(f"{text}\t{LABELS[label]}\n" for text, label in zip(TEXTS, EXPECTED, strict=True))
    (tmp_path / "test.tsv").write_text("text\tlabel\n" + rows + "no label\t\n")
    settings = {"speeds": (0.5,), "modes": (Mode.BUCKETED,), "batch_size": 4, "repeats": 1, "limit": 10}
    config = CompareConfig(
        model=str(directory),
        data=str(tmp_path / "test.tsv"),
        baseline=str(tmp_path / "test.tsv"),
        report=str(tmp_path / "report.html"),
        on_bad_row=BadRow.SKIP,
        **settings,
    )
    comparison, report = compare_spec(config)
    assert comparison.texts == comparison.batch_sizes[0].timed_texts == 10
    assert 0 < comparison.baseline_accuracy <= 1
    assert comparison.skipped_rows == 2  # one of the data, one of the baseline
    assert report.comparison == comparison
    assert save(config, Compared(comparison, report)).startswith(config.report)
    assert "test.tsv" in (tmp_path / "report.html").read_text() and not list(tmp_path.glob("*.json"))

    (tmp_path / "test.tsv").write_text("text\tlabel\nsome text\twhale\n")
    with pytest.raises(UserError, match="expected label one of .*, found 'whale' at .*test.tsv:2"):
        compare_spec(CompareConfig(model=str(directory), data=str(tmp_path / "test.tsv"), **settings))


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "a directory"), ("none/out.json", "no directory .*none"), ("a.txt/b", "no directory .*a.txt")],
)
def test_a_place_that_takes_no_file_is_found_before_anything_is_measured(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=f"expected a place to write the numbers to, found {found}"):
        compare_spec(CompareConfig(model="no model", data="no data", report="", json=str(tmp_path / name)))
    with pytest.raises(UserError, match=f"place to write the report to, found {found}.*; name another with --report"):
        compare_spec(CompareConfig(model="no model", data="no data", report=str(tmp_path / name)))


def test_numbers_that_cannot_be_written_are_a_users_mistake(predictor: Predictor, tmp_path: Path) -> None:
    comparison = compare(
        AskedTexts.of(predictor, TEXTS, EXPECTED, batch_tokens=64),
        evaluate=EvaluateConfig(speeds=(), batch_size=4, repeats=1),
    )
    save_json(tmp_path / "out.json", comparison)
    values = json.loads((tmp_path / "out.json").read_text())
    assert (values["texts"], values["schema"]) == (len(TEXTS), 1)
    assert set(values["origin"]["packages"]) == {"fastbert_jax", "jax", "jaxlib", "python"}
    assert values["origin"]["platform"] == "cpu" and values["origin"]["command"].startswith("python ")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken: expected a place to write the numbers to, found: Is a directory"):
        save_json(tmp_path / "taken", comparison)


def test_each_file_is_kept_when_another_cannot_be_written(predictor: Predictor, tmp_path: Path) -> None:
    asked = AskedTexts.of(predictor, TEXTS, EXPECTED)
    comparison = compare(asked, evaluate=EvaluateConfig(speeds=(), batch_size=4, repeats=1))
    compared = Compared(comparison, report_of(asked, comparison, model="m", data="d"))
    (tmp_path / "taken").mkdir()
    places = {"json": str(tmp_path / "taken"), "report": str(tmp_path / "kept.html")}
    with pytest.raises(UserError, match="taken: expected a place to write the numbers to"):
        save(CompareConfig(model="m", data="d", **places), compared)
    assert (tmp_path / "kept.html").stat().st_size > 10_000


@pytest.mark.parametrize("settings", BAD_SETTINGS)
def test_a_bad_setting_is_refused(settings: dict) -> None:
    with pytest.raises(UserError, match="expected"):
        CompareConfig(model="m", data="d", **settings)

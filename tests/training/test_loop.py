"""Properties of the loop: the best step is handed on, phases keep to their parts, a stopped run resumes exactly."""

import json
import signal

import jax
import pytest

from fastbert_jax import stopping
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.journal import Journal
from tests.training import tiny
from tests.training.tiny_run import AskedToStop, Stop, run, same


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The parameters and the journal of a run that is never stopped, what its measurements saw, and its directory."""
    directory = tmp_path_factory.mktemp("whole")
    params, seen = run(directory)
    return params, (directory / "metrics.jsonl").read_text(), seen, directory


def test_the_best_dev_step_is_distilled_and_stays_frozen(tmp_path):
    # The best of the three fine-tuning epochs is the second; distillation must start from, and keep, its parameters.
    params, seen = run(tmp_path, scores=[0.1, 0.9, 0.5, 0.0, 0.0, 0.0], epochs=3)
    best, last = seen[1][1]["model"], seen[2][1]["model"]
    for part in ("backbone", "last_exit"):
        assert same(params["model"][part], best[part])
        assert not same(params["model"][part], last[part])


def test_fine_tuning_leaves_students_untouched_and_distillation_trains_them(whole):
    params, _, seen, _ = whole
    start = tiny.params()["model"]["lower_exits"]
    assert same(seen[1][1]["model"]["lower_exits"], start)
    assert not same(params["model"]["lower_exits"], start)


@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, whole, stop_at):
    with pytest.raises(Stop):
        run(tmp_path / "stopped", stop_at=stop_at)
    found, _ = run(tmp_path / "stopped")
    assert same(found, whole[0])
    assert (tmp_path / "stopped" / "metrics.jsonl").read_text() == whole[1]


def test_a_finished_run_does_nothing_again(whole):
    expected, journal, _, directory = whole
    found, seen = run(directory)
    assert same(found, expected) and seen == []
    assert (directory / "metrics.jsonl").read_text() == journal


def test_the_journal_has_every_step_once_with_every_exit(whole):
    events = [json.loads(line) for line in whole[1].splitlines()]
    steps = [event["step"] for event in events if event["event"] != "dev"]
    assert steps == list(range(1, len(steps) + 1))
    distil = [event for event in events if event["event"] == "distil"]
    assert all(len(event["terms"]["kl"]) == tiny.CONFIG.num_layers - 1 for event in distil)
    assert all(event["loss"] == pytest.approx(sum(event["terms"]["kl"]), rel=1e-5) for event in distil)


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path):
    with pytest.raises(UserError, match=r"fine_tune: expected a finite loss, found nan .* at step \d+"):
        run(tmp_path, learning_rate=1e30)


def test_phases_of_no_epochs_are_skipped(tmp_path):
    params, seen = run(tmp_path, epochs=0)
    assert seen == [] and same(params, tiny.params())


@pytest.mark.parametrize(
    ("number", "kind", "name"),
    [
        (signal.SIGTERM, PreemptedError, "SIGTERM"),
        pytest.param(signal.SIGINT, KeyboardInterrupt, "Ctrl-C", marks=pytest.mark.slow),
    ],
)
def test_a_stop_request_saves_at_its_step_and_the_run_goes_on_bit_for_bit(tmp_path, whole, number, kind, name):
    with pytest.raises(kind, match=f"fine_tune: stopped by {name} and saved at step 1 of 6; the same command goes on"):
        run(tmp_path / "stopped", stop=AskedToStop(number))
    found, _ = run(tmp_path / "stopped", save_every=2)
    assert same(found, whole[0])
    assert (tmp_path / "stopped" / "metrics.jsonl").read_text() == whole[1]


@pytest.mark.slow
def test_ctrl_c_at_a_step_or_in_a_measurement_saves_there_and_the_run_goes_on_bit_for_bit(
    tmp_path, whole, monkeypatch, capfd
):
    log = Journal.log
    # After the first step; at the first measurement, after which no other step is done.
    for event, wanted, saved in (("fine_tune", 1, 2), ("dev", 3, 3)):

        def struck(self, name, *, step, values, event=event, wanted=wanted):
            if (name, step) == (event, wanted):
                signal.raise_signal(signal.SIGINT)
            log(self, name, step=step, values=values)

        directory = tmp_path / event
        with (
            pytest.raises(KeyboardInterrupt, match=f"stopped by Ctrl-C and saved at step {saved} of 6"),
            monkeypatch.context() as patch,
            stopping.stoppable(),
            stopping.holding(),
        ):
            patch.setattr(Journal, "log", struck)
            run(directory)
        assert "Ctrl-C: stops when the state is saved; a second one stops at once\n" in capfd.readouterr().err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        found, _ = run(directory)
        assert same(found, whole[0]) and (directory / "metrics.jsonl").read_text() == whole[1]


def test_a_lost_best_step_leaves_the_last_one(tmp_path, monkeypatch, capsys):
    def load(self, step, like):
        raise UserError(f"checkpoints/{step}: damaged")

    monkeypatch.setattr(Checkpoints, "load", load)
    params, seen = run(tmp_path, scores=[0.9, 0.1, 0.0, 0.0])
    assert "checkpoints/3: damaged" in capsys.readouterr().out
    assert same(params["model"]["backbone"], seen[1][1]["model"]["backbone"])
    assert [path.name for path in (tmp_path / "checkpoints.refused").iterdir()] == ["3"]


@pytest.mark.slow
def test_a_phase_whose_rate_has_come_to_zero_changes_nothing_more(tmp_path):
    _, seen = run(tmp_path, epochs=3, decay_epochs=2)
    students = [params["model"]["lower_exits"] for _, params in seen[3:]]

    def moved(before: dict, after: dict) -> float:
        return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), before, after)))

    assert moved(students[0], students[1]) > 1e-3 > 1e-7 > moved(students[1], students[2])

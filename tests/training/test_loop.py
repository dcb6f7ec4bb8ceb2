"""Properties of the loop: the best step is handed on, phases keep to their parts, a stopped run resumes exactly."""

import json

import jax
import numpy as np
import pytest

from fastbert_jax.config import DistilConfig, FineTuneConfig, MeshConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.model.sharding import make_mesh, param_shardings
from fastbert_jax.text.batches import TrainingBatches
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.training.checkpoints import Checkpoints
from fastbert_jax.training.fastbert_recipe import fastbert_recipe
from fastbert_jax.training.initial import abstract_params
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.loop import Evaluation, Surroundings, run_recipe
from fastbert_jax.training.preemption import StopRequest
from fastbert_jax.training.throughput import Meter
from tests.training import tiny

TEXTS = 22


def _texts() -> tuple[Encoded, np.ndarray]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 13, TEXTS)
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    token_ids = generator.integers(1, 30, offsets[-1]).astype(np.int32)
    encoded = Encoded(token_ids, np.zeros_like(token_ids), offsets, truncated_texts=0, truncated_tokens=0)
    return encoded, generator.integers(0, 2, TEXTS).astype(np.int32)


class _Stop(Exception):
    """Stands for a kill."""


def _run(directory, *, scores=None, stop_at=None, epochs=2, learning_rate=0.01, stop=None, save_every=0):
    """Run the recipe in `directory`; stop with `_Stop` at the `stop_at`-th dev measurement."""
    fine_tune = FineTuneConfig(epochs=epochs, batch_size=8, learning_rate=learning_rate)
    distil = DistilConfig(epochs=epochs, batch_size=8, learning_rate=learning_rate)
    encoded, labels = _texts()
    batches = {
        name: TrainingBatches(encoded, phase_labels, buckets=(12,), batch_size=8, epochs=epochs, seed=seed)
        for seed, (name, phase_labels) in enumerate({"fine_tune": labels, "distil": None}.items())
    }
    seen = []

    def evaluate(params):
        if stop_at is not None and len(seen) == stop_at:
            raise _Stop
        score = scores[len(seen)] if scores else float(jax.tree.leaves(params)[0].sum())
        seen.append((score, jax.tree.map(np.asarray, params)))
        return Evaluation(score=score, values={"score": score}, words=f"score {score}")

    directory.mkdir(exist_ok=True)
    checkpoints = Checkpoints(directory / "checkpoints")
    journal = Journal(directory / "metrics.jsonl")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shardings = {"model": param_shardings(mesh, tiny.CONFIG)}
    try:
        params = run_recipe(
            fastbert_recipe(tiny.model(), fine_tune=fine_tune, distil=distil),
            lambda: jax.device_put(tiny.params(), shardings),
            batches,
            shapes={"model": abstract_params(tiny.CONFIG, shardings["model"])},
            seed=0,
            surroundings=Surroundings(
                mesh=mesh,
                evaluate=evaluate,
                checkpoints=checkpoints,
                journal=journal,
                meter=Meter(directory / "throughput.jsonl"),
                stop=stop or StopRequest(),
                save_every=save_every,
            ),
        )
    finally:
        journal.close()
        checkpoints.close()
    return params, seen


def _same(left, right) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)))


def test_the_best_dev_step_is_distilled_and_stays_frozen(tmp_path):
    # The best of the three fine-tuning epochs is the second; distillation must start from, and keep, its parameters.
    params, seen = _run(tmp_path, scores=[0.1, 0.9, 0.5, 0.0, 0.0, 0.0], epochs=3)
    best, last = seen[1][1]["model"], seen[2][1]["model"]
    for part in ("backbone", "teacher"):
        assert _same(params["model"][part], best[part])
        assert not _same(params["model"][part], last[part])


def test_fine_tuning_leaves_students_untouched_and_distillation_trains_them(tmp_path):
    params, seen = _run(tmp_path)
    start = tiny.params()["model"]["students"]
    assert _same(seen[1][1]["model"]["students"], start)
    assert not _same(params["model"]["students"], start)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, stop_at):
    expected, _ = _run(tmp_path / "whole")
    with pytest.raises(_Stop):
        _run(tmp_path / "stopped", stop_at=stop_at)
    found, _ = _run(tmp_path / "stopped")
    assert _same(found, expected)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped"))
    assert resumed == whole


def test_a_finished_run_does_nothing_again(tmp_path):
    expected, _ = _run(tmp_path)
    found, seen = _run(tmp_path)
    assert _same(found, expected) and seen == []


def test_the_journal_has_every_step_once_with_every_exit(tmp_path):
    _run(tmp_path)
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events if event["event"] != "dev"]
    assert steps == list(range(1, len(steps) + 1))
    distil = [event for event in events if event["event"] == "distil"]
    assert all(len(event["terms"]["kl"]) == tiny.CONFIG.num_layers - 1 for event in distil)
    assert all(event["loss"] == pytest.approx(sum(event["terms"]["kl"]), rel=1e-5) for event in distil)


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path):
    with pytest.raises(UserError, match=r"fine_tune: expected a finite loss, found nan .* at step \d+"):
        _run(tmp_path, learning_rate=1e30)


def test_phases_of_no_epochs_are_skipped(tmp_path):
    params, seen = _run(tmp_path, epochs=0)
    assert seen == [] and _same(params, tiny.params())


def test_a_stop_request_saves_at_its_step_and_the_run_goes_on_bit_for_bit(tmp_path):
    expected, _ = _run(tmp_path / "whole")
    stop = StopRequest()
    stop.here = True
    with pytest.raises(PreemptedError, match="fine_tune: stopped by SIGTERM and saved at step 1 of 6"):
        _run(tmp_path / "stopped", stop=stop)
    found, _ = _run(tmp_path / "stopped", save_every=2)
    assert _same(found, expected)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped"))
    assert resumed == whole


def test_a_lost_best_step_leaves_the_last_one(tmp_path, monkeypatch, capsys):
    def load(self, step, like):
        raise UserError(f"checkpoints/{step}: damaged")

    monkeypatch.setattr(Checkpoints, "load", load)
    params, seen = _run(tmp_path, scores=[0.9, 0.1, 0.0, 0.0])
    assert "checkpoints/3: damaged" in capsys.readouterr().out
    assert _same(params["model"]["backbone"], seen[1][1]["model"]["backbone"])
    assert [path.name for path in (tmp_path / "checkpoints.refused").iterdir()] == ["3"]

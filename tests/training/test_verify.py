"""infer.py verify: what is whole is said, what has changed has a name."""

import jax.numpy as jnp
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.training.checkpoints import Checkpoints, Position
from fastbert_jax.training.file_checksums import write_checksums
from fastbert_jax.training.run_directory import RunDirectory
from fastbert_jax.training.verify import verify_run


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A run with two checkpoints and a model."""
    directory = RunDirectory(tmp_path / "run")
    directory.model.mkdir(parents=True)
    directory.config.write_text("seed: 0")
    (directory.model / "model.safetensors").write_bytes(bytes(1000))
    write_checksums(directory.model)
    checkpoints = Checkpoints(directory.checkpoints)
    for step in (1, 2):
        position = Position("distil", step, None, None)
        checkpoints.save(step, {"weights": jnp.arange(64.0)}, position, rank=None)
    checkpoints.wait()
    checkpoints.close()
    return directory


def test_a_whole_run_is_whole_and_may_be_calibrated(run):
    (run.model / "calibration.json").write_text("{}")
    assert verify_run(run.path).endswith("whole: checkpoint 2, checkpoint 1, model")


def test_what_has_changed_is_named_beside_what_has_not(run):
    (run.model / "model.safetensors").write_bytes(bytes(999) + b"\x01")
    (run.checkpoints / "1" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError) as error:
        verify_run(run.path)
    message = str(error.value)
    assert "model.safetensors: expected the file that was saved, found other bytes" in message
    assert "checkpoints/1" in message and message.endswith("whole: checkpoint 2")


def test_the_teachers_answers_are_looked_at_when_they_are_complete(run):
    run.teacher_answers.mkdir()
    (run.teacher_answers / "logits.npy").write_bytes(bytes(100))
    assert verify_run(run.path).endswith("whole: checkpoint 2, checkpoint 1, model")
    write_checksums(run.teacher_answers)
    assert verify_run(run.path).endswith("whole: checkpoint 2, checkpoint 1, model, teacher's answers")
    (run.teacher_answers / "logits.npy").write_bytes(bytes(99) + b"\x01")
    with pytest.raises(UserError, match="logits.npy: expected the file that was saved, found other bytes"):
        verify_run(run.path)


def test_no_run_and_no_checksums_are_said(run, tmp_path):
    with pytest.raises(UserError, match="expected the directory of a run"):
        verify_run(tmp_path)
    (run.model / "files.json").unlink()
    with pytest.raises(UserError, match="files.json: expected checksums of files, found"):
        verify_run(run.path)

"""Whether a run's checkpoints, model and teacher's answers are what was saved, every value and file by its checksum."""

from __future__ import annotations

from pathlib import Path

from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibrate
from fastbert_jax.inference.loading import CARD
from fastbert_jax.training.checkpoints import Checkpoints, DamagedError
from fastbert_jax.training.file_checksums import FILES, wrong_files
from fastbert_jax.training.run_directory import RunDirectory


def verify_run(directory: Path) -> str:
    """Read everything; what is whole, in words.

    Raises:
      UserError: no run there, nothing to verify, or the names of all that has changed.
    """
    run = RunDirectory(directory)
    if not run.config.is_file():
        raise UserError(f"expected the directory of a run, with a config.yaml, found none in {directory}")
    whole, problems = [], []
    if run.checkpoints.is_dir():
        checkpoints = Checkpoints(run.checkpoints, only_look=True)
        try:
            for step in checkpoints.steps():
                try:
                    checkpoints.verify(step)
                    whole.append(f"checkpoint {step}")
                except DamagedError as error:
                    problems.append(str(error))
        finally:
            checkpoints.close()
    if run.model.is_dir():
        wrong = wrong_files(run.model, may_come=frozenset({calibrate.FILE, CARD}))
        problems += wrong
        whole += [] if wrong else ["model"]
    if (run.teacher_answers / FILES).is_file():  # there when the answers are complete
        wrong = wrong_files(run.teacher_answers)
        problems += wrong
        whole += [] if wrong else ["teacher's answers"]
    if problems:
        raise UserError("\n".join([*problems, f"whole: {', '.join(whole) or 'nothing'}"]))
    if not whole:
        raise UserError(f"{directory}: expected checkpoints or a model, found neither; has the run begun?")
    return f"{directory}: whole: {', '.join(whole)}"

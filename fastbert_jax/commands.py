"""What each command of infer.py does: its result on standard output, and beside it where that lies and what is next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from fastbert_jax.config import (
    CalibrateConfig,
    CompareConfig,
    ExplainConfig,
    ExploreConfig,
    ExportConfig,
    PredictConfig,
    VerifyConfig,
)
from fastbert_jax.log import info, result

COMMANDS = {
    "predict": PredictConfig,
    "explain": ExplainConfig,
    "explore": ExploreConfig,
    "calibrate": CalibrateConfig,
    "compare": CompareConfig,
    "export": ExportConfig,
    "verify": VerifyConfig,
}
# Rooms are imported where they are used: --help and a mistyped option need no jax.


def run(config: Any) -> None:
    """Do what one command's settings ask.

    Raises:
      UserError: whatever the user can mend.
      TypeError: settings of no command.
    """
    match config:
        case PredictConfig():
            predict(config)
        case ExplainConfig():
            explain(config)
        case ExploreConfig():
            from fastbert_jax.serving.explore import explore

            explore(config)
        case CalibrateConfig():
            calibrate(config)
        case CompareConfig():
            compare(config)
        case ExportConfig():
            from fastbert_jax.training.export import export

            result(export(config))
            next_step(f"the model is in {config.output}", "predict", "--model", config.output, "--input", "TEXTS")
        case VerifyConfig():
            from fastbert_jax.training.verify import verify_run

            result(verify_run(Path(config.run)))
            next_step("nothing has changed", "explore", "--model", config.run)
        case _:
            raise TypeError(f"expected the settings of one of {list(COMMANDS)}, found {type(config).__name__}")


def next_step(where: str, *command: str) -> None:
    """Say where the result lies and which words of infer.py to type next."""
    info(f"{where}; next: python infer.py {shlex.join(command)}")


def predict(config: PredictConfig) -> None:
    """Answers into files or on standard output."""
    from fastbert_jax.inference.predict_command.predict_files import predict

    answered = predict(config)
    if answered and config.output != "-":
        next_step(f"the answers are in {config.output}", "explain", "--model", config.model, "A TEXT")


def explain(config: ExplainConfig) -> None:
    """A table a text, or a line of JSON."""
    from rich.console import Console

    from fastbert_jax.inference.explain import explain
    from fastbert_jax.report.exit_path import show

    console = Console()
    for path in explain(config):
        if config.json:
            give_json(path.to_json())
        else:
            show(path, console)
    next_step("a page shows every speed", "explore", "--model", config.model)


def calibrate(config: CalibrateConfig) -> None:
    """The thresholds, which stay with the model too."""
    from fastbert_jax.inference import calibrate
    from fastbert_jax.inference.loading import model_directory

    calibration = calibrate.calibrate(config)
    result(calibration.summary())
    if config.json:
        give_json(calibration.to_json())
    next_step(
        f"kept in {model_directory(config.model) / calibrate.FILE}",
        *("predict", "--model", config.model, "--target", config.target, "--input", "TEXTS"),
    )


def compare(config: CompareConfig) -> None:
    """The table, its numbers where they are asked for, and the report."""
    from fastbert_jax.inference.compare_command import compare_data, save
    from fastbert_jax.report.tables import render

    compared = compare_data(config)
    try:
        result(render(compared.comparison))
    finally:  # the table and the files are kept when the other cannot be written
        if config.json == "-":
            give_json(compared.comparison.to_json())
        if words := save(config, compared):
            info(words)
    where = f"the numbers are in {config.json}" if config.json not in ("", "-") else "--json FILE keeps the numbers"
    if config.output:
        where = f"tables, numbers and report are in {config.output}"
    next_step(where, "calibrate", "--model", config.model, "--data", "DEV", "--max-drop", "0.5")


def give_json(values: Any) -> None:
    """One line on standard output."""
    print(json.dumps(values, ensure_ascii=False), flush=True)

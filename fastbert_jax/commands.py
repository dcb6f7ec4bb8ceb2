"""The commands of train.py and infer.py: each prints its result, where that is stored, and the next command to type."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fastbert_jax import recipes
from fastbert_jax.command_line import TrainArguments, chosen_recipe, end_with, read_command, read_over_file
from fastbert_jax.config import (
    RECOMMENDED,
    CalibrateConfig,
    CompareConfig,
    ExplainConfig,
    ExploreConfig,
    ExportConfig,
    PredictConfig,
    VerifyConfig,
)
from fastbert_jax.config_yaml import to_dict, to_yaml
from fastbert_jax.errors import program_name
from fastbert_jax.log import info, result

DESCRIPTION = (
    "Classify texts with a trained model, explain its answers, measure what early exit brings, export the model."
)
# Rooms are imported where they are used: --help and a mistyped option need no jax.


def train() -> None:
    """train.py: read the settings, then do what they ask."""
    arguments = train_arguments(sys.argv[1:])
    settings = arguments.settings
    recipe = recipes.recipe_module(settings.recipe)
    if arguments.print_config:
        print(to_yaml(settings), end="")
        return
    from fastbert_jax.training import run, run_directory

    if arguments.verify:
        result(run_directory.verify_run(settings.run))
    elif arguments.dry_run:
        result(run.describe(settings, recipe))
        info("nothing is written; next: the same command without --dry-run")
    elif comparison := recipes.train(settings, recipe=recipe):
        if arguments.json:
            print_json(comparison.to_json())
        next_step(f"the model is in {settings.run}", "explore", "--model", settings.run)


def train_arguments(argv: Sequence[str]) -> TrainArguments:
    """The command line of train.py, with the settings of the recipe that it chooses.

    Raises:
      UserError, SystemExit: as `command_line.read_over_file`; also an unknown recipe.
    """
    run = recipes.recipe_module(chosen_recipe(argv)).Settings
    return read_over_file(TrainArguments, run, argv, program=program_name("train"))


def infer() -> None:
    """infer.py: read the settings of the command that the first word names, then run it."""
    program = program_name("infer")
    settings = read_command(SETTINGS, sys.argv[1:], program=program, description=DESCRIPTION)
    _, run = COMMANDS[sys.argv[1]]
    run(settings)


def fastbert_train() -> None:
    """The installed command `fastbert-train`."""
    end_with(train)


def fastbert_infer() -> None:
    """The installed command `fastbert-infer`."""
    end_with(infer)


def predict(config: PredictConfig) -> None:
    """Answers in files or on standard output."""
    from fastbert_jax.inference.predict_command import predict

    answered = predict(config)
    if answered and config.output != "-":
        next_step(f"the answers are in {config.output}", "explain", "--model", config.model, "A TEXT")


def explain(config: ExplainConfig) -> None:
    """A table per text, or a line of JSON."""
    from rich.console import Console

    from fastbert_jax.inference.explain import explain, show

    console = Console()
    for path in explain(config):
        if config.json:
            print_json(path)
        else:
            show(path, console)
    next_step("a page shows every speed", "explore", "--model", config.model)


def explore(config: ExploreConfig) -> None:
    """A page on this machine, until Ctrl-C."""
    from fastbert_jax.inference.explore import explore

    explore(config)


def calibrate(config: CalibrateConfig) -> None:
    """The thresholds, which are also stored with the model."""
    from fastbert_jax.inference import calibrate
    from fastbert_jax.inference.calibration import FILE
    from fastbert_jax.inference.loading import model_directory

    calibration = calibrate.calibrate(config)
    result(calibration.summary())
    if config.json:
        print_json(to_dict(calibration))
    model, target = model_directory(config.model), ["--target", config.target]
    if config.target == RECOMMENDED:
        from fastbert_jax.training.export import renew_card

        renew_card(model)
        target = []
    next_step(f"kept in {model / FILE}", "predict", "--model", config.model, *target, "--input", "TEXTS")


def compare(config: CompareConfig) -> None:
    """The table, the file of numbers if one is asked for, and the report."""
    from fastbert_jax.inference.compare import compare_data, save
    from fastbert_jax.report.tables import render

    compared = compare_data(config)
    comparison = compared.comparison
    try:
        result(render(comparison))
    finally:  # the table and the files are kept when the other cannot be written
        if config.json == "-":
            print_json(comparison.to_json())
        if words := save(config, compared):
            info(words)
    where = f"the numbers are in {config.json}" if config.json not in ("", "-") else "--json FILE keeps the numbers"
    if config.output:
        where = f"tables, numbers and report are in {config.output}"
    next_step(where, "calibrate", "--model", config.model, "--data", "DEV", "--max-drop", "0.5")


def export(config: ExportConfig) -> None:
    """The names of the files written."""
    from fastbert_jax.training.export import export

    result(export(config))
    next_step(f"the model is in {config.output}", "predict", "--model", config.output, "--input", "TEXTS")


def verify(config: VerifyConfig) -> None:
    """What was compared and is unchanged."""
    from fastbert_jax.training.run_directory import verify_run

    result(verify_run(config.run))
    next_step("nothing has changed", "explore", "--model", config.run)


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "predict": (PredictConfig, predict),
    "explain": (ExplainConfig, explain),
    "explore": (ExploreConfig, explore),
    "calibrate": (CalibrateConfig, calibrate),
    "compare": (CompareConfig, compare),
    "export": (ExportConfig, export),
    "verify": (VerifyConfig, verify),
}
"""The commands of infer.py by name: their settings and what they do."""
SETTINGS = {name: settings for name, (settings, _) in COMMANDS.items()}


def next_step(where: str, *command: str) -> None:
    """Print where the result is and which command of infer.py to type next."""
    info(f"{where}; next: {program_name('infer')} {shlex.join(command)}")


def print_json(values: Any) -> None:
    """One line on standard output."""
    print(json.dumps(values, ensure_ascii=False), flush=True)

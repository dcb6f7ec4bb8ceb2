"""The command line of train.py: a YAML file of settings, and those that stand in for its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

from fastbert_jax.command_line.reading import about, read_settings
from fastbert_jax.config import QuietCommand, TrainConfig
from fastbert_jax.config_yaml import from_yaml

PROGRAM = "train.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments(QuietCommand):
    """Settings of a run from a YAML file, each of which the command line can replace."""

    config: str = ""
    """YAML file of settings; those left out keep the defaults shown here."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(RunArguments):
    """Fine-tune a BERT, let it distil itself into its exits, and measure what early exit buys.

    Every setting can stand in the YAML file or on the command line, which wins:

        python train.py --config configs/demo.yaml --distil.epochs 3

    The same command again resumes the run, or measures it again when it is done.
    """

    print_config: bool = False
    """Print all settings as YAML and stop."""
    dry_run: bool = False
    """Print shapes, steps, parameters and FLOPs and stop."""
    verify: bool = False
    """Compare every value and file of the run with its checksum, as `infer.py verify` does, and stop."""
    json: bool = False
    """Give the last measurement as JSON, which comparison.json holds too, instead of the table."""


Arguments = TypeVar("Arguments", bound=RunArguments)


def parse_train(argv: Sequence[str]) -> TrainArguments:
    """Settings from defaults, then `--config`'s file, then the rest of the command line.

    Raises:
      UserError: the file cannot be read, a value is out of its range, or an option is not known.
      SystemExit: 0 after --help and the like, 2 after what tyro cannot read.
    """
    default = with_config_file(TrainArguments(), argv)
    description = f"{TrainArguments.__doc__}\n{about(PROGRAM)}"
    return read_settings(TrainArguments, argv, program=PROGRAM, default=default, description=description)


def with_config_file(default: Arguments, argv: Sequence[str]) -> Arguments:
    """The same arguments with `config`, and as `settings` what its file holds, where `argv` has `--config`.

    Raises:
      UserError: the file cannot be read, or a value is out of its range.
    """
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(iter(argv[index + 1 :]), "")
            default = dataclasses.replace(default, config=path, settings=from_yaml(TrainConfig, path))
    return default

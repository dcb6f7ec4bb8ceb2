"""How the scripts read their command line, and how they end."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import tyro

from fastbert_jax.cache import keep_compiled_programs
from fastbert_jax.config import AblationsConfig, TrainConfig
from fastbert_jax.config_yaml import from_yaml
from fastbert_jax.errors import PreemptedError, UserError

TYRO_STYLE = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Fine-tune a BERT, let it distil itself into its exits, and measure what early exit buys.

    Every setting can stand in the YAML file or on the command line, which wins:

        python train.py --config configs/demo.yaml --distil.epochs 3

    The same command again resumes the run, or measures it again when it is done.
    """

    config: str = ""
    """YAML file of settings; those left out keep the defaults shown here."""
    print_config: bool = False
    """Print all settings as YAML and stop."""
    dry_run: bool = False
    """Print shapes, steps, parameters and FLOPs and stop."""
    verify: bool = False
    """Compare every value and file of the run with its checksum, as `infer.py verify` does, and stop."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)


Arguments = TypeVar("Arguments", TrainArguments, AblationsConfig)


def parse_train(argv: Sequence[str]) -> TrainArguments:
    """Settings from defaults, then `--config`'s file, then the rest of the command line.

    Raises:
      UserError: the file cannot be read, or a value is out of its range.
      SystemExit: tyro's own end, 0 after --help and 2 after an unknown flag.
    """
    return _parse(TrainArguments(), argv)


def parse_ablations(argv: Sequence[str]) -> AblationsConfig:
    """The same for the variants of a run.

    Raises:
      UserError, SystemExit: as `parse_train`.
    """
    return _parse(AblationsConfig(), argv)


def _parse(default: Arguments, argv: Sequence[str]) -> Arguments:
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(iter(argv[index + 1 :]), "")
            default = dataclasses.replace(default, config=path, settings=from_yaml(TrainConfig, path))
    return tyro.cli(type(default), args=list(argv), default=default, config=TYRO_STYLE)


def end_with(main: Callable[[], None]) -> None:
    """Run a script's main function.

    A user's mistake ends with its message and code 2, a run that was asked to stop and is saved with 42, Ctrl-C with
    130, and a reader of our output that has seen enough (`| head`) with 141, all without a traceback. Programs that
    jax compiles are kept for the next time.
    """
    keep_compiled_programs()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except PreemptedError as error:
        print(error, file=sys.stderr)
        sys.exit(42)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end goes nowhere
        sys.exit(141)

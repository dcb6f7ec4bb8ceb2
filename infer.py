"""Classify texts, see why, measure early exit, hand a model on: python infer.py COMMAND --help"""

import sys

from fastbert_jax.command_line import end_with, read_command
from fastbert_jax.commands import COMMANDS, run

DESCRIPTION = "Classify texts with a model of train.py, see why, measure what early exit buys, and hand the model on."


def main() -> None:
    """Read the settings, then do what they ask."""
    run(read_command(COMMANDS, sys.argv[1:], program="infer.py", description=DESCRIPTION))


if __name__ == "__main__":
    end_with(main)

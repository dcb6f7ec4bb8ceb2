"""How the scripts read their command line, and how they end."""

from fastbert_jax.command_line.exit_codes import end_with
from fastbert_jax.command_line.reading import TYRO_STYLE, read_command, read_settings
from fastbert_jax.command_line.train_arguments import TrainArguments, parse_ablations, parse_train

__all__ = [
    "TYRO_STYLE",
    "TrainArguments",
    "end_with",
    "parse_ablations",
    "parse_train",
    "read_command",
    "read_settings",
]

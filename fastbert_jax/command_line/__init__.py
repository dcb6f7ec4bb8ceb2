"""How the scripts read their command line, and how they end."""

from fastbert_jax.command_line.exit_codes import end_with
from fastbert_jax.command_line.reading import TYRO_STYLE, read_command, read_settings
from fastbert_jax.command_line.train_arguments import RunArguments, TrainArguments, parse_train, with_config_file

__all__ = [
    "TYRO_STYLE",
    "RunArguments",
    "TrainArguments",
    "end_with",
    "parse_train",
    "read_command",
    "read_settings",
    "with_config_file",
]

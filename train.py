"""Fine-tune, self-distil, evaluate: python train.py --config configs/demo.yaml [--key.sub value ...]"""

import sys
from pathlib import Path

from fastbert_jax.command_line import end_with, parse_train
from fastbert_jax.config_yaml import to_yaml


def main() -> None:
    """Read the settings, then do what they ask."""
    arguments = parse_train(sys.argv[1:])
    if arguments.print_config:
        print(to_yaml(arguments.settings), end="")
        return
    from fastbert_jax.training import dry_run, run, verify

    if arguments.verify:
        print(verify.verify_run(Path(arguments.settings.run)))
    elif arguments.dry_run:
        print(dry_run.describe(arguments.settings))
    else:
        run.train(arguments.settings)


if __name__ == "__main__":
    end_with(main)

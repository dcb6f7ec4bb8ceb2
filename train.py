"""Fine-tune, self-distil, evaluate: python train.py --config configs/demo.yaml [--key.sub value ...]"""

<<<<<<< HEAD
import sys
from pathlib import Path

from fastbert_jax.command_line import end_with, parse_train
from fastbert_jax.config_yaml import to_yaml
from fastbert_jax.log import info, result


def main() -> None:
    """Read the settings, then do what they ask."""
    arguments = parse_train(sys.argv[1:])
    settings = arguments.settings
    if arguments.print_config:
        print(to_yaml(settings), end="")
        return
    from fastbert_jax.commands import give_json, next_step
    from fastbert_jax.training import dry_run, run, run_directory

    if arguments.verify:
        result(run_directory.verify_run(Path(settings.run)))
    elif arguments.dry_run:
        result(dry_run.describe(settings))
        info("nothing is written; next: the same command without --dry-run")
    elif comparison := run.train(settings):
        if arguments.json:
            give_json(comparison.to_json())
        next_step(f"the model is in {settings.run}", "explore", "--model", settings.run)

=======
from fastbert_jax.command_line import end_with
from fastbert_jax.commands import train as main
>>>>>>> commands

if __name__ == "__main__":
    end_with(main)

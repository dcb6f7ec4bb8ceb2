"""Classify texts, see why, measure early exit, hand a model on: python infer.py COMMAND --help"""

from fastbert_jax import stopping


def main() -> None:
    """The command, without its end."""
    from fastbert_jax.commands import infer

    infer()


if __name__ == "__main__":
    stopping.begin_command()  # first: the imports take a moment, in which Ctrl-C would print a traceback
    from fastbert_jax.command_line import end_with

    end_with(main)

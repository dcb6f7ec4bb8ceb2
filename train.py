"""Fine-tune, self-distil, evaluate: python train.py --config configs/demo.yaml [--key.sub value ...]"""

from fastbert_jax import stopping


def main() -> None:
    """The command, without its end."""
    from fastbert_jax.commands import train

    train()


if __name__ == "__main__":
    stopping.begin_command()  # first: the imports take a moment, in which Ctrl-C would print a traceback
    from fastbert_jax.command_line import end_with

    end_with(main)

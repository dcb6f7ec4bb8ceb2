"""Classify texts, see why, measure early exit, hand a model on: python infer.py COMMAND --help"""

from fastbert_jax.command_line import end_with
from fastbert_jax.commands import infer as main

if __name__ == "__main__":
    end_with(main)

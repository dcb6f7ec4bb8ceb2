"""Fine-tune, self-distil, evaluate: python train.py --config configs/demo.yaml [--key.sub value ...]"""

from fastbert_jax.command_line import end_with
from fastbert_jax.commands import train as main

if __name__ == "__main__":
    end_with(main)

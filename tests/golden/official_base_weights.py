"""Random weights of an official model of BERT-base's size: both sides generate them, so that 340 MB need not be stored.

numpy's `RandomState` gives the same numbers in every version.
"""

from __future__ import annotations

import zlib

import numpy as np

SIZES = {
    "emb_size": 768,
    "hidden_size": 768,
    "feedforward_size": 3072,
    "heads_num": 12,
    "layers_num": 12,
    "dropout": 0.1,
}


def base_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 weights of the parameter of that name; matrices so large that texts differ after 12 layers."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    values = generator.standard_normal(shape)
    if len(shape) == 1:
        return (0.2 * values + name.endswith("gamma")).astype(np.float32)
    return (1.5 * values * (1.0 if "embedding" in name else shape[1] ** -0.5)).astype(np.float32)

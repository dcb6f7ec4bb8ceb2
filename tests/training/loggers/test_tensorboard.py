"""TensorBoard's event files, read back: what it shows of a run that went on is what one shows that never stopped."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from fastbert_jax.config import TrainConfig
from fastbert_jax.training.loggers.logger import About
from fastbert_jax.training.loggers.tensorboard import TensorBoardLogger
from tests.report.comparisons import COMPARISON

pytest.importorskip("tensorboardX")


def events_of(directory: Path) -> list[Any]:
    """The events of all files, in TensorBoard's order; a record is its length, a checksum, its bytes, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((directory / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def shown(directory: Path) -> dict[str, dict[int, float]]:
    """Scalars by name and step as TensorBoard shows them: a start forgets what was told of its step and later ones."""
    found: dict[str, dict[int, float]] = {}
    for event in events_of(directory):
        if event.HasField("session_log"):
            assert event.session_log.status == 1  # START
            found = {tag: {step: x for step, x in steps.items() if step < event.step} for tag, steps in found.items()}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert event.step not in found.setdefault(value.tag, {})
                found[value.tag][event.step] = value.simple_value
    return found


def texts_of(directory: Path) -> dict[str, str]:
    values = [value for event in events_of(directory) for value in event.summary.value]
    return {
        value.tag: value.tensor.string_val[0].decode() for value in values if value.metadata.plugin_data.plugin_name
    }


def process(directory: Path, *, resumed_at: int, until: int, shift: float = 0.0, done: bool = False) -> None:
    logger = TensorBoardLogger(About(directory=directory, config=TrainConfig(seed=7), identity=""))
    logger.resume(resumed_at)
    for step in range(resumed_at + 1, until + 1):
        logger.write("distil", {"distil/loss": step + shift, "distil/gradient_norm": 1.0}, step=step)
    if done:
        logger.conclude(COMPARISON)
    logger.close()


def test_a_run_that_goes_on_forgets_later_steps_of_the_files_before(tmp_path):
    process(tmp_path, resumed_at=0, until=5, shift=0.5)
    process(tmp_path, resumed_at=2, until=4)  # in the same second, perhaps, and yet in a file of its own
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert shown(tmp_path)["distil/loss"] == {1: 1.5, 2: 2.5, 3: 3.0, 4: 4.0}
    process(tmp_path, resumed_at=0, until=2)  # all over again
    assert shown(tmp_path)["distil/loss"] == {1: 1.0, 2: 2.0}


def test_settings_and_the_comparison_are_texts(tmp_path):
    process(tmp_path, resumed_at=0, until=1, done=True)
    texts = texts_of(tmp_path)
    assert "seed: 7" in texts["settings/text_summary"]
    assert "bucketed" in texts["comparison/text_summary"]


def test_a_run_that_was_done_is_concluded_again_and_keeps_its_steps(tmp_path):
    process(tmp_path, resumed_at=0, until=3, done=True)
    logger = TensorBoardLogger(About(directory=tmp_path, config=TrainConfig(), identity=""))
    logger.conclude(COMPARISON)
    logger.close()
    assert list(shown(tmp_path)["distil/loss"]) == [1, 2, 3]


def test_a_full_disk_is_an_error_here_and_now_and_nothing_waits_for_a_thread(tmp_path, monkeypatch):
    logger = TensorBoardLogger(About(directory=tmp_path, config=TrainConfig(), identity=""))
    logger.resume(0)

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger._writer._py_recordio_writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        logger.write("distil", {"distil/loss": 1.0}, step=1)
    logger.close()

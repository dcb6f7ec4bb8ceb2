"""The progress bar: rate and time left on a terminal, nothing without a terminal or where it is switched off."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fastbert_jax import log


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    log.configure()


def drawn(capsys: pytest.CaptureFixture[str]) -> str:
    with log.progress_bar("predict", total=10, unit="texts") as advance:
        for _ in range(5):
            advance(1, "half way")
    return capsys.readouterr().err


def test_rate_note_and_time_left_are_shown_to_who_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(capsys) == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    shown = drawn(capsys)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"predict .*5/10 [0-9.]+ texts/s  half way 0:\d\d:\d\d (0:\d\d:\d\d|-:--:--)", plain), plain
    log.configure(quiet=True)
    assert drawn(capsys) == ""

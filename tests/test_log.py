"""Progress: a bar with rate and time left on a terminal, a line a minute elsewhere, nothing where it is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fastbert_jax import log


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    log.configure()


def drawn(capsys: pytest.CaptureFixture[str], *, total: int | None = 10, hidden: bool = False) -> str:
    with log.progress_bar("predict", total=total, unit="texts", hidden=hidden) as advance:
        for _ in range(5):
            advance(1, "half way")
    return capsys.readouterr().err


def test_rate_note_and_time_left_are_shown_to_who_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    shown = drawn(capsys)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"predict .*5/10 [0-9.]+ texts/s  half way 0:\d\d:\d\d (0:\d\d:\d\d|-:--:--)", plain), plain
    assert drawn(capsys, hidden=True) == ""
    log.configure(quiet=True)
    assert drawn(capsys) == ""


def test_without_a_terminal_a_line_is_printed_when_it_is_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(capsys) == ""  # the minute is not over
    monkeypatch.setattr(log, "LINE_SECONDS", 0.0)
    *_, last = lines = drawn(capsys).splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r"predict: 5 of 10 texts, 0:\d\d:\d\d left, [0-9.]+ texts/s, half way", last), last
    assert drawn(capsys, total=None).splitlines()[0] == "predict: 1 texts, half way"
    assert drawn(capsys, hidden=True) == ""
    log.configure(quiet=True)
    assert drawn(capsys) == ""


def test_without_a_terminal_what_may_take_long_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with log.progress_bar("distil", total=46_000, unit="steps", done=1200) as advance:
        advance(0, "compiling")
        assert capsys.readouterr().err == "distil: 1,200 of 46,000 steps, compiling\n"
        advance(1, "loss 0.1")
    assert capsys.readouterr().err == ""

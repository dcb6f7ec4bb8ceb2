"""The path of a text as a table: its contents, and colour only where the terminal has it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastbert_jax.inference.explain import ExitPath, PathStep, show


def path_of(*uncertainties: float, exit_layer: int, text: str = "a film") -> ExitPath:
    steps: list[PathStep] = [
        {
            "layer": layer,
            "label": "good",
            "probability": 0.75,
            "probabilities": {"bad": 0.25, "good": 0.75},
            "uncertainty": uncertainty,
            "threshold": 0.3,
            "asked": layer != 2,
        }
        for layer, uncertainty in enumerate(uncertainties, 1)
    ]
    answer = steps[exit_layer - 1]
    return {
        "text": text,
        "label": answer["label"],
        "probabilities": answer["probabilities"],
        "exit_layer": exit_layer,
        "uncertainty": answer["uncertainty"],
        "layers": steps,
    }


def shown(path: ExitPath, capsys: pytest.CaptureFixture[str], **settings: object) -> str:
    show(path, Console(width=100, **settings))
    return capsys.readouterr().out


def test_every_layer_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(path_of(0.84, 1.0, 0.2, 0.1, exit_layer=3), capsys).splitlines()
    assert lines[0] == "a film" and lines[1].split() == ["layer", "answer", "probability", "uncertainty"]
    assert [line.split() for line in lines[2:6]] == [
        ["1", "good", "75.0%", "0.840", "████████░░", "goes", "on"],
        ["2", "good", "75.0%", "not", "asked", "goes", "on"],
        ["3", "good", "75.0%", "0.200", "██░░░░░░░░", "exits:", "below", "0.3"],
        ["4", "good", "75.0%", "0.100", "█░░░░░░░░░", "not", "run"],
    ]
    assert not any(line.endswith(" ") for line in lines)
    last = shown(path_of(0.9, 1.0, 0.9, exit_layer=3), capsys)
    assert last.count("exits: the last layer") == 1


def test_colour_is_for_terminals_that_want_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of(0.84, 1.0, 0.2, exit_layer=3)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in shown(path, capsys, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(path, capsys, force_terminal=True)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in shown(path, capsys)


def test_a_text_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(path_of(0.2, exit_layer=1, text="[red]a\x1b[2Jb\nc 好"), capsys)
    assert printed.splitlines()[0] == "[red]a [2Jb c 好"


def test_a_console_without_unicode_has_plain_bars(capsys: pytest.CaptureFixture[str]) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert "########.." in shown(path_of(0.84, exit_layer=1), capsys, file=ascii_only)

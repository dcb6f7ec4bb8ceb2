"""How scripts end: each reason by its exit code and its words, without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastbert_jax.command_line import end_with, exit_codes
from fastbert_jax.errors import PreemptedError, UserError

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        (UserError("expected one, found two"), 2, "error: expected one, found two\n"),
        (PreemptedError("saved; start me again"), 42, "saved; start me again\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_each_reason_has_its_code(
    reason: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(exit_codes, "keep_compiled_programs", lambda: None)

    def main() -> None:
        raise reason

    with pytest.raises(SystemExit) as end:
        end_with(main)
    assert end.value.code == code and capsys.readouterr().err == words
    end_with(lambda: None)  # 0: nothing is raised


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_codes, "keep_compiled_programs", lambda: None)
    with pytest.raises(ZeroDivisionError):
        end_with(lambda: print(1 / 0))


@pytest.mark.parametrize("script", ["train.py", "infer.py"])
def test_the_scripts_end_with_code_0_after_version_and_2_after_a_mistake(script: str) -> None:
    for flag, code in (("--version", 0), ("--quite", 2)):
        done = subprocess.run([sys.executable, ROOT / script, flag], capture_output=True, text=True, check=False)
        assert done.returncode == code and "Traceback" not in done.stderr
    assert len((ROOT / script).read_text().splitlines()) <= 60

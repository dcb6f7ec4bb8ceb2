"""Command lines: what is not known is refused with its neighbour, and what needs no settings is answered at once."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fastbert_jax import log
from fastbert_jax.command_line import parse_train, read_command, read_settings
from fastbert_jax.command_line.names import option_names
from fastbert_jax.commands import COMMANDS
from fastbert_jax.config import ExplainConfig, PrepareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.version import VERSION


def infer(argv: Sequence[str]) -> object:
    return read_command(COMMANDS, argv, program="infer.py", description="")


def prepare(argv: Sequence[str]) -> object:
    return read_settings(PrepareConfig, argv, program="-m fastbert_jax.text.prepare")


@pytest.mark.parametrize(
    ("read", "argv", "message"),
    [
        (infer, ["predcit"], "expected a command of `infer.py`, one of predict, explain, explore, calibrate, compare"),
        (infer, ["predcit"], "found 'predcit'; did you mean 'predict'?"),
        (infer, [], "expected a command after `infer.py`, one of predict, .*; `python infer.py --help` tells more"),
        (infer, ["predict", "--modle", "x"], "option of `infer.py predict`, found '--modle'; did you mean '--model'?"),
        (infer, ["compare", "--model=x", "--data=y", "--exits.polcy=z"], "'--exits.polcy=z'; did you mean '--exits.po"),
        (infer, ["verify", "runs/x", "--zzz"], "found '--zzz'; `python infer.py verify --help` lists them"),
        (
            parse_train,
            ["--data.trian", "x"],
            "expected an option of `train.py`, found '--data.trian'; did you mean '--d",
        ),
        (parse_train, ["--train", "x"], "found '--train'; did you mean '--data.train'?"),
        (parse_train, ["--fine_tune.epoch", "1"], "did you mean '--fine-tune.epochs'?"),
        (
            prepare,
            ["--inptu", "x"],
            "option of `-m fastbert_jax.text.prepare`, found '--inptu'; did you mean '--input'?",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_its_neighbour(
    read: Callable[[Sequence[str]], object], argv: list[str], message: str
) -> None:
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(UserError, match=pattern):
        read(argv)


def test_what_tyro_cannot_read_ends_with_its_own_words_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in ((["--mode", "fast"], "invalid choice 'fast'"), (["--batch-size", "many"], "many")):
        with pytest.raises(SystemExit) as end:
            infer(["predict", "--model", "x", *argv])
        assert end.value.code == 2 and words in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        infer(["predict"])
    assert end.value.code == 2 and "--model" in capsys.readouterr().err


def test_a_text_may_look_like_an_option_after_two_dashes() -> None:
    config = infer(["explain", "--model", "x", "--", "--modle"])
    assert isinstance(config, ExplainConfig) and config.texts == ("--modle",)


@pytest.mark.parametrize("read", [infer, parse_train, prepare])
def test_the_version_is_said_at_once(
    read: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"fastbert_jax {VERSION}\n"


def test_help_is_grouped_by_room_and_says_how_to_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_train(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    for room in ("data", "model", "fine-tune", "distil", "evaluate", "mesh", "processes", "checkpoints"):
        assert f"{room} options" in printed
    assert "source <(python train.py --completion bash)" in printed


def test_every_option_of_a_command_is_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, schema in COMMANDS.items():
        with pytest.raises(SystemExit):
            infer([name, "--help"])
        printed = capsys.readouterr().out
        options = list(option_names(schema))
        assert "--quiet" in options and [option for option in options if option not in printed] == []


def completed(script: Path, words: Sequence[str]) -> list[str]:
    """What bash offers for the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    asked = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _fastbert_jax_after_python"
    shown = f'{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_values_after_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "completion.bash"
    texts = []
    for read in (infer, parse_train):  # in one shell, both scripts
        with pytest.raises(SystemExit) as end:
            read(["--completion", "bash"])
        assert end.value.code == 0
        texts.append(capsys.readouterr().out)
    script.write_text("\n".join(texts))
    assert completed(script, ["python", "infer.py", "ex"]) == ["explain", "explore", "export"]
    assert completed(script, ["python3", "./train.py", "--data.tr"]) == ["--data.train"]
    assert completed(script, ["python", "infer.py", "predict", "--mode", "b"]) == ["bucketed"]
    assert completed(script, ["python", "other.py", "--da"]) == []
    with pytest.raises(UserError, match="--completion: expected one of bash, zsh, found 'bsh'; did you mean 'bash'?"):
        infer(["--completion", "bsh"])


def test_quiet_and_json_decide_what_is_said_where(capsys: pytest.CaptureFixture[str]) -> None:
    heard = {}
    for flags in ((), ("--quiet",), ("--json",), ("--json", "--quiet")):
        infer(["compare", "--model", "x", "--data", "y", *flags])
        log.info("a note")
        log.status("news")
        log.result("words")
        heard[flags] = tuple(capsys.readouterr())
    infer(["compare", "--model", "x", "--data", "y", "--json", "numbers.json"])
    log.result("words")
    assert capsys.readouterr().out == "words\n"
    assert heard == {
        (): ("news\nwords\n", "a note\n"),
        ("--quiet",): ("words\n", ""),
        ("--json",): ("", "a note\nnews\n"),
        ("--json", "--quiet"): ("", ""),
    }

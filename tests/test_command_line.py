"""Command lines: unknown words are refused, and each end has its exit code."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fastbert_jax import command_line, commands, log
from fastbert_jax.command_line import TrainArguments, end_with, read_command, read_over_file, read_settings
from fastbert_jax.commands import SETTINGS, train_arguments
from fastbert_jax.config import ExplainConfig, PrepareConfig
from fastbert_jax.errors import PreemptedError, UserError, program_name
from fastbert_jax.inference.answer_files import AnswerFormat
from fastbert_jax.inference.prediction import Prediction
from fastbert_jax.recipes import fastbert, pkd
from fastbert_jax.text.examples import Example
from fastbert_jax.version import VERSION

ROOT = Path(__file__).parent.parent


def infer(argv: Sequence[str]) -> object:
    return read_command(SETTINGS, argv, program="python infer.py", description="")


def prepare(argv: Sequence[str]) -> object:
    return read_settings(PrepareConfig, argv, program="python -m fastbert_jax.text.prepare")


@pytest.mark.parametrize(
    ("read", "argv", "words"),
    [
        (infer, ["predcit"], "predcit Available subcommands: predict, explain, explore, calibrate, compare"),
        (infer, [], "Expected one of {predict, explain, "),
        (infer, ["predict", "--modle", "x"], "--modle"),
        (infer, ["predict", "--model", "x", "--modle", "y"], "--model STR Directory of a run"),
        (infer, ["compare", "--model=x", "--data=y", "--exits.polcy=z"], "Perhaps you meant: --exits.policy"),
        (infer, ["verify", "runs/x", "--zzz"], "--zzz For full helptext, run python infer.py verify --help"),
        (train_arguments, ["--data.trian", "x"], "Perhaps you meant: --data.train"),
        (train_arguments, ["--train", "x"], "Perhaps you meant: --data.train"),
        (train_arguments, ["--fine_tune.epoch", "1"], "Perhaps you meant: --fine-tune.epochs"),
        (prepare, ["--inptu", "x"], "For full helptext, run python -m fastbert_jax.text.prepare --help"),
    ],
)
def test_an_unknown_word_is_refused(
    read: Callable[[Sequence[str]], object], argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read(argv)
    assert end.value.code == 2 and words in " ".join(re.sub("[─│╭╮╰╯|]|-{3,}", "", capsys.readouterr().err).split())


def test_what_tyro_cannot_read_ends_with_its_own_words_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in ((["--mode", "fast"], "invalid choice 'fast'"), (["--batch-size", "many"], "many")):
        with pytest.raises(SystemExit) as end:
            infer(["predict", "--model", "x", *argv])
        assert end.value.code == 2 and words in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        infer(["predict"])
    assert end.value.code == 2 and "--model" in capsys.readouterr().err


def test_a_text_may_look_like_an_option_in_quotes_or_after_two_dashes() -> None:
    for words in (["--modle"], ["-- a headline --"]):
        config = infer(["explain", "--model", "x", *(["--"] if words == ["--modle"] else []), *words])
        assert isinstance(config, ExplainConfig) and config.texts == tuple(words)


def test_other_settings_of_a_run_have_the_same_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("recipe: pkd\npkd: {alpha: 0.25, epochs: 7}\n")
    arguments = train_arguments([f"--config={path}", "--pkd.epochs", "8", "--quiet"])
    assert isinstance(arguments.settings, pkd.Settings)
    assert (arguments.settings.pkd.alpha, arguments.settings.pkd.epochs) == (0.25, 8)
    assert (arguments.config, arguments.quiet) == (str(path), True)
    with pytest.raises(UserError, match="unknown key 'pkd'"):
        read_over_file(TrainArguments, fastbert.Settings, ["--config", str(path)], program="")
    assert train_arguments([]).settings == fastbert.Settings()


def test_a_value_out_of_its_range_is_named_as_it_is_typed() -> None:
    for read, words, message in (
        (train_arguments, ["--evaluate.speeds", "2"], "--evaluate.speeds: expected thresholds in [0, 1], found (2.0,)"),
        (train_arguments, ["--fine-tune.batch-size", "0"], "--fine-tune.batch-size: expected 1 or more, found 0"),
        (infer, ["predict", "--model", "x", "--speed", "2"], "--speed: expected a threshold in [0, 1], found 2.0"),
        (infer, ["explain", "--model", "x", "a", "--exits.top", "1"], "--exits.top: expected 2 or more"),
        (train_arguments, ["--fine-tune.learning-rate", "inf"], "--fine-tune.learning-rate: expected a finite number"),
        (train_arguments, ["--model.dropout", "nan"], "--model.dropout: expected a probability in [0, 1), found nan"),
        (train_arguments, ["--seed", "9" * 400], "--seed: expected a number of at most 64 bits, found 999"),
        (infer, ["compare", "--model=x", "--data=y", "--speeds", "nan"], "--speeds: expected thresholds in [0, 1]"),
        (infer, ["calibrate", "--model=x", "--data=y", "--max-drop", "inf"], "--max-drop: expected a finite number"),
        (infer, ["predict", "--model=x", "--batch-size", "9" * 30], "--batch-size: expected a number of at most 64"),
        (infer, ["predict", "--model=x", "--top", "-1"], "--top: expected 0 or more, found -1"),
        (infer, ["predict", "--model=x", "--keep", "a", "a"], "--keep: expected each column once, found ('a', 'a')"),
        (infer, ["predict", "--model=x", "--top=2", "--probabilities=none"], "--top: expected --probabilities all"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            read(words)


@pytest.mark.parametrize("read", [infer, train_arguments, prepare])
def test_the_version_is_printed_at_once(
    read: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"fastbert_jax {VERSION}\n"


def test_help_is_grouped_by_room_and_says_how_to_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        train_arguments(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    for room in ("data", "model", "fine-tune", "distil", "evaluate", "mesh", "processes", "checkpoints"):
        assert f"{room} options" in printed
    assert "source <(fastbert-train --completion bash)" in printed


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        infer(["--help"])
    printed = capsys.readouterr().out
    assert [name for name in SETTINGS if name not in printed] == []


HELPS = [
    (train_arguments, []),
    (train_arguments, ["--recipe", "pkd"]),
    (prepare, []),
    *((infer, [name]) for name in SETTINGS),
]


@pytest.mark.parametrize(("read", "words"), HELPS)
def test_every_line_of_a_help_is_as_long_as_its_words_allow(
    read: Callable[[Sequence[str]], object],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        read([*words, "--help"])
    printed = capsys.readouterr().out
    opening, _, rest = printed.partition("\n options ")
    boxed = [line[2:].rstrip() for line in rest.splitlines()[1:]]
    start = next(line.index("show this help") for line in boxed if line.startswith("-h, "))
    follows = 0
    for line, after in itertools.pairwise(boxed):
        is_text = line[start - 2 : start] == "  " and line[start:].strip()  # not an option that fills its line
        if is_text and after[start:].strip() and not after[:start].strip():
            follows += 1
            assert len(line) + 1 + len(after.split()[0]) > 76, (line, after)
    assert follows
    assert not re.search(r"\n\n\n", opening.rstrip())
    for line, after in itertools.pairwise(opening.splitlines()):
        if re.match(r"  \S", after):
            assert len(line) + 1 + len(after.split()[0]) > 80, (line, after)


def test_the_help_opens_with_an_example_and_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_arguments(["--help"])
    opening, _, rest = capsys.readouterr().out.partition("\n options ")
    assert "    python train.py --run runs/mine --data.train mine.csv\n" in opening
    options = re.findall(r"^    (--\S+) [A-Z]+", opening, re.MULTILINE)
    assert len(options) == 5 and all(f"{option} " in rest for option in options)


def test_the_help_of_predict_shows_an_answer_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        infer(["predict", "--help"])
    found = re.search(r"^    \{.*?\}\n(?!     )", capsys.readouterr().out, re.DOTALL | re.MULTILINE)
    assert found
    shown = json.loads(found[0])
    labels = tuple(shown["probabilities"])
    answer = Prediction(
        labels[0], np.array([*shown["probabilities"].values()]), shown["exit_layer"], shown["uncertainty"], labels
    )
    line = AnswerFormat.of("-", labels).part([Example("a text", None, "-:1")], [answer], first=1)
    assert list(json.loads(line)) == list(shown) and json.loads(line)["label"] == shown["label"]
    probabilities = answer.probabilities
    assert -(probabilities * np.log(probabilities)).sum() / np.log(2) == pytest.approx(shown["uncertainty"], abs=0.01)


def completed(script: Path, words: Sequence[str]) -> list[str]:
    """What bash offers for the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    function = f"_tyro_{words[0].replace('-', '_')}"
    asked = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; {function}"
    shown = f'{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "completion.bash"
    texts = []
    for read in (infer, train_arguments):  # in one shell, both programs
        with pytest.raises(SystemExit) as end:
            read(["--completion", "bash"])
        assert not end.value.code
        texts.append(capsys.readouterr().out)
    script.write_text("\n".join(texts))
    assert completed(script, ["fastbert-infer", "ex"]) == ["explain", "explore", "export"]
    assert completed(script, ["fastbert-train", "--data.tr"]) == ["--data.train"]
    assert completed(script, ["fastbert-infer", "predict", "--mode", "b"]) == ["bucketed"]
    with pytest.raises(SystemExit) as end:
        infer(["--completion", "bsh"])
    assert end.value.code == 2


def test_quiet_and_json_decide_what_is_printed_where(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_messages_name_the_program_that_the_user_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for started, program in (
        ("infer.py", "python infer.py"),
        ("/a/train.py", "python infer.py"),
        ("/venv/bin/fastbert-train", "fastbert-infer"),
        ("prepare.py", "python infer.py"),  # a module of a clone
    ):
        monkeypatch.setattr("sys.argv", [started])
        assert program_name("infer") == program
    monkeypatch.setattr("fastbert_jax.errors.__file__", "/site-packages/fastbert_jax/errors.py")
    assert program_name("infer") == "fastbert-infer"
    monkeypatch.setattr("sys.argv", ["/venv/bin/fastbert-infer"])
    for argv in (["--help"], ["predict", "--help"]):
        monkeypatch.setattr("sys.argv", ["/venv/bin/fastbert-infer", *argv])
        with pytest.raises(SystemExit):
            commands.fastbert_infer()
        printed = capsys.readouterr().out
        assert printed.startswith("usage: fastbert-infer") and ".py" not in printed
    with pytest.raises(SystemExit):
        train_arguments(["--help"])
    assert ".py" not in capsys.readouterr().out


def test_the_installed_commands_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(project["scripts"]) == ["fastbert-infer", "fastbert-train"]
    for place in project["scripts"].values():
        module, _, function = place.partition(":")
        assert module == "fastbert_jax.commands" and callable(getattr(commands, function))


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        (UserError("expected one, found two"), 2, "error: expected one, found two\n"),
        (PreemptedError("saved; start me again"), 42, "saved; start me again\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_each_end_has_its_code(
    reason: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)

    def main() -> None:
        raise reason

    with pytest.raises(SystemExit) as end:
        end_with(main)
    assert end.value.code == code and capsys.readouterr().err == words
    end_with(lambda: None)  # 0: nothing is raised


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)
    with pytest.raises(ZeroDivisionError):
        end_with(lambda: print(1 / 0))


@pytest.mark.parametrize("script", ["train.py", "infer.py"])
def test_the_scripts_end_with_code_0_after_version_and_2_after_a_mistake(script: str) -> None:
    for flag, code in (("--version", 0), ("--quite", 2)):
        done = subprocess.run([sys.executable, ROOT / script, flag], capture_output=True, text=True, check=False)
        assert done.returncode == code and "Traceback" not in done.stderr


def test_reading_a_command_line_loads_no_jax() -> None:
    program = "import sys; sys.argv = ['train.py', '--seed', '1']; from fastbert_jax import command_line, commands; "
    program += "commands.train_arguments(sys.argv[1:]); assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

"""Every command that a page or `make demo` shows runs to its end, and leaves or prints what it says.

Each runs in a folder of its own that holds tiny versions of everything the pages name: the files of
`tests/tiny_files.py`, and the results of earlier commands (runs, a corpus). Settings that make a command quick come
before its words, so the page's own settings win; `SHORTER` lists the few exceptions. Commands that are the same once
their placeholders are filled run once. The first of each kind is part of every test run; the others, and all that train
other recipes, are slow tests.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import runpy
import shutil
import socketserver
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import jax
import pytest

from docs.hooks.pages import readers
from fastbert_jax import log
from fastbert_jax.command_line import TrainArguments
from fastbert_jax.commands import COMMANDS
from fastbert_jax.config import CalibrateConfig, MeshConfig
from fastbert_jax.inference import calibrate, loading
from fastbert_jax.inference.explore import url_of
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text import builtin
from fastbert_jax.text.readers import open_table
from fastbert_jax.text.sources import COLLECTIONS, Collection
from fastbert_jax.text.tables import Row, Table
from fastbert_jax.training import run
from tests.pages import ROOT, Command, commands
from tests.tiny_files import BUILTIN, MINILM, write_files
from tests.training.logger_backends import Mlflow, Wandb

PLACEHOLDERS = {"COMMAND": "predict", "CONFIG": "configs/demo.yaml", "RUN": "runs/mine", "DIR": "exported/mine"}
"""Values for the words in capitals."""
SIZES = "--data.max-length 16 --evaluate.repeats 1 --evaluate.speeds --evaluate.modes masked"
"""Of all training; nothing is measured."""
PHASES = {
    name: f"--{name}.epochs 1 --{name}.batch-size 12 --{name}.learning-rate 1e-3"
    for name in ("fine-tune", "truncate", "pkd")
}
PHASES["distil"] = "--distil.epochs 2 --distil.batch-size 12 --distil.learning-rate 1e-3 --distil.kl student-teacher"
"""The same sizes, rates and numbers of steps in all runs, so that they share compiled programs."""
PHASES_OF = {"joint": ("fine-tune",), "truncated": ("truncate", "distil"), "pkd": ("pkd",)}
"""By recipe; all others fine-tune and distil."""
QUICK = {
    "infer.py compare": "--repeats 1 --speeds 0.5 --modes masked cascade",
    "infer.py calibrate": "--repeats 1",
    "infer.py explore": "--port 0",
    "-m fastbert_jax.text.prepare": "--max-length 16",
    "-m fastbert_jax.model.convert": "--num-heads 4",
    "benchmarks/ablations.py": "--seeds 0 --ablations --layers 1 --repeats 1",
}
"""Settings before a command's own, beside those of training."""
SHORTER = {
    **{"--distil.steps": ("8",), "--checkpoints.every": ("3",), "--model.first-layers": ("1",)},
    **{"--layers": ("1",), "--ablations": ()},
}
"""Values that replace the page's, which would take long."""
EARLIER = (
    "python train.py --run runs/mine --data.train mine.csv --evaluate.speeds 0.5",
    "python infer.py calibrate --model runs/mine --data dev.csv --max-drop 2",
    "python -m fastbert_jax.text.prepare --input 'texts/*.jsonl.gz' --output corpora/texts",
)
SAME = {
    "runs/demo": "runs/mine",
    "runs/movie_reviews": "runs/mine",
    "runs/tickets": "runs/mine",
    "runs/two_layers": "runs/mine",
    "runs/paper/ag_news": "runs/mine",
    "runs/ag_news_6": "runs/mine",
    "models/reviews": "runs/mine/model",
    "google-bert/bert-base-german-cased": "models/bert-base-uncased",
    "shared/corpora/english": "corpora/texts",
    "shared/runs/reviews": "runs/mine",
}
"""Links to other directories, named from the folder."""


def placed(command: Command) -> Command:
    """The command with values for placeholders, and all files in the working directory."""
    words = (re.sub("gs://my-bucket/|/shared/", "shared/", word) for word in command.words)
    return command._replace(words=tuple(PLACEHOLDERS.get(word, word) for word in words))


def recipe_of(command: Command) -> str:
    """The recipe that a command which trains asks for."""
    return next((after for word, after in itertools.pairwise(command.words) if word == "--recipe"), "fastbert")


def kind(command: Command) -> tuple[str, str, bool]:
    """What decides most of what a command runs: the program, its subcommand or recipe, whether it only prints help."""
    first = command.words[0] if command.program == "infer.py" else recipe_of(command)
    return command.program, first, "--help" in command.words


def parameters() -> Iterator:
    """Every different command; all but the first of each kind, and all that train other recipes, are slow tests."""
    kinds: set[tuple[str, str, bool]] = set()
    for command, place in DIFFERENT.items():
        is_slow = kind(command) in kinds or recipe_of(command) != "fastbert" or "ablations" in command.program
        yield pytest.param(command, id=place, marks=[pytest.mark.slow] if is_slow else [])
        kinds.add(kind(command))


SHOWN = commands()
DIFFERENT = {placed(command): place for command, place in reversed(SHOWN.items())}


@pytest.fixture(scope="module", autouse=True)
def stand_ins() -> Iterator[pytest.MonkeyPatch]:
    """Replacements for built-in sets and MiniLM, other services, a fast machine, many devices and a browser."""

    def devices_asked_for(config: MeshConfig, devices: object = None) -> jax.sharding.Mesh:
        return make_mesh(config, jax.devices()[: config.fsdp * config.tensor])

    def built_in(split: str) -> list[Row]:
        with open_table(BUILTIN / f"{split}.tsv") as table:
            rows = [row for row in table.rows(table.columns) if isinstance(row, Row)]
        return [Row(row.where, dict(zip(("text", "label"), row.values.values(), strict=True))) for row in rows]

    def news(name: str, split: str) -> Table:
        texts = [{"title": row.values["text"], "description": "a b"} | row.values for row in built_in(split)]
        rows = [Row(f"{name}#{split}:{number}", values) for number, values in enumerate(texts)]
        return Table(f"tfds:{name}", tuple(texts[0]), lambda columns: iter(rows), text_columns=("title", "description"))

    def answer_once(server: ThreadingHTTPServer) -> None:
        with ThreadPoolExecutor(1) as browser:
            asked = browser.submit(urllib.request.urlopen, url_of(server), timeout=60)
            server.handle_request()
            with asked.result() as page:
                assert b"<title>" in page.read()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "_orange", lambda name, split: built_in(split))
        patch.setattr(builtin, "_movie_reviews", built_in)
        patch.setitem(COLLECTIONS, "tfds", Collection(news, lambda name: ("train", "test")))
        patch.setattr(builtin, "MINILM_PACKAGE", MINILM)
        patch.setitem(sys.modules, "wandb", Wandb().module)
        patch.setitem(sys.modules, "mlflow", Mlflow().module)
        patch.setattr(calibrate, "measured_speedup", lambda *_, **__: Spread.of([3.0]))
        for module in (run, loading):
            patch.setattr(module, "make_mesh", devices_asked_for)
        patch.setattr(socketserver.BaseServer, "serve_forever", answer_once)
        jax.config.update("jax_disable_most_optimizations", True)
        yield patch
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def made(stand_ins: pytest.MonkeyPatch, official_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("folder")
    stand_ins.chdir(folder)
    stand_ins.syspath_prepend(folder)
    write_files(official_directory)
    for line in EARLIER:
        type_in(line)
    for name, other in SAME.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(os.path.relpath(other, Path(name).parent))  # a copy's links lead into the copy
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it to work in; `--quiet` and `--json` are reset after each test."""
    shutil.copytree(made, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    log.configure(quiet=False, json=False)


def type_in(line: Command | str) -> None:
    """Run a command in this process, with the settings that make it quick."""
    command = Command.of(line) if isinstance(line, str) else line
    assert command is not None
    name = command.words[:1] if command.program == "infer.py" else ()
    quick = [*QUICK.get(" ".join([command.program, *name]), "").split(), *quick_training(command)]
    shorter = [word for option in command.words if option in SHORTER for word in (option, *SHORTER[option])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [command.program, *name, *quick, *command.words[len(name) :], *shorter])
        patch.syspath_prepend(ROOT / "benchmarks")
        try:
            if "/" in command.program:
                runpy.run_path(str(ROOT / command.program), run_name="__main__")
            else:
                importlib.import_module(command.program.removeprefix("-m ").removesuffix(".py")).main()
        except SystemExit as end:  # of --help and the like
            assert not end.code


def quick_training(command: Command) -> list[str]:
    """Settings that make training quick, those of the phases of its recipe; none for a command that does not train."""
    if command.program not in ("train.py", "benchmarks/ablations.py"):
        return []
    phases = ("fine-tune", "distil") if command.program == "train.py" else ("fine-tune", "distil", "truncate")
    return " ".join([SIZES, *(PHASES[phase] for phase in PHASES_OF.get(recipe_of(command), phases))]).split()


def left_by(command: Command) -> list[str]:
    """The files and directories that a command makes, as patterns; none if it only prints."""
    if any(option in command.words for option in ("--help", "--version", "--completion")):
        return []
    if command.program not in readers():
        return [command.words[command.words.index("--output") + 1]]
    match readers()[command.program](command.words):
        case TrainArguments(dry_run=True):
            return []
        case TrainArguments(settings=settings):
            parts = ["model", "report.html", *(["profile"] if settings.profile else [])]
            return [settings.run, *(f"{settings.run}/{part}" for part in parts)]
        case CalibrateConfig(model=model):
            return [f"{model}/model/calibration.json"]
        case settings:
            output = getattr(settings, "output", "")
            places = [output, os.path.join(output, report) if (report := getattr(settings, "report", "")) else ""]
            return [place.replace("{}", "*") for place in places if place not in ("", "-")]


def is_empty(path: Path) -> bool:
    return not any(path.iterdir()) if path.is_dir() else path.stat().st_size == 0


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("command", [*parameters()])
def test_every_command_runs(command: Command, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    left = left_by(command)
    for pattern in left:
        for path in here.glob(pattern):
            remove(path)
    type_in(command)
    for pattern in left:
        assert [path for path in here.glob(pattern) if not is_empty(path)], pattern
    assert left or capfd.readouterr().out


def test_the_commands_are_found() -> None:
    programs = [" ".join([command.program, *command.words[:1]]) for command in SHOWN]
    assert len(programs) > 60 and {f"infer.py {name}" for name in COMMANDS} <= set(programs)
    (joined,) = (command.words for command in SHOWN if "20000" in command.words)
    assert joined[-2:] == ("--checkpoints.every", "500")
    cut = Command.of("python infer.py compare --data builtin:reuters_r8#test ... > table.txt  # all of it")
    assert cut == Command("infer.py", ("compare", "--data", "builtin:reuters_r8#test"))
    assert Command.of("fastbert-train --dry-run") == Command("train.py", ("--dry-run",))
    assert Command.of("fastbert-train") is None  # a sentence names it
    assert any(place.startswith("Makefile: ") for place in SHOWN.values())

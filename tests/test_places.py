"""Every setting that names a place: texts are read behind any `scheme://`; other places are refused before any work."""

from __future__ import annotations

import dataclasses
import re
import shutil
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import jax
import pytest

import fastbert_jax
from fastbert_jax import command_line, commands, log
from fastbert_jax.command_line import read_settings
from fastbert_jax.commands import SETTINGS, train_arguments
from fastbert_jax.config import CalibrateConfig, CompareConfig, ConvertConfig, PrepareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.recipes import RECIPES, recipe_module
from fastbert_jax.text import prepare
from fastbert_jax.text.sources import read_examples
from fastbert_jax.training import run
from tests.inference.saved import save_tiny_model, some_texts
from tests.tiny_bert import write_tiny_bert

BUCKET = "gs://bucket/reviews.jsonl"
TypeIn = Callable[[Callable[[], None], str, str], str]
"""Of a command's function, its words, and what stands for TEXTS in them."""
NEEDED = {
    "train": "",
    "predict": "--model m",
    "explain": "text --model m",
    "explore": "--model m",
    "calibrate": "--model m --data d --max-drop 1",
    "compare": "--model m --data d",
    "export": "--model m --output o",
    "verify": "",
    "prepare": "--input i --output o",
    "convert": "--input i --vocab v --output o",
}
"""The words that a command cannot do without."""
LOCAL = {
    "train": ("--run", "--model.pretrained", "--pkd.teacher", "--config"),
    "predict": ("--model", "--output"),
    "explain": ("--model",),
    "explore": ("--model",),
    "calibrate": ("--model",),
    "compare": ("--model", "--output", "--json", "--report", "--mislabelled", "--baselines"),
    "export": ("--model", "--output"),
    "verify": ("--run",),
    "prepare": ("--output", "--tokenizer", "--verify"),
    "convert": ("--input", "--vocab", "--output"),
}
"""Places that must be local."""
ANYWHERE = {
    "train": ("--data.train", "--data.dev", "--data.test", "--data.unlabelled"),
    "predict": ("--input",),
    "calibrate": ("--data",),
    "compare": ("--data", "--baseline"),
    "prepare": ("--input",),
}
"""Places of texts."""
NO_PLACES = {
    *("--recipe", "--profile", "--processes.coordinator", "--data.labels", "--data.exclude-labels"),
    *(
        f"{section}{option}"
        for section in ("--", "--data.")
        for option in ("text-column", "pair-column", "label-column")
    ),
    *(
        "--encoding",
        "--data.encoding",
        "--keep",
        "--by",
        "--evaluate.by",
        "--target",
        "--texts",
        "--pair",
        "--host",
        "--labels",
        "--share",
    ),
    *("--license", "--language", "--datasets"),
}
"""Other settings that hold text."""


def read(command: str, words: Sequence[str]) -> object:
    """The settings of a command line."""
    if command == "train":
        return train_arguments(words)
    if command in SETTINGS:
        return read_settings(SETTINGS[command], words, program=f"infer.py {command}")
    return read_settings({"prepare": PrepareConfig, "convert": ConvertConfig}[command], words, program=command)


def text_options(schema: Any, prefix: str = "--") -> Iterator[str]:
    """The options of a class of settings that hold text."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint, option = hints[field.name], f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint):
            yield from text_options(hint, f"{option}.")
        elif str in (hint, *typing.get_args(hint)):
            yield option


@pytest.mark.parametrize("command", NEEDED)
def test_every_setting_that_holds_text_is_in_a_table(command: str) -> None:
    schemas = {"prepare": [PrepareConfig], "convert": [ConvertConfig]} | {
        "train": [recipe_module(name).Settings for name in RECIPES]
    }
    found = {option for schema in schemas.get(command, [SETTINGS.get(command)]) for option in text_options(schema)}
    known = {*LOCAL[command], *ANYWHERE.get(command, ())} - {"--config"}
    assert known <= found and found - known <= NO_PLACES


@pytest.mark.parametrize(("command", "option"), [(name, option) for name in LOCAL for option in LOCAL[name]])
def test_a_place_that_must_be_local_is_refused_with_what_to_do(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*NEEDED[command].split(), option, BUCKET]
    if command == "verify":
        words, option = [BUCKET], "RUN"
    if option == "--pkd.teacher":
        words = ["--recipe", "pkd", *words]
    with pytest.raises(UserError, match=rf"^{option}: expected a local path .*`gcloud storage cp -r`.* '{BUCKET}'$"):
        read(command, words)
    assert not list(tmp_path.iterdir())


def test_so_are_a_prepared_corpus_a_yaml_file_s_places_the_cache_and_what_python_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--data.unlabelled: expected a local path .*'prepared:s3://b/corpus'"):
        read("train", ["--data.unlabelled", "prepared:s3://b/corpus"])
    with pytest.raises(UserError, match="^gs://b/model: expected a local path"):
        fastbert_jax.load("gs://b/model")
    monkeypatch.setenv("FASTBERT_JAX_CACHE", "gs://b/cache")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    with pytest.raises(UserError, match="^FASTBERT_JAX_CACHE: expected a local path"):
        command_line.keep_compiled_programs()
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.yaml").write_text("run: s3://b/run")
    with pytest.raises(UserError, match=r"^run.yaml: --run: expected a local path"):
        read("train", ["--config", "run.yaml"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, its texts, and the same texts in memory."""
    folder = tmp_path_factory.mktemp("places")
    save_tiny_model(folder / "model", num_layers=2)
    write_tiny_bert(folder / "bert")
    for name, seed in (("train", 0), ("dev", 1), ("test", 2), ("more", 3)):
        rows = [
            f"{('zebra', 'ant', 'mole')[place % 3]}\t{text}" for place, text in enumerate(some_texts(60, seed=seed))
        ]
        (folder / f"{name}.tsv").write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
        fsspec.filesystem("memory").put_file(str(folder / f"{name}.tsv"), f"/places/{name}.tsv")
    return folder


@pytest.fixture
def typed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[TypeIn]:
    """Runs a command in a folder of its own, on one device; what it prints, without the folders of the texts."""
    monkeypatch.setattr(
        run, "make_mesh", lambda config: fastbert_jax.model.sharding.make_mesh(config, jax.devices()[:1])
    )

    def type_in(main: Callable[[], None], words: str, texts: str) -> str:
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        monkeypatch.setattr(
            "sys.argv", ["program", *words.replace("MODELS", str(folder)).replace("TEXTS", texts).split()]
        )
        monkeypatch.chdir(tmp_path)
        main()
        return re.sub(f"{folder}|memory:/+places", "TEXTS", capfd.readouterr().out)

    yield type_in
    log.configure()


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (
            commands.train,
            "--dry-run --model.pretrained MODELS/bert --data.train TEXTS/train.tsv --data.dev TEXTS/dev.tsv "
            "--data.test TEXTS/test.tsv --data.unlabelled TEXTS/*.tsv --data.max-length 16",
        ),
        (
            commands.train,
            "--dry-run --model.pretrained MODELS/bert --data.train TEXTS/train.tsv --data.max-length 16 "
            "--data.unlabelled stream:TEXTS/*.tsv --distil.steps 3",
        ),
        (commands.infer, "predict --model MODELS/model --input TEXTS/test.tsv"),
        (prepare.main, "--input TEXTS/*.tsv --output made --tokenizer MODELS/bert"),
    ],
)
def test_texts_in_memory_do_what_those_of_local_files_do(
    main: Callable[[], None], words: str, folder: Path, typed: TypeIn
) -> None:
    local, memory = (typed(main, words, texts) for texts in (str(folder), "memory://places"))
    assert memory and memory == local


def test_compare_and_calibrate_read_the_same_texts_in_memory(folder: Path) -> None:
    measured = {"model": "m", "max_drop": 1.0}, {"model": "m"}
    for schema, settings, role in zip((CalibrateConfig, CompareConfig), measured, ("dev", "test"), strict=True):
        local, memory = (
            read_examples(config.data, config, need_label=True, role=role).examples
            for config in (schema(data=f"{place}/train.tsv", **settings) for place in (folder, "memory://places"))
        )
        assert len(local) == 60
        assert [(example.text, example.label) for example in local] == [(one.text, one.label) for one in memory]

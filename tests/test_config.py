"""Settings: every key by its name and type, mistakes in one clear sentence, and a round trip through YAML."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import itertools
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax import config as config_room
from fastbert_jax import config_yaml
from fastbert_jax.config import (
    BadRow,
    BertConfig,
    DataConfig,
    DistilConfig,
    EvaluateConfig,
    FineTuneConfig,
    KLDirection,
    Mode,
    ModelConfig,
    PhaseConfig,
    Precision,
    PredictConfig,
)
from fastbert_jax.errors import UserError, nearest
from fastbert_jax.recipes import fastbert, official, pkd, recipe_module

CONFIGS = Path(__file__).parent.parent / "configs"


def from_text(tmp_path: Path, text: str) -> fastbert.Settings:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return config_yaml.from_yaml(fastbert.Settings, path)


def refused(tmp_path: Path, text: str) -> str:
    """The message of the error, after the file's name."""
    with pytest.raises(UserError) as error:
        from_text(tmp_path, text)
    place = f"{tmp_path / 'run.yaml'}: "
    assert str(error.value).startswith(place)
    return str(error.value).removeprefix(place)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert from_text(tmp_path, "") == fastbert.Settings() == from_text(tmp_path, "# nothing\n")


def test_yaml_values_reach_their_keys(tmp_path: Path) -> None:
    text = """
run: runs/测试
seed: 7
data: {train: reviews.tsv, labels: [neg, 好], length_buckets: [16, 32], on_bad_row: skip}
model: {precision: bfloat16}
distil: {learning_rate: 2e-4, kl: teacher-student, noisy_teacher: true}
evaluate: {speeds: [0, 0.5, 1], modes: [bucketed]}
"""
    read = from_text(tmp_path, text)
    assert (read.run, read.seed) == ("runs/测试", 7)
    assert read.data == DataConfig(
        train="reviews.tsv", labels=("neg", "好"), length_buckets=(16, 32), on_bad_row=BadRow.SKIP
    )
    assert read.model == ModelConfig(precision=Precision.BFLOAT16)
    assert read.distil == DistilConfig(learning_rate=2e-4, kl=KLDirection.TEACHER_STUDENT, noisy_teacher=True)
    assert read.evaluate == EvaluateConfig(speeds=(0.0, 0.5, 1.0), modes=(Mode.BUCKETED,))
    assert all(type(speed) is float for speed in read.evaluate.speeds)
    assert read.fine_tune == FineTuneConfig()


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")


@given(
    st.builds(
        fastbert.Settings,
        run=st.text(CHARACTERS),
        seed=st.integers(0, 2**63 - 1),
        data=st.builds(
            DataConfig, labels=st.lists(st.text(CHARACTERS), unique=True).map(tuple), max_length=st.integers(8, 512)
        ),
        distil=st.builds(
            DistilConfig,
            learning_rate=st.floats(1e-30, 10),
            kl=st.sampled_from(KLDirection),
            noisy_teacher=st.booleans(),
        ),
        evaluate=st.builds(EvaluateConfig, speeds=st.lists(st.floats(0, 1)).map(tuple)),
    )
)
def test_the_resolved_config_reads_back(original: fastbert.Settings) -> None:
    values = yaml.safe_load(config_yaml.to_yaml(original))
    assert values == config_yaml.to_dict(original)
    assert config_yaml.from_dict(fastbert.Settings, values, where="config.yaml") == original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "unknown key 'sed'; did you mean 'seed'?"),
        ("data: {trian: a.tsv}", "unknown key 'data.trian'; did you mean 'train'?"),
        ("distil: {zzz: 1}", "unknown key 'distil.zzz'; known: '"),
        ("1: 2", "unknown key '1'; known: '"),
        ("seed: one", "seed: expected int, found 'one'"),
        ("seed: 1.5", "seed: expected int, found 1.5"),
        ("seed: true", "seed: expected int, found True"),
        ("seed:", "seed: expected int, found None"),
        ("run: 3", "run: expected str, found 3"),
        ("distil: {noisy_teacher: 1}", "distil.noisy_teacher: expected bool, found 1"),
        ("distil: {learning_rate: fast}", "distil.learning_rate: expected float, found 'fast'"),
        ("distil: {learning_rate: true}", "distil.learning_rate: expected float, found True"),
        ("distil: {kl: both}", "distil.kl: expected one of ['student-teacher', 'teacher-student'], found 'both'"),
        ("distil: {kl: [both]}", "distil.kl: expected one of ['student-teacher', 'teacher-student'], found ['both']"),
        ("data: {labels: neg}", "data.labels: expected a list, found 'neg'"),
        ("data: {labels: [1]}", "data.labels: expected str, found 1"),
        ("evaluate: {modes: [fast]}", "evaluate.modes: expected one of ['auto', 'masked', 'bucketed'"),
        ("data: a.tsv", "expected `key: value` lines under 'data.', found 'a.tsv'"),
        ("data:", "expected `key: value` lines under 'data.', found None"),
        ("- 1", "expected `key: value` lines under 'the top level', found [1]"),
        ("seed: [1", "expected YAML, found"),
        (
            "distil: {cache_teacher: true, noisy_teacher: true}",
            "--distil.cache-teacher: expected false with --distil.noisy-teacher, which changes the answers at every",
        ),
        ("seed: -1", "--seed: expected 0 or more, found -1"),
        ("distil: {epochs: -2}", "--distil.epochs: expected -1 or more, found -2"),
        ("evaluate: {speeds: [2]}", "--evaluate.speeds: expected thresholds in [0, 1], found (2.0,)"),
        ("fine_tune: {teacher_rate: 0}", "--fine-tune.teacher-rate: expected a positive number, found 0.0"),
        ("data: {max_length: 7}", "--data.max-length: expected 8 or more, found 7"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).startswith(message)


def test_what_is_no_file_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="expected a YAML file at '', found: no path"):
        config_yaml.from_yaml(fastbert.Settings, "")
    with pytest.raises(UserError, match=f"expected a YAML file at '{tmp_path}', found: Is a directory"):
        config_yaml.from_yaml(fastbert.Settings, tmp_path)

    def refuse(*arguments: object, **settings: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"expected a YAML file at '.*run\.yaml', found: Permission denied"):
        config_yaml.from_yaml(fastbert.Settings, tmp_path / "run.yaml")


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a YAML file at '.*none\.yaml', found: No such file"):
        config_yaml.from_yaml(fastbert.Settings, tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"run: \xff\xfe")
    with pytest.raises(UserError, match=r"bytes\.yaml: expected YAML, found"):
        config_yaml.from_yaml(fastbert.Settings, tmp_path / "bytes.yaml")


PREDICT = functools.partial(PredictConfig, model="runs/demo")
BERT = {"vocab_size": 10, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "feed_forward_size": 8}


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (BertConfig, BERT | {"num_layers": 0}, "model num_layers: expected 1 to 1000, found 0"),
        (BertConfig, BERT | {"num_heads": 3}, "model hidden_size: expected a multiple of num_heads = 3, found 8"),
        (BertConfig, BERT | {"exit_size": 7}, "model exit_size: expected a multiple of exit_heads = 2, found 7"),
        (BertConfig, BERT | {"num_classes": 1}, "number of classes: expected 2 or more, found 1"),
        (DataConfig, {"dev_fraction": 0.0}, "--data.dev-fraction: expected a share in (0, 0.5], found 0.0"),
        (DataConfig, {"dev_fraction": 0.6}, "--data.dev-fraction: expected a share"),
        (DataConfig, {"max_length": 7}, "--data.max-length: expected 8 or more, found 7"),
        (DataConfig, {"length_buckets": ()}, "--data.length-buckets: expected rising lengths of 4 or more, found ()"),
        (DataConfig, {"length_buckets": (32, 16)}, "--data.length-buckets: expected rising lengths"),
        (DataConfig, {"length_buckets": (3, 16)}, "--data.length-buckets: expected rising lengths"),
        (DataConfig, {"labels": ("a", "a")}, "--data.labels: expected each label once, found ('a', 'a')"),
        (ModelConfig, {"dropout": 1.0}, "--model.dropout: expected a probability in [0, 1), found 1.0"),
        (PhaseConfig, {"epochs": -2}, "epochs: expected -1 or more, found -2"),
        (PhaseConfig, {"batch_size": 0}, "--phase.batch-size: expected 1 or more, found 0"),
        (PhaseConfig, {"batch_size": 8, "accumulate": 3}, "accumulate: expected a divisor of batch_size = 8, found 3"),
        (PhaseConfig, {"accumulate": 0}, "accumulate: expected a divisor"),
        (DistilConfig, {"learning_rate": 0.0}, "learning-rate: expected a positive number, found 0.0"),
        (PhaseConfig, {"learning_rate": float("nan")}, "learning-rate: expected 0 or more, found nan"),
        (DistilConfig, {"warmup": 1.0}, "warmup: expected a share in [0, 1), found 1.0"),
        (PhaseConfig, {"weight_decay": -0.1}, "weight-decay: expected 0 or more, found -0.1"),
        (PhaseConfig, {"clip_norm": -1.0}, "clip-norm: expected 0 or more, found -1.0"),
        (PhaseConfig, {"evaluations_per_epoch": 0}, "evaluations-per-epoch: expected 1 or more, found 0"),
        (EvaluateConfig, {"speeds": (0.5, 1.5)}, "--evaluate.speeds: expected thresholds in [0, 1], found (0.5, 1.5)"),
        (
            EvaluateConfig,
            {"batch_size": -1},
            "--evaluate.batch-size: expected 0 or more, found -1",
        ),
        (
            EvaluateConfig,
            {"batch_sizes": (8, -1)},
            "--evaluate.batch-sizes: expected 1 or more, or 0 to go by batch_tokens, found",
        ),
        (EvaluateConfig, {"batch_sizes": (8, 8)}, "--evaluate.batch-sizes: expected each size once, found (8, 8)"),
        (
            EvaluateConfig,
            {"batch_sizes": (8,), "batch_size": 4},
            "--evaluate.batch-size: expected 0 where batch_sizes are given, found 4",
        ),
        (EvaluateConfig, {"repeats": 0}, "--evaluate.repeats: expected 1 or more, found 0"),
        (PREDICT, {"input": ()}, "--input: expected a tuple of one or more, found ()"),
        (PREDICT, {"input": "a.txt"}, "--input: expected a tuple of one or more, found 'a.txt'"),
        (
            PREDICT,
            {"output": "a.parquet.gz"},
            "--output: expected a .jsonl, .tsv or .csv file, also as .gz or .zst, or",
        ),
        (PREDICT, {"resume": True}, "--resume: expected a file as --output, which can be resumed, found '-'"),
        (
            PREDICT,
            {"process_count": -1},
            "--process-count: expected 0 or more, found -1",
        ),
        (PREDICT, {"process_count": 2}, "--process-index: expected 0 to 1 with --process-count 2, found -1"),
        (
            PREDICT,
            {"process_count": 2, "process_index": 2},
            "--process-index: expected 0 to 1 with --process-count 2, found 2",
        ),
        (PREDICT, {"process_index": 0}, "--process-index: expected -1 without --process-count, found 0"),
    ],
)
def test_values_out_of_their_range(schema: Callable, values: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        schema(**values)


@given(st.integers(8, 600), st.sets(st.integers(4, 600), min_size=1))
def test_static_lengths_rise_to_max_length(max_length: int, buckets: set[int]) -> None:
    lengths = DataConfig(max_length=max_length, length_buckets=tuple(sorted(buckets))).lengths
    assert list(lengths) == sorted(set(lengths)) and lengths[-1] == max_length
    assert set(lengths[:-1]) == {bucket for bucket in buckets if bucket < max_length}


def test_the_name_of_a_choice_stands_for_it_in_every_class_of_settings() -> None:
    needed = {
        "BertConfig": {"vocab_size": 9, "hidden_size": 4, "num_layers": 1, "num_heads": 1, "feed_forward_size": 4}
        | {"exit_size": 4},
        "ConvertConfig": {"input": "a", "vocab": "b", "output": "c"},
        "PrepareConfig": {"verify": "v"},
        "PredictConfig": {"model": "m"},
        "CalibrateConfig": {"model": "m", "data": "d", "max_drop": 1.0},
        "CompareConfig": {"model": "m", "data": "d"},
    }
    rooms = [*(getattr(config_room, name) for name in ("data", "inference", "model", "shared", "training")), pkd]
    found = {one for room in rooms for one in vars(room).values() if dataclasses.is_dataclass(one)}
    tried = 0
    for schema in sorted(found, key=lambda one: one.__name__):
        for key, hint in typing.get_type_hints(schema).items():
            kind = (*typing.get_args(hint), hint)[0]
            if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
                continue
            rest, member, several = needed.get(schema.__name__, {}), [*kind][-1], kind is not hint
            expected = schema(**rest, **{key: (member,) if several else member})
            for given_as in [member.value, *([[member.value], (member.value,)] if several else [])]:
                assert schema(**rest, **{key: given_as}) == expected, (schema, key)
            wrong = member.value[:-1]
            with pytest.raises(UserError, match=rf"{key.replace('_', '-')}: expected .*'{wrong}'; did you mean '"):
                schema(**rest, **{key: wrong})
            tried += 1
    assert tried > 20


def test_a_wrong_choice_is_named_with_its_section_and_the_nearest() -> None:
    for make, message in (
        (lambda: DistilConfig(kl="techer-student"), "--distil.kl: expected one of .* did you mean 'teacher-student'"),
        (lambda: ModelConfig(precision=16), "--model.precision: expected one of .*, found 16; known: 'float32'"),
        (lambda: EvaluateConfig(modes=("masked", "x")), "--evaluate.modes: expected one of .*, found 'x'"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            make()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        fastbert.Settings().seed = 1


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_configs_that_come_along_are_read(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")).get("recipe", "fastbert")
    settings = recipe_module(recipe).Settings
    assert isinstance(config_yaml.from_yaml(settings, path), settings)


def test_plain_values_hold_no_classes() -> None:
    def check(value: object) -> None:
        assert not isinstance(value, enum.Enum | tuple)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            check(item)

    check(config_yaml.to_dict(fastbert.Settings(evaluate=EvaluateConfig(modes=(Mode.MASKED,)))))


def test_the_nearest_name() -> None:
    assert nearest("sede", ["seed", "run"]) == "did you mean 'seed'?"
    assert nearest("xyz", iter(["seed", "run"])) == "known: 'seed', 'run'"


def test_what_is_left_open_is_chosen_by_the_texts_and_the_width() -> None:
    def chosen(**phases: Any) -> tuple[Any, Any]:
        settings = fastbert.Settings(**phases).chosen(train=300, unlabelled=2_000_000, width=768)
        return settings.fine_tune, settings.distil

    fine_tune, distil = chosen()
    assert fine_tune == FineTuneConfig(epochs=10, learning_rate=5e-5) and distil == DistilConfig(epochs=1)
    given = {"fine_tune": FineTuneConfig(epochs=0, learning_rate=3e-5), "distil": DistilConfig(epochs=7)}
    assert chosen(**given) == tuple(given.values())
    few, many = (fastbert.Settings().chosen(train=count, unlabelled=count, width=384) for count in (100, 10_000))
    assert few.fine_tune.epochs > many.fine_tune.epochs > 0 and few.distil.epochs > many.distil.epochs > 0
    assert few.fine_tune.learning_rate == many.fine_tune.learning_rate > fine_tune.learning_rate
    assert FineTuneConfig().chosen(texts=1, width=8).learning_rate == 5e-4


def test_the_official_recipe_sets_what_the_released_code_does_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "official.yaml"
    path.write_text("recipe: official\nfine_tune: {epochs: 2, learning_rate: 1.0e-5}\ndistil: {epochs: 6}\n")
    given = config_yaml.from_yaml(official.Settings, path)
    config = given.resolved
    plain = fastbert.Settings(fine_tune=given.fine_tune, distil=given.distil)
    assert plain.resolved.distil == given.distil
    assert (config.fine_tune.epochs, config.fine_tune.learning_rate, config.distil.epochs) == (2, 1e-5, 6)
    for phase in (config.fine_tune, config.distil):
        assert (phase.weight_decay, phase.clip_norm, phase.bias_correction) == (0, 0, False)
    assert config.distil.kl is KLDirection.TEACHER_STUDENT and config.distil.noisy_teacher
    assert (config.fine_tune.decay_epochs, config.distil.decay_epochs) == (0, 2)
    path.write_text(config_yaml.to_yaml(config))
    assert config_yaml.from_yaml(official.Settings, path).resolved == config


@pytest.mark.parametrize("room", ["data", "inference", "model", "shared", "training"])
def test_every_number_says_its_range_in_the_help(room: str) -> None:
    tree = ast.parse(Path(config_room.__file__).with_name(f"{room}.py").read_text(encoding="utf-8"))
    silent = []
    for schema in ast.walk(tree):
        if not isinstance(schema, ast.ClassDef) or schema.name == "BertConfig":  # which is no command's
            continue
        for key, help_text in itertools.pairwise(schema.body):
            kinds = re.findall(r"\w+", ast.unparse(key.annotation)) if isinstance(key, ast.AnnAssign) else []
            if {"int", "float"} & set(kinds) and "ClassVar" not in kinds:
                if not re.search(r"\d", ast.unparse(help_text)) or not isinstance(help_text, ast.Expr):
                    silent.append(f"{schema.name}.{ast.unparse(key.target)}")
    assert silent == []

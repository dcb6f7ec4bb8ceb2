"""A run directory belongs to one run and one process at a time, and changes of its files are found."""

import dataclasses
import json
import re

import jax.numpy as jnp
import pytest

from fastbert_jax.atomic_files import write_checksums
from fastbert_jax.config import DataConfig, EvaluateConfig, TrainConfig
from fastbert_jax.config_yaml import from_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.training.checkpoints import Checkpoints, Position
from fastbert_jax.training.run_directory import RunDirectory, verify_run

CONFIG = TrainConfig(data=DataConfig(train="a.tsv"))
LABELS = ("neg", "pos")
DATA = {"train": "20 texts, sha256 aa"}


def test_claiming_twice_is_safe_and_keeps_the_settings(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "a")
    run.claim(CONFIG, LABELS, DATA)
    run.claim(CONFIG, LABELS, DATA)
    assert from_yaml(TrainConfig, run.config) == CONFIG
    assert tuple(json.loads(run.labels.read_text())) == LABELS


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunDirectory("~/runs/a")
    run.claim(CONFIG, LABELS, DATA)
    assert run.config == tmp_path / "runs" / "a" / "config.yaml" and run.config.is_file()
    with pytest.raises(UserError, match=f"found none in {re.escape(str(tmp_path))}/runs/b"):
        verify_run("~/runs/b")


def test_a_run_whose_settings_name_the_text_column_as_one_name_is_resumed(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    for written, given in (("''", ()), ("body", "body"), ("body", ("body",))):
        text = re.sub(r"text_column:.*", f"text_column: {written}", run.config.read_text())
        run.config.write_text(text.replace("  exclude_labels: []\n", ""))
        run.claim(TrainConfig(data=DataConfig(train="a.tsv", text_column=given)), LABELS, DATA)
        assert f"text_column: {written}\n" in run.config.read_text()  # as it was written


def test_rows_that_were_left_out_are_listed_and_nothing_where_there_are_none(tmp_path):
    run = RunDirectory(tmp_path)
    run.list_rejected([])
    assert not list(tmp_path.iterdir())
    rows = [Unreadable("größe.csv:3", "expected 2 columns, found 1"), Unreadable("a\udcff.csv:4", "expected a label")]
    run.list_rejected(rows)
    lines = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert [Unreadable(**json.loads(line)) for line in lines] == rows
    with pytest.raises(UserError, match=r"rejected\.jsonl: cannot list the rows left out: No such file"):
        RunDirectory(tmp_path / "nowhere").list_rejected(rows)


def test_two_do_not_train_in_it_at_once(tmp_path):
    run = RunDirectory(tmp_path)
    with run.locked(), pytest.raises(UserError, match="is locked by another process"), run.locked():
        pass
    run.claim(CONFIG, LABELS, DATA)  # the lock alone does not make it a run's directory
    (tmp_path / ".model.7.unfinished").mkdir()
    with run.locked():
        assert not (tmp_path / ".model.7.unfinished").exists()


def test_settings_of_the_evaluation_may_change(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    run.claim(dataclasses.replace(CONFIG, evaluate=EvaluateConfig(speeds=(0.2,))), LABELS, DATA)
    assert from_yaml(TrainConfig, run.config) == CONFIG


def test_other_settings_are_refused_with_every_difference(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    other = dataclasses.replace(CONFIG, seed=1, data=DataConfig(train="b.tsv"))
    with pytest.raises(UserError) as error:
        run.claim(other, LABELS, DATA)
    assert "seed: there 0, now 1" in str(error.value)
    assert "data.train: there 'a.tsv', now 'b.tsv'" in str(error.value)
    assert "another --run" in str(error.value)


def test_other_labels_are_refused(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    with pytest.raises(UserError, match=r"expected \['pos', 'neg'\], found \['neg', 'pos'\]"):
        run.claim(CONFIG, ("pos", "neg"), DATA)


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"expected an empty or a run's directory, found \['thesis.tex'\]"):
        RunDirectory(tmp_path).claim(CONFIG, LABELS, DATA)


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--run .*: cannot write there: File exists"):
        RunDirectory(tmp_path / "file").claim(CONFIG, LABELS, DATA)


def test_other_texts_are_refused(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    with pytest.raises(UserError, match="the data has changed since the run began"):
        run.claim(CONFIG, LABELS, {"train": "19 texts, sha256 bb"})


@pytest.mark.parametrize("left", ["labels.json", ".labels.json.7.unfinished", ".config.yaml.7.unfinished", "data.json"])
def test_a_claim_that_was_cut_short_is_claimed_again(tmp_path, left):
    (tmp_path / left).write_text("[")
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    assert json.loads(run.labels.read_text()) == list(LABELS)
    assert json.loads(run.data.read_text()) == DATA
    assert from_yaml(TrainConfig, run.config) == CONFIG


def test_a_run_without_its_labels_is_refused(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(CONFIG, LABELS, DATA)
    run.labels.unlink()
    with pytest.raises(UserError, match=r"labels.json: expected what the run began with, found .* begin a new --run"):
        run.claim(CONFIG, LABELS, DATA)


@pytest.fixture
def saved(tmp_path) -> RunDirectory:
    """A run with two checkpoints and a model."""
    directory = RunDirectory(tmp_path / "run")
    directory.model.mkdir(parents=True)
    directory.config.write_text("seed: 0")
    (directory.model / "model.safetensors").write_bytes(bytes(1000))
    write_checksums(directory.model)
    checkpoints = Checkpoints(directory.checkpoints)
    for step in (1, 2):
        position = Position("distil", step, None, None)
        checkpoints.save(step, {"weights": jnp.arange(64.0)}, position, rank=None)
    checkpoints.wait()
    checkpoints.close()
    return directory


def test_a_whole_run_is_whole_and_may_be_calibrated(saved):
    (saved.model / "calibration.json").write_text("{}")
    assert verify_run(saved.path).endswith("whole: checkpoint 2, checkpoint 1, model")


def test_what_has_changed_is_named_beside_what_has_not(saved):
    (saved.model / "model.safetensors").write_bytes(bytes(999) + b"\x01")
    (saved.checkpoints / "1" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError) as error:
        verify_run(saved.path)
    message = str(error.value)
    assert "model.safetensors: expected the file that was saved, found other bytes" in message
    assert "checkpoints/1" in message and message.endswith("whole: checkpoint 2")


def test_the_teachers_answers_are_looked_at_when_they_are_complete(saved):
    saved.teacher_answers.mkdir()
    (saved.teacher_answers / "logits.npy").write_bytes(bytes(100))
    assert verify_run(saved.path).endswith("whole: checkpoint 2, checkpoint 1, model")
    write_checksums(saved.teacher_answers)
    assert verify_run(saved.path).endswith("whole: checkpoint 2, checkpoint 1, model, teacher's answers")
    (saved.teacher_answers / "logits.npy").write_bytes(bytes(99) + b"\x01")
    with pytest.raises(UserError, match="logits.npy: expected the file that was saved, found other bytes"):
        verify_run(saved.path)


def test_a_checkpoint_whose_checksums_were_not_written_is_said(saved):
    (saved.checkpoints / "2" / "files.json").unlink()
    words = verify_run(saved.path)
    assert words.startswith("checkpoint 2: cannot be checked, it has no files.json\n")
    assert words.endswith("whole: checkpoint 1, model")


def test_no_run_and_no_checksums_are_said(saved, tmp_path):
    with pytest.raises(UserError, match="expected the directory of a run"):
        verify_run(tmp_path)
    (saved.model / "files.json").unlink()
    with pytest.raises(UserError, match="files.json: expected checksums of files, found"):
        verify_run(saved.path)

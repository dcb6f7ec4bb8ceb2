"""The tutorial's tickets: what is in the file, and from it to joined answers in four commands without a setting."""

from __future__ import annotations

import collections
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

import infer
import train
from fastbert_jax.model import sharding
from fastbert_jax.text.examples import Example
from fastbert_jax.text.labelled_data import tfidf_svm_right
from fastbert_jax.training import run
from tests.pages import ROOT, shell_lines
from tests.test_first_minutes import SIZES

TUTORIAL = ROOT / "docs" / "tutorial.md"


def make(*arguments: str) -> None:
    """Run the script in the working directory."""
    subprocess.run([sys.executable, ROOT / "examples" / "make_tickets.py", *arguments], check=True)


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def follow(type_in: Callable[[list[str]], None]) -> None:
    """Type the tutorial's commands on the tickets, and run its code that joins the answers."""
    lines = [line for line in shell_lines(TUTORIAL) if "runs/tickets" in line]
    assert [line.split()[:3] for line in lines] == [["python", "train.py", "--run"], ["python", "infer.py", "predict"]]
    for line in lines:
        type_in(line.split()[1:])
    (code,) = re.findall(r"```python\n(import csv\n.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})


def in_this_process(words: list[str]) -> None:
    """Run a command on one device, a training with little."""
    script, settings = (train, SIZES) if words[0] == "train.py" else (infer, ("--devices", "1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))
        patch.setattr("sys.argv", [*words, *settings])
        script.main()


def as_a_user(words: list[str]) -> None:
    """Run a command with nothing added, and without the tests' flags, with which XLA compiles fast and slow code."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, ROOT / words[0], *words[1:]], check=True, env=environment)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tickets_are_those_of_the_seed_and_neither_trivial_nor_impossible(here: Path) -> None:
    make("tickets.csv", "--planted", "planted.csv")
    make("again.csv")
    make("others.csv", "--seed", "1")
    tickets, planted = rows_of("tickets.csv"), {row["id"]: row["category"] for row in rows_of("planted.csv")}
    assert Path("again.csv").read_bytes() == Path("tickets.csv").read_bytes() != Path("others.csv").read_bytes()
    assert len({row["id"] for row in tickets}) == 3000 and len(planted) == 120
    assert all(row["category"] != planted[row["id"]] for row in tickets if row["id"] in planted)
    sizes = collections.Counter(row["category"] for row in tickets).values()
    assert len(sizes) == 7 and max(sizes) > 5 * min(sizes) > 500
    assert 900 < sum(row["language"] == "de" for row in tickets) < 1100
    for mark in '\n",ü':
        assert sum(mark in row["message"] for row in tickets) > 100, mark
    right = [Example(row["message"], planted.get(row["id"], row["category"]), "") for row in tickets]
    given = [Example(row["message"], row["category"], "") for row in tickets]
    assert 0.85 < tfidf_svm_right(given[:2400], right[2400:]).mean() < 0.93


def test_from_tickets_to_joined_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("tickets.csv", "--tickets", "300")
    follow(in_this_process)
    said = capsys.readouterr()
    assert "tickets.csv: text in 'message', label in 'category'." in said.out
    assert "tickets.csv: text in 'message', as in training." in said.err
    assert re.search(
        r"^speed [\d.]+, recommended for this model: chosen on 30 texts of the run's dev set$", said.err, re.M
    )
    tickets, joined, answers = rows_of("tickets.csv"), rows_of("joined.csv"), rows_of("answers.csv")
    assert [{**row, "answer": answer["label"]} for row, answer in zip(tickets, answers, strict=True)] == joined
    lines = Path("tickets.csv").read_text(encoding="utf-8").splitlines()
    listed = rows_of("runs/tickets/mislabelled.csv")
    assert listed
    for row in listed:
        name, _, line = row["place"].rpartition(":")
        ticket = next(ticket for ticket in tickets if ticket["id"] == lines[int(line) - 1].split(",")[0])
        assert name == "tickets.csv" and row["label"] == ticket["category"] != row["suggested"]
        assert row["text"] == " ".join(ticket["message"].split())


@pytest.mark.slow
def test_the_planted_labels_are_found_and_the_linear_baseline_is_beaten_or_said_to_be_better(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make("tickets.csv", "--planted", "planted.csv")
    follow(as_a_user)
    lines = Path("tickets.csv").read_text(encoding="utf-8").splitlines()
    planted = {row["id"] for row in rows_of("planted.csv")}
    listed = rows_of("runs/tickets/mislabelled.csv")[: len(planted)]
    found = [lines[int(row["place"].rpartition(":")[2]) - 1].split(",")[0] in planted for row in listed]
    assert sum(found) >= 0.7 * len(planted)
    comparison = json.loads(Path("runs/tickets/comparison.json").read_text())
    full, baseline = comparison["batch_sizes"][0]["rows"][0]["accuracy"], comparison["baseline_accuracy"]
    assert full > baseline or "than TF-IDF + linear SVM" in capfd.readouterr().out
    assert comparison["recommended"]["mean_depth"] < 6

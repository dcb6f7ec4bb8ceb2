"""The first minutes of a new user: a file of one's own, three commands, no manual."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

import infer
import train
from fastbert_jax.model import sharding
from fastbert_jax.training import run

SIZES = (
    "--model.pretrained=random --model.hidden-size=16 --model.num-layers=2 --model.num-heads=2 --model.exit-size=8 "
    "--model.feed-forward-size=16 --model.vocab-size=80 --data.max-length=16 --data.length-buckets=16 "
    "--fine-tune.epochs=1 --distil.epochs=1 --evaluate.repeats=1 --evaluate.speeds=0.5"
).split()
HEADER = '"Kd.-Nr.";"Käufer schreibt";Urteil'


def write(path: Path, rows: list[str]) -> Path:
    """A file as a German spreadsheet saves it: byte order mark, semicolons, quotes, line ends of its own."""
    path.write_bytes(b"\xef\xbb\xbf" + "".join(f"{row}\r\n" for row in (HEADER, *rows)).encode())
    return path


def opinions(count: int) -> list[str]:
    forms = ('"Der Film; er war {0}, ""wirklich"" {0} Nr. {1}"', "Ein ganz und gar {0}er Film Nr. {1}")
    made = []
    for number in range(count):
        word, label = (("gut", "Empfehlung"), ("öde", "Warnung"))[number % 2]
        made.append(f"{1000 + number};{forms[number // 2 % 2].format(word, number)};{label}")
    return made


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Run a script as its command line does, on one device: programs for eight compile slowly."""
    monkeypatch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))

    def call(script, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", [f"{script.__name__}.py", *map(str, arguments)])
        script.main()

    return call


@pytest.mark.slow
def test_three_commands(tmp_path: Path, command, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write(tmp_path / "mine.csv", [*opinions(40), "1040;eine Zelle zu wenig"])
    command(train, "--run", tmp_path / "run", "--data.train", mine, "--data.on-bad-row", "skip", *SIZES)
    said = capsys.readouterr().out
    assert "mine.csv (semicolons between its columns): text in 'Käufer schreibt', label in 'Urteil'." in said
    assert "Guessed from the contents of 'Käufer schreibt' and 'Urteil'; name others with --text-column" in said
    for part in ("dev", "test"):
        assert f"There is no {part} set: 4 of 40 training rows were cut off as {part} (--data.{part} names one" in said
    assert "1 row left out, because they could not be read; the first:" in said and "4 texts, 2 layers" in said
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == ["Empfehlung", "Warnung"]
    (rejected,) = map(json.loads, (tmp_path / "run" / "rejected.jsonl").read_text().splitlines())
    assert rejected == {"where": f"{mine}:42", "problem": "expected 3 columns, found 2"}

    new = write(tmp_path / "new.csv", [row.rpartition(";")[0] + ";" for row in opinions(3)])
    answers = tmp_path / "answers.jsonl"
    command(infer, "predict", "--model", tmp_path / "run", "--input", new, "--output", answers, "--devices", 1)
    said = capsys.readouterr().err
    assert "new.csv (semicolons between its columns): text in 'Käufer schreibt', as in training." in said
    labels = [json.loads(line)["label"] for line in answers.read_text().splitlines()]
    assert len(labels) == 3 and set(labels) <= {"Empfehlung", "Warnung"}  # fewer texts than a batch

    test = write(tmp_path / "test.csv", opinions(8))
    command(infer, "compare", "--model", tmp_path / "run", "--data", test, "--speeds", 0.5, "--modes", "cascade")
    table = capsys.readouterr().out
    assert "full depth" in table and "cascade" in table and "8 texts, 2 layers" in table

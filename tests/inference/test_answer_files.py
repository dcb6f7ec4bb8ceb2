"""The formats of answers: what their parts give when they are joined, whatever the labels hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastbert_jax.inference.answer_files import AnswerFormat
from fastbert_jax.inference.predictor import Prediction
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.readers import open_table

LABELS = ('say "no", or\tnot', "好")
ANSWER = Prediction(LABELS[0], np.array([0.7, 0.3], np.float32), 2, 0.1)
UNREADABLE = Unreadable("b\udcffd.txt:3", "no\ttext")
ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".jsonl.gz", ".tsv.zst", ".CSV.GZ", ".parquet")


def written(path: Path, *chunks: list) -> Path:
    form = AnswerFormat.of(str(path), LABELS)
    parts = [path.with_name(f"part{number}") for number in range(len(chunks))]
    for part, answers in zip(parts, chunks, strict=True):
        part.write_bytes(form.part(answers))
    with open(path, "wb") as stream:
        form.join(parts, stream)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_joined_parts_are_one_file_with_every_row(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"a{ending}", [ANSWER, UNREADABLE], [ANSWER])
    if ending == ".json":
        path = path.rename(tmp_path / "a.jsonl")
    with open_table(path) as table:
        rows = [row.values for row in table.rows(("label", "error"))]
    errors = [row.get("error") for row in rows]
    assert [bool(error) for error in errors] == [False, True, False]
    assert errors[1].replace("\t", " ") == r"b\udcffd.txt:3: no text".replace(
        r"\udcff", "\udcff" if ".json" in ending else r"\udcff"
    )
    labels = [row.get("label") for row in rows]
    expected = " ".join(LABELS[0].split()) if ".tsv" in ending else LABELS[0]
    assert labels[0] == labels[2] == expected and not labels[1]


def test_a_json_record(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.jsonl", [ANSWER, UNREADABLE]).read_text().splitlines()
    assert json.loads(first) == {
        "label": LABELS[0],
        "probabilities": {LABELS[0]: 0.7, LABELS[1]: 0.3},
        "exit_layer": 2,
        "uncertainty": 0.1,
    }
    assert "好" in first and list(json.loads(second)) == ["error"]
    assert AnswerFormat.of("-", LABELS).part([ANSWER]).decode() == first + "\n"


def test_a_parquet_row_keeps_all_digits(tmp_path: Path) -> None:
    (row,) = pq.read_table(written(tmp_path / "a.parquet", [ANSWER])).to_pylist()
    assert row["probability of 好"] == float(np.float32(0.3)) and row["error"] is None

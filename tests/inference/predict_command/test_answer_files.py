"""The forms of answers: what their pieces give when they are joined, whatever the labels hold."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastbert_jax.inference.predict_command.answer_files import form_of
from fastbert_jax.inference.prediction import Prediction
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.readers import open_table

LABELS = ('say "no", or\tnot', "好")
ANSWER = Prediction(LABELS[0], np.array([0.7, 0.3], np.float32), 2, 0.1)
UNREADABLE = Unreadable("b\udcffd.txt:3", "no\ttext")
ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".jsonl.gz", ".tsv.zst", ".CSV.GZ", ".parquet")


def written(path: Path, *pieces: list) -> Path:
    form = form_of(str(path), LABELS)
    joined = form.header() + b"".join(form.piece(outcomes) for outcomes in pieces)
    path.write_bytes(joined)
    if form.converts:
        stream = io.BytesIO()
        form.convert(path, stream)
        path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_joined_pieces_are_one_file_with_every_row(tmp_path: Path, ending: str) -> None:
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
    assert form_of("-", LABELS).piece([ANSWER]).decode() == first + "\n"


def test_a_parquet_row_keeps_all_digits(tmp_path: Path) -> None:
    (row,) = pq.read_table(written(tmp_path / "a.parquet", [ANSWER])).to_pylist()
    assert row["probability of 好"] == float(np.float32(0.3)) and row["error"] is None

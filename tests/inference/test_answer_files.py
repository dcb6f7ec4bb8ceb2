"""The formats of answers: what their parts give when they are joined, whatever the labels hold."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.inference.answer_files import AnswerFormat
from fastbert_jax.inference.prediction import Prediction
from fastbert_jax.text.examples import Example, Unreadable
from fastbert_jax.text.readers import open_table

LABELS = ('say "no", or\tnot', "好")
ANSWER = Prediction(LABELS[0], np.array([0.7, 0.3], np.float32), 2, 0.1, LABELS)
UNREADABLE = Unreadable("b\udcffd.txt:3", "no\ttext")
ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".jsonl.gz", ".tsv.zst", ".CSV.GZ", ".parquet")


def part_of(form: AnswerFormat, found: list, *, kept: tuple = (), first: int = 1) -> bytes:
    """The part of rows that could be read, each with its answer, and of rows that could not."""
    rows = [
        dataclasses.replace(one, kept=kept) if isinstance(one, Unreadable) else Example("", None, "a", kept)
        for one in found
    ]
    return form.part(rows, (one for one in found if isinstance(one, Prediction)), first=first)


def written(path: Path, *chunks: list, kept: tuple = (), **settings: object) -> Path:
    form = AnswerFormat.of(str(path), LABELS, **settings)
    parts = [path.with_name(f"part{number}") for number in range(len(chunks))]
    first = 1
    for part, answers in zip(parts, chunks, strict=True):
        part.write_bytes(part_of(form, answers, kept=kept, first=first))
        first += len(answers)
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
        "row": 1,
        "label": LABELS[0],
        "probabilities": {LABELS[0]: 0.7, LABELS[1]: 0.3},
        "exit_layer": 2,
        "uncertainty": 0.1,
    }
    assert "好" in first and list(json.loads(second)) == ["row", "error"] and json.loads(second)["row"] == 2
    assert part_of(AnswerFormat.of("-", LABELS), [ANSWER]).decode() == first + "\n"
    assert json.loads(json.dumps({"row": 1} | ANSWER.to_dict())) == json.loads(first)


def test_a_parquet_row_keeps_all_digits(tmp_path: Path) -> None:
    (row,) = pq.read_table(written(tmp_path / "a.parquet", [ANSWER])).to_pylist()
    assert row["probability of 好"] == float(np.float32(0.3)) and row["error"] is None


KEPT = {
    "id": 7,
    "label": "the true one",
    "probability of 好": None,
    "parts": ["a", {"b": float("nan")}],
    "day": datetime.date(2024, 1, 1),
}
NAMES = ["id", "input_label", "input_probability of 好", "parts", "day"]


@pytest.mark.parametrize("ending", [".jsonl", ".tsv", ".csv.gz", ".parquet"])
def test_kept_columns_are_in_every_record_under_names_of_their_own(tmp_path: Path, ending: str) -> None:
    kept, keep = tuple(KEPT.values()), tuple(KEPT)
    path = written(tmp_path / f"a{ending}", [ANSWER, UNREADABLE], [ANSWER], kept=kept, keep=keep)
    with open_table(path) as table:
        rows = [row.values for row in table.rows(("row", *NAMES, "label"))]
    assert [int(row["row"]) for row in rows] == [1, 2, 3]
    expected = {"id": 7, "parts": ["a", {"b": None}], "day": "2024-01-01"}
    if ending != ".jsonl":
        expected = {"id": "7", "parts": '["a", {"b": null}]', "day": "2024-01-01"}
    for row in rows:
        assert {name: row[name] for name in expected} == expected
        assert row["input_label"] == "the true one" and not row["input_probability of 好"]
    assert rows[0]["label"].startswith("say")
    with pytest.raises(UserError, match=r"--keep: expected columns that keep their names apart, found \['input_label'"):
        AnswerFormat.of("a.tsv", LABELS, keep=("label", "input_label"))


@pytest.mark.parametrize("ending", [".jsonl", ".tsv", ".csv", ".parquet"])
def test_probabilities_of_the_top_labels_or_of_none(tmp_path: Path, ending: str) -> None:
    for top in (1, 2, 9):
        path = written(tmp_path / f"a{ending}", [ANSWER, UNREADABLE], top=top)
        with open_table(path) as table:
            columns = table.columns
            first = next(iter(table.rows(columns))).values
        if ending == ".jsonl":
            assert list(first["probabilities"].items()) == [(LABELS[0], 0.7), (LABELS[1], 0.3)][:top]
        else:
            ranks = [f"{what} {rank}" for rank in range(1, min(top, 2) + 1) for what in ("label", "probability")]
            assert list(columns) == ["label", "exit_layer", "uncertainty", *ranks, "row", "error"]
            assert float(first["probability 1"]) == pytest.approx(0.7) and first["label 1"] == first["label"]
    path = written(tmp_path / f"b{ending}", [ANSWER, UNREADABLE], probabilities=False)
    with open_table(path) as table:
        assert sorted(table.columns) == ["error", "exit_layer", "label", "row", "uncertainty"]

"""The predict command: its forms, what a stop leaves and how it goes on, and several files."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.config import BadRow, ExitConfig, MeshConfig, Mode, PredictConfig, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference import answer_files, loading, predict_command
from fastbert_jax.inference.predict_command import Row, checksum_of, predict
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.text.examples import Example, Unreadable, chunks
from fastbert_jax.text.filesystem import open_bytes
from fastbert_jax.text.readers import open_table
from tests.inference.saved import LABELS, save_tiny_model, some_texts
from tests.training.test_checkpoints import room_for

ROWS = 8
"""Rows of a chunk in these tests."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks of few rows, and no model loaded twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_command, "ROWS", ROWS)
        patch.setattr(loading, "load", functools.cache(loading.load))
        yield


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Thirty rows, of which the twentieth has no text."""
    rows = [{"text": text} for text in some_texts(30)]
    rows[19] = {"text": None}
    return write_rows(tmp_path / "texts.jsonl", rows)


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(model: Path, source: Path | str, output: Path, **settings: object) -> bytes:
    """The bytes of the answers, with all bad rows skipped unless something else is asked."""
    common = {"mode": Mode.MASKED, "batch_size": 1, "on_bad_row": BadRow.SKIP, "devices": 1}
    predict(PredictConfig(model=str(model), input=(str(source),), output=str(output), **common | settings))
    return output.read_bytes()


def beside(path: Path) -> list[str]:
    return sorted(child.name for child in path.parent.iterdir() if child.name.startswith((path.name, f".{path.name}")))


@contextlib.contextmanager
def stopped_after(chunks: int, error: type[BaseException] = RuntimeError) -> Iterator[None]:
    """Something ends the command after so many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        count = iter(range(chunks))
        plan = Predictor.plan

        def stop(self: Predictor, *arguments: object, **settings: object) -> object:
            if next(count, None) is None:
                raise error
            return plan(self, *arguments, **settings)

        patch.setattr(Predictor, "plan", stop)
        with pytest.raises(error):
            yield


def test_all_forms_hold_the_same_records(model: Path, texts: Path, tmp_path: Path, capsys) -> None:
    records = [json.loads(line) for line in answer(model, texts, tmp_path / "a.jsonl").splitlines()]
    assert len(records) == 30 and ["error" in record for record in records] == [row == 19 for row in range(30)]
    assert records[19]["error"] == f"{texts}:20: expected a text, found none (null)"
    for compression in (".gz", ".zst"):
        packed = tmp_path / f"a.jsonl{compression}"
        answer(model, texts, packed)
        with open_bytes(packed) as stream:
            assert stream.read() == (tmp_path / "a.jsonl").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()

    columns = ("label", "exit_layer", "uncertainty", *(f"probability of {label}" for label in LABELS), "row", "error")
    for ending in (".tsv", ".csv", ".csv.zst"):
        answer(model, texts, tmp_path / f"a{ending}")
        with open_table(tmp_path / f"a{ending}") as table:
            assert table.columns == columns
            rows = [row.values for row in table.rows(columns)]
        assert [as_record(row) for row in rows] == records
    answer(model, texts, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == list(columns)
    assert [str(kind) for kind in table.schema.types] == ["string", "int32", *["float"] * 4, "int64", "string"]
    rows = [
        {key: f"{value:.7g}" if isinstance(value, float) else value for key, value in row.items()}
        for row in table.to_pylist()
    ]
    assert [as_record(row) for row in rows] == records
    assert capsys.readouterr().err.count("1 rows could not be read; their records say why") == 7


def as_record(row: dict) -> dict:
    """A row of a table as the JSON record of the same answer."""
    if row["error"]:
        return {"row": int(row["row"]), "error": row["error"]}
    probabilities = {label: float(row[f"probability of {label}"]) for label in LABELS}
    uncertainty = float(row["uncertainty"])
    return {
        "row": int(row["row"]),
        "label": row["label"],
        "probabilities": probabilities,
        "exit_layer": int(row["exit_layer"]),
        "uncertainty": uncertainty,
    }


def parts_of(output: Path) -> list[Path]:
    """The parts that a stopped command has left of an output."""
    return sorted(output.with_name(f"{output.name}.partial").glob("[0-9]*-*"))


@pytest.mark.parametrize("ending", [".jsonl", ".csv.gz", ".tsv.zst", ".parquet"])
def test_a_stopped_command_is_resumed_to_the_same_bytes(
    model: Path, texts: Path, tmp_path: Path, ending: str, capsys
) -> None:
    whole = answer(model, texts, tmp_path / f"whole{ending}")
    assert beside(tmp_path / f"whole{ending}") == [f"whole{ending}"]
    counts = capsys.readouterr().err
    good = [text for row, text in enumerate(some_texts(30)) if row != 19]
    cut = loading.load(str(model), exits=ExitConfig()).plan(good).truncated_texts
    assert f"1 rows could not be read; their records say why\n{cut} texts have more than 16 tokens and were c" in counts
    output = tmp_path / f"a{ending}"
    for number, error, done in ((1, RuntimeError, 1), (2, KeyboardInterrupt, 3), (0, KeyboardInterrupt, 3)):
        with stopped_after(number, error):
            answer(model, texts, output, resume=True)
        assert beside(output) == [f"a{ending}.partial"] and len(parts_of(output)) == done
    told = capsys.readouterr().err
    assert told.count(f"{output}.partial holds the answers so far; the same command with --resume goes on after") == 3
    (Path(f"{output}.partial") / ".000003-x.1.unfinished").write_bytes(b"as a kill leaves it")
    written = [part.stat().st_mtime_ns for part in parts_of(output)]
    with pytest.raises(ZeroDivisionError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_files.AnswerFormat, "join", lambda *_: 1 / 0)
        answer(model, texts, output, resume=True)
    assert [part.stat().st_mtime_ns for part in parts_of(output)][:3] == written
    assert answer(model, texts, output, resume=True) == whole
    assert beside(output) == [f"a{ending}"]
    assert "30 rows were answered before\n1 rows could not be read" in capsys.readouterr().err


def test_a_bad_row_is_stopped_at_and_the_command_resumed_when_it_is_mended(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.jsonl"
    with pytest.raises(UserError, match=r"texts\.jsonl:20: expected a text, found none"):
        answer(model, texts, output, on_bad_row=BadRow.STOP)
    assert len(parts_of(output)) == 2
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    rows[19] = {"text": "mended"}
    write_rows(texts, rows)
    mended = answer(model, texts, output, resume=True, on_bad_row=BadRow.STOP)
    assert mended == answer(model, texts, tmp_path / "whole.jsonl") and b"error" not in mended


def test_other_settings_are_refused_and_rows_that_changed_are_answered_anew(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.jsonl"
    with stopped_after(2):
        answer(model, texts, output)
    there = [part.read_bytes() for part in parts_of(output)]
    other = shutil.copytree(model, tmp_path / "other")
    (other / "config.json").write_text((model / "config.json").read_text() + " ")
    with pytest.raises(
        UserError, match=r"a\.jsonl\.partial: expected the settings .* found speed: there 0\.5, now 0\.25; use"
    ):
        answer(model, texts, output, resume=True, speed=0.25)
    with pytest.raises(UserError, match=r"found model: there '[0-9a-f]{64}', now '[0-9a-f]{64}'; use the same"):
        answer(other, texts, output, resume=True)
    with pytest.raises(UserError, match=r"found mode: there 'masked', now 'cascade'; batch_size: there 1, now 8; use"):
        answer(model, texts, output, resume=True, mode=Mode.CASCADE, batch_size=8)
    with pytest.raises(UserError, match=r"found input: there '.*texts\.jsonl', now '.*b\.jsonl'"):
        answer(model, write_rows(tmp_path / "b.jsonl", [{"text": "a"}]), output, resume=True)
    assert [part.read_bytes() for part in parts_of(output)] == there
    rows = texts.read_text().splitlines(keepends=True)
    for changed in (rows[:3] + rows[2:], rows[1:], rows[:10], [rows[0].replace("}", ' , "x": 1}'), *rows[1:]]):
        with stopped_after(2):
            answer(model, texts, tmp_path / "b.jsonl")
        texts.write_text("".join(changed))
        expected = answer(model, texts, tmp_path / "whole.jsonl")
        assert answer(model, texts, tmp_path / "b.jsonl", resume=True) == expected
        texts.write_text("".join(rows))


def test_without_resume_what_is_left_is_started_over_and_a_complete_file_is_left_alone(
    model: Path, texts: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "a.jsonl"
    with stopped_after(2):
        answer(model, texts, output)
    with stopped_after(0):
        answer(model, texts, output, speed=0.9)
    assert f"{output}.partial: started over; --resume would have kept the answers in it" in capsys.readouterr().err
    assert beside(output) == []  # nothing was done
    whole = answer(model, texts, output)
    assert answer(model, texts, output, resume=True, speed=0.9) == whole
    assert f"{output}: complete, nothing to do; without --resume made anew" in capsys.readouterr().err
    assert answer(model, texts, output, speed=0.9) != whole


def test_a_kill_while_the_parts_are_removed_costs_time_alone(model: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    whole = answer(model, texts, output)
    for removed in ("settings.json", "[0-9]*-*"):
        with stopped_after(2):
            answer(model, texts, output)
        for path in Path(f"{output}.partial").glob(removed):
            path.unlink()
        assert answer(model, texts, output, resume=True) == whole and beside(output) == ["a.jsonl"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_full_disk_keeps_what_is_done(model: Path, texts: Path, tmp_path: Path, ending: str, capsys) -> None:
    whole = answer(model, texts, tmp_path / f"whole{ending}")
    output = tmp_path / f"a{ending}"
    with room_for(len(whole) - 1), pytest.raises(UserError, match=rf"a\{ending}: cannot write the answers there: File"):
        answer(model, texts, output)
    assert parts_of(output) and not output.exists()
    assert f"{output}.partial holds the answers so far; the same command with --resume" in capsys.readouterr().err
    assert answer(model, texts, output, resume=True) == whole
    assert beside(output) == [f"a{ending}"]
    with room_for(100), pytest.raises(UserError, match="File too large"):
        answer(model, texts, tmp_path / f"b{ending}")
    assert beside(tmp_path / f"b{ending}") == []


def test_two_processes_do_not_write_one_file(model: Path, texts: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "a.jsonl"
    plan = Predictor.plan

    def other_command(self: Predictor, *arguments: object, **settings: object) -> object:
        monkeypatch.setattr(Predictor, "plan", plan)
        with pytest.raises(UserError, match=r"a\.jsonl.* is locked by another process"):
            answer(model, texts, output, resume=True)
        return plan(self, *arguments, **settings)

    monkeypatch.setattr(Predictor, "plan", other_command)
    assert len(answer(model, texts, output).splitlines()) == 30


def test_many_files_load_the_model_once_and_finished_ones_are_left_out(
    model: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    for number in range(3):
        (tmp_path / f"in{number}.txt").write_text("\n".join(some_texts(10, seed=number)))
    config = PredictConfig(
        model=str(model),
        input=(f"{tmp_path}/in*.txt",),
        output=f"{tmp_path}/out/{{}}.jsonl",
        mode=Mode.MASKED,
        batch_size=1,
        devices=1,
        resume=True,
    )
    loads: list[object] = []
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda *arguments, **settings: loads.append(0) or load(*arguments, **settings))
    with stopped_after(3):  # two files have two chunks each
        predict(config)
    assert "1 of 3 inputs are answered; --resume leaves them out" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "out")) == ["in0.jsonl", "in1.jsonl.partial"]
    predict(config)
    assert len(loads) == 2
    assert "1 of 3 outputs: complete" in capsys.readouterr().err
    for number in range(3):
        alone = answer(model, tmp_path / f"in{number}.txt", tmp_path / "alone.jsonl")
        assert (tmp_path / "out" / f"in{number}.jsonl").read_bytes() == alone


def test_a_mesh_of_devices_answers_as_one_does(model: Path, tmp_path: Path) -> None:
    texts = tmp_path / "a.txt"
    texts.write_text("\n".join(some_texts(20)))
    expected, found = (
        [json.loads(line) for line in answer(model, texts, tmp_path / "out.jsonl", **devices).splitlines()]
        for devices in ({"devices": 1}, {"devices": 4, "mesh": MeshConfig(fsdp=2)})
    )
    assert [line["label"] for line in found] == [line["label"] for line in expected]
    assert [line["exit_layer"] for line in found] == [line["exit_layer"] for line in expected]


def test_more_answers_than_a_row_group(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(answer_files, "ROW_GROUP", 20)
    (tmp_path / "a.txt").write_text("\n".join(some_texts(50)))
    answer(model, tmp_path / "a.txt", tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_rows == 50 and file.metadata.num_row_groups > 1


KILLED_ENDINGS = (".jsonl", ".jsonl.zst", ".parquet")
KILLED_ROWS = 60 * 32
PROGRAM = """
import functools, sys
from concurrent.futures import ThreadPoolExecutor
from fastbert_jax.config import MeshConfig, Mode, PredictConfig
from fastbert_jax.inference import loading, predict_command

predict_command.ROWS = 32
model, texts, *outputs = sys.argv[1:]
predictor = loading.load(model)
predictor.length_buckets = (16,)  # with full batches, a single program to compile
predictor.predict(["good"] * 32, mode="masked", batch_size=32)
loading.load = lambda *arguments, **settings: predictor

def answer(output):
    settings = {"mode": Mode.MASKED, "batch_size": 32, "resume": True}
    predict_command.predict(PredictConfig(model=model, input=(texts,), output=output, **settings))

with ThreadPoolExecutor() as pool:
    list(pool.map(answer, outputs))
"""


def test_a_killed_process_loses_and_doubles_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(some_texts(KILLED_ROWS)))
    killed, whole = ([tmp_path / f"{name}{ending}" for ending in KILLED_ENDINGS] for name in ("killed", "whole"))
    command = [sys.executable, "-c", PROGRAM, str(model), str(tmp_path / "texts.txt")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with subprocess.Popen([*command, *map(str, killed)], env=environment, stderr=subprocess.PIPE) as process:
        while not all(map(parts_of, killed)):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert all(0 < len(parts_of(output)) < KILLED_ROWS / 32 for output in killed)
    subprocess.run([*command, *map(str, killed + whole)], env=environment, check=True)
    for output, expected in zip(killed, whole, strict=True):
        assert output.read_bytes() == expected.read_bytes(), output.name
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "texts.txt", *killed, *whole])
    with open_bytes(whole[1]) as stream:
        assert stream.read() == whole[0].read_bytes() and whole[0].read_bytes().count(b"\n") == KILLED_ROWS
    assert pq.read_metadata(whole[2]).num_rows == KILLED_ROWS


TEXTS = st.text(max_size=12) | st.tuples(st.text(max_size=6), st.text(max_size=6))
RECORDS = st.lists(
    st.builds(Example, TEXTS, st.none(), st.just("a:1")) | st.builds(Unreadable, st.just("a:1"), st.text())
)


def characters(chunk: list[Row]) -> int:
    return sum(len("".join(row.text)) for row in chunk if isinstance(row, Example))


@given(RECORDS)
def test_chunks_hold_all_rows_and_are_bounded(rows: list[Row]) -> None:
    found = list(chunks(rows, rows=4, characters=20))
    assert [row for chunk in found for row in chunk] == rows
    assert all(1 <= len(chunk) <= 4 and characters(chunk[:-1]) < 20 for chunk in found)
    assert all(len(chunk) == 4 or characters(chunk) >= 20 for chunk in found[:-1])


def test_other_rows_have_another_checksum() -> None:
    chunks = [
        [Example("a", None, "a:1"), Example("b", None, "a:2")],
        [Example("b", None, "a:1"), Example("b", None, "a:2")],
        [Example("ab", None, "a:1"), Example("", None, "a:2")],
        [Example(("a", "b"), None, "a:1"), Example("b", None, "a:2")],
        [Unreadable("a:1", "a"), Example("b", None, "a:2")],
        [Example("a", None, "a:1")],
    ]
    assert len({checksum_of(chunk) for chunk in chunks}) == len(chunks)
    assert checksum_of(chunks[0]) == checksum_of([Example("a", "label", "b:1"), Example("b", None, "b:2")])


def test_every_answer_can_be_joined_to_its_row(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\na1,fine film\n\na2,poor plot\na3,x,y\na4,dull\n")
    records = [
        json.loads(line)
        for line in answer(model, tmp_path / "a.csv", tmp_path / "out.jsonl", keep=("id",)).splitlines()
    ]
    assert [(record["row"], record["id"]) for record in records] == [(1, "a1"), (2, "a2"), (3, None), (4, "a4")]
    assert ["error" in record for record in records] == [False, False, True, False]
    with pytest.raises(UserError, match=r"a\.csv: --keep: expected a column 'idd', found .*; did you mean 'id'\?"):
        answer(model, tmp_path / "a.csv", tmp_path / "out.jsonl", keep=("idd",))
    rows = [{"text": text, "n": number} for number, text in enumerate(some_texts(20))]
    texts = write_rows(tmp_path / "b.jsonl", rows)
    whole = answer(model, texts, tmp_path / "whole.jsonl", keep=("n",), top=1)
    records = [json.loads(line) for line in whole.splitlines()]
    assert [(record["row"], record["n"]) for record in records] == [(n + 1, n) for n in range(20)]
    assert all(list(record["probabilities"]) == [record["label"]] for record in records)
    with stopped_after(1):
        answer(model, texts, tmp_path / "c.jsonl", keep=("n",), top=1)
    with pytest.raises(UserError, match=r"found keep: there \['n'\], now \[\]; top: there 1, now 0; use"):
        answer(model, texts, tmp_path / "c.jsonl", resume=True)
    rows[0]["n"] = "another"  # a value that is kept is a part of the answers
    write_rows(texts, rows)
    resumed = answer(model, texts, tmp_path / "c.jsonl", resume=True, keep=("n",), top=1)
    assert resumed == whole.replace(b'"n": 0,', b'"n": "another",')


def test_the_columns_of_training_are_read(model: Path, tmp_path: Path, capsys) -> None:
    trained = ReadingConfig(text_column="opinion", pair_column="none", label_column="verdict")
    remembers = save_tiny_model(tmp_path / "remembers", reading=trained)
    rows = [
        {"title": first, "opinion": second} for first, second in zip(some_texts(9), some_texts(9, seed=1), strict=True)
    ]
    texts = write_rows(tmp_path / "new.jsonl", rows)
    named = answer(model, texts, tmp_path / "a.jsonl", text_column="opinion")
    assert named != answer(model, texts, tmp_path / "b.jsonl")
    assert f"{texts}: text in 'title'.\n" in capsys.readouterr().err
    assert answer(remembers, texts, tmp_path / "c.jsonl") == named
    assert f"{texts}: text in 'opinion', as in training.\n" in capsys.readouterr().err
    both = ReadingConfig(text_column=("title", "opinion"), pair_column="none", label_column="verdict")
    joined = write_rows(tmp_path / "joined.jsonl", [{"text": f"{row['title']}\n{row['opinion']}"} for row in rows])
    numbered = write_rows(tmp_path / "numbered.jsonl", [{"id": number, **row} for number, row in enumerate(rows)])
    remembers = save_tiny_model(tmp_path / "several", reading=both)
    answers = [
        json.loads(line) for line in answer(remembers, numbered, tmp_path / "f.jsonl", keep=("id",)).splitlines()
    ]
    assert [one.pop("id") for one in answers] == [*range(9)]
    assert answers == [json.loads(line) for line in answer(model, joined, tmp_path / "g.jsonl").splitlines()]
    assert f"{numbered}: text in 'title' + 'opinion', as in training.\n" in capsys.readouterr().err
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"text_a": "good", "text_b": "bad"}])
    single = ReadingConfig(text_column="text_a", pair_column="none", label_column="label")
    expected = answer(model, pairs, tmp_path / "d.jsonl", pair_column="none")
    remembers = save_tiny_model(tmp_path / "single", reading=single)
    assert answer(remembers, pairs, tmp_path / "e.jsonl") == expected


def test_all_inputs_and_outputs_are_checked_before_the_first_row_is_answered(
    model: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Predictor, "plan", lambda *_: pytest.fail("a row was answered"))
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.tsv").write_text("x\ty\n1\t2\n")
    (tmp_path / "c.json").write_text("{}")
    for other, message in (
        ("b.tsv", r"b\.tsv: expected (a text|one) column"),
        ("c.json", "c.json"),
        ("d.txt", "found nothing at .*d.txt"),
    ):
        config = {"input": (f"{tmp_path}/a.txt", f"{tmp_path}/{other}"), "output": f"{tmp_path}/out/{{}}.jsonl"}
        with pytest.raises(UserError, match=message):
            predict(PredictConfig(model=str(model), **config))
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out" / "e.jsonl").mkdir()
    (tmp_path / "out" / "f.jsonl").symlink_to(tmp_path / "out" / "g.jsonl")
    (tmp_path / "e.txt").write_text("good")
    (tmp_path / "f.txt").write_text("good")
    (tmp_path / "g.txt").write_text("good")
    for other, message in (
        ("e.txt", r"out/e\.jsonl: cannot write the answers there: it is a directory"),
        ("[fg].txt", r"f\.jsonl' and '.*g\.jsonl' are links to one file"),
    ):
        with pytest.raises(UserError, match=message):
            predict(
                PredictConfig(model=str(model), input=(f"{tmp_path}/{other}",), output=f"{tmp_path}/out/{{}}.jsonl")
            )
    for name, message in (
        (f"{'x' * 300}.jsonl", "File name too long"),
        (f"{'x' * 240}.jsonl", "File name too long"),  # the file could be there, but not its unfinished form
        ("a.txt/b.jsonl", "Not a directory"),
    ):
        for resume in (False, True):
            with pytest.raises(UserError, match=f"cannot write the answers there: .*{message}"):
                answer(model, tmp_path / "a.txt", tmp_path / name, resume=resume)
    for place in ("gs://bucket/a.jsonl", "s3://bucket/{}.jsonl", "memory://a.jsonl", "file:///tmp/a.jsonl", "a\0.tsv"):
        with pytest.raises(UserError, match="--output: expected a local path"):
            answer(model, tmp_path / "a.txt", place)


def test_a_link_stays_and_its_target_gets_the_answers(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good\nbad")
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "a.jsonl", tmp_path / "elsewhere" / "b.jsonl"
    link.symlink_to(target)
    for _ in range(2):  # a target that is not there, and one that is
        whole = answer(model, tmp_path / "a.txt", link)
        assert link.is_symlink() and not target.is_symlink() and target.read_bytes() == whole
        assert sorted(tmp_path.iterdir()) == [link, tmp_path / "a.txt", tmp_path / "elsewhere"]

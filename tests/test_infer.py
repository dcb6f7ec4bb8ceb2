"""infer.py as a user runs it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastbert_jax
from tests.inference.saved import LABELS, save_tiny_model, some_texts

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
TEXTS = [*some_texts(12), "", "the very bad actor"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("run") / "model").parent


def infer(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", str(ROOT / "infer.py"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, env=ENVIRONMENT, capture_output=True, check=False, timeout=300)


def records(text: bytes | str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_stdin_to_stdout(model: Path) -> None:
    done = infer("predict", "--model", model, "--batch-size", 4, stdin="\n".join(TEXTS).encode())
    truncated = fastbert_jax.load(model).plan(TEXTS, batch_size=4).truncated_texts
    assert done.returncode == 0
    speed, cut, picked = done.stderr.decode().splitlines()
    assert speed.startswith("speed 0.5: the model has no recommended speed; `python infer.py calibrate --model ")
    assert cut == f"{truncated} texts have more than 16 tokens and were cut" and truncated > 0
    assert picked.startswith("auto picked ") and "bucketed (" in picked and picked.endswith("batches)")
    answers = records(done.stdout)
    assert len(answers) == len(TEXTS)
    for answer in answers:
        assert list(answer) == ["row", "label", "probabilities", "exit_layer", "uncertainty"]
        assert tuple(answer["probabilities"]) == LABELS
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert len({answer["exit_layer"] for answer in answers}) > 1
    assert [answer["row"] for answer in answers] == [*range(1, len(TEXTS) + 1)]


def test_a_bad_row_stops_and_leaves_no_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "good film"}\n{"text": null}\n{"text": "bad"}\n')
    done = infer("predict", "--model", model, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 2
    message = done.stderr.decode()
    assert (
        f"\n{tmp_path / 'in.jsonl'}: text in 'text'.\nerror: " in message
        and "in.jsonl:2: expected a text, found none (null)" in message
    )
    assert "--on-bad-row skip" in message and "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


@pytest.mark.slow
def test_a_skipped_row_keeps_its_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_bytes(b"text\tlabel\ngood film\tx\nbad \xff film\ty\ntoo\tmany\tcells\nbad film\tx\n")
    for ending in ("jsonl", "tsv"):
        output = tmp_path / f"out.{ending}"
        done = infer(
            *("predict", "--model", model, "--input", tmp_path / "in.tsv", "--output", output),
            *("--on-bad-row", "skip", "--mode", "masked", "--speed", 0.9),
        )
        assert done.returncode == 0 and done.stdout == b""
        columns, unread, following = done.stderr.decode().splitlines()
        assert columns == f"{tmp_path / 'in.tsv'}: text in 'text'."
        assert unread == "2 rows could not be read; their records say why"
        assert following == (f"the answers are in {output}; next: python infer.py explain --model {model} 'A TEXT'")
    answers = records((tmp_path / "out.jsonl").read_text())
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert "in.tsv:3: expected UTF-8" in answers[1]["error"]
    assert "in.tsv:4: expected 2 columns, found 3" in answers[2]["error"]
    lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert lines[0][:3] == ["label", "exit_layer", "uncertainty"] and {len(line) for line in lines} == {8}
    assert lines[1][0] == answers[0]["label"] and int(lines[1][1]) == answers[0]["exit_layer"]
    assert lines[2][0] == "" and "expected UTF-8" in lines[2][-1]
    assert float(lines[4][3]) == answers[3]["probabilities"][LABELS[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--speed", 2), "error: --speed: expected a threshold in [0, 1], found 2.0"),
        (("--mode", "fast"), "invalid choice 'fast'"),
        (("--input", "/nowhere/in.txt"), "expected a file, found nothing at /nowhere/in.txt"),
        (
            ("--output", "out.xml"),
            "error: --output: expected a .jsonl, .tsv or .csv file, also as .gz or .zst, or a .parquet file, found",
        ),
        (("--output", "/dev/null/out.tsv"), "/dev/null/out.tsv: cannot write the answers there: Not a directory"),
    ],
)
def test_a_mistake_ends_with_its_message_and_code_2(model: Path, arguments: tuple, message: str) -> None:
    done = infer("predict", "--model", model, *arguments, stdin=b"a text")
    assert done.returncode == 2 and done.stdout == b""
    assert message in done.stderr.decode() and "Traceback" not in done.stderr.decode()


@pytest.mark.slow
def test_compare_prints_the_table(model: Path, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{LABELS[1]}\n" for text in TEXTS))
    done = infer(
        *("compare", "--model", model, "--data", tmp_path / "test.tsv"),
        *(
            "--speeds",
            0.5,
            "--modes",
            "bucketed",
            "--batch-sizes",
            2,
            4,
            "--repeats",
            1,
            "--json",
            tmp_path / "out.json",
            "--report",
            tmp_path / "out.html",
        ),
    )
    lines = done.stderr.decode().splitlines(keepends=True)
    progress = [line for line in lines if line.startswith(("all exits: ", "compare: "))]
    assert {line.split(", ")[-1] for line in progress} >= {"compiling\n", "measuring\n"}
    assert done.returncode == 0 and "".join(line for line in lines if line not in progress) == (
        f"{tmp_path / 'test.tsv'}: text in 'text', label in 'label'.\n"
        f"{tmp_path / 'out.html'}: the report, with plots; open it in a browser\n"
        f"the numbers are in {tmp_path / 'out.json'}; next: python infer.py calibrate --model {model} --data DEV "
        "--max-drop 0.5\n"
    )
    sizes = json.loads((tmp_path / "out.json").read_text())["batch_sizes"]
    assert [size["batch_size"] for size in sizes] == [2, 4]
    assert all([row["mode"] for row in size["rows"]] == ["full depth", "bucketed"] for size in sizes)
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("mode") and lines[2].startswith("batches of 2 texts")
    assert lines[3].startswith("full depth") and lines[4].startswith("bucketed")
    page = (tmp_path / "out.html").read_text()
    assert page.startswith("<!doctype html>") and "How the exits learned" not in page


@pytest.mark.slow
def test_export_writes_a_model_that_predicts_the_same(model: Path, tmp_path: Path) -> None:
    done = infer("export", "--model", model, "--output", tmp_path / "export", "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"{tmp_path / 'export'}: README.md, config.json, fastbert_exits.safetensors")
    ours, theirs = (
        infer("predict", "--model", path, "--mode", "masked", stdin="\n".join(TEXTS).encode()).stdout
        for path in (model, tmp_path / "export")
    )
    assert ours == theirs and len(records(ours)) == len(TEXTS)
    done = infer("export", "--model", model, "--output", tmp_path / "export")
    assert done.returncode == 2 and done.stderr.decode().startswith("error: --output ")


def test_help_tells_every_setting() -> None:
    for command, words in (("predict", "Uncertainty below which a text exits"), ("compare", "SPEC of labelled texts")):
        done = infer(command, "--help")
        assert done.returncode == 0 and words in done.stdout.decode()


@pytest.mark.slow
def test_more_texts_than_one_chunk_and_a_reader_that_has_enough(model: Path) -> None:
    done = infer("predict", "--model", model, stdin=b"good\n" * 5000)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5000)
    command = f"'{sys.executable}' '{ROOT / 'infer.py'}' predict --model '{model}' --mode masked --speed 0.5 | head -1"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, input=b"good\n" * 5000, env=ENVIRONMENT, capture_output=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, b"")


def test_two_processes_answer_all_files_each_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"part{number}.txt").write_text("good film\n" * (5 + number))
    command = [
        *(sys.executable, "-W", "error", str(ROOT / "infer.py"), "predict", "--model", str(model)),
        *("--mode", "masked", "--batch-size", "1"),
        *("--input", f"{tmp_path}/texts/*.txt", "--output", f"{tmp_path}/answers/{{}}.jsonl.gz", "--resume"),
    ]
    environments = [ENVIRONMENT | {"SLURM_NTASKS": "2", "SLURM_PROCID": str(index)} for index in range(2)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for environment in environments]
    told = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    for index, share in enumerate((2, 1)):
        assert f"process {index} of 2 (SLURM_NTASKS and SLURM_PROCID) answers {share} of 3 inputs" in told[index]
    answers = sorted((tmp_path / "answers").iterdir())
    assert [path.name for path in answers] == [f"part{number}.jsonl.gz" for number in range(3)]
    assert [len(records(gzip.decompress(path.read_bytes()))) for path in answers] == [5, 6, 7]


def test_a_process_without_an_input_has_nothing_to_do(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good film")
    done = infer(
        *("predict", "--model", model, "--input", tmp_path / "a.txt", "--output", tmp_path / "a.jsonl"),
        *("--process-count", 2, "--process-index", 1),
    )
    assert (done.returncode, done.stdout) == (0, b"") and not (tmp_path / "a.jsonl").exists()
    assert done.stderr == b"process 1 of 2 answers 0 of 1 inputs: nothing to do\n"


@pytest.mark.slow
def test_explain_shows_the_way_of_each_text_in_words_and_in_json(model: Path) -> None:
    asked = ("explain", "--model", model, "good film", "the actor", "--speed", 0.5)
    words, numbers = infer(*asked), infer(*asked, "--json", "--quiet")
    assert (words.returncode, numbers.returncode, numbers.stderr) == (0, 0, b"")
    next_step = f"a page shows every speed; next: python infer.py explore --model {model}\n"
    assert words.stderr.decode() == next_step
    printed = words.stdout.decode()
    assert "\x1b" not in printed and printed.count("exits: ") == 2
    blocks = printed.strip().split("\n\n")
    answers = fastbert_jax.load(model).predict(["good film", "the actor"], speed=0.5, mode="masked")
    for block, record, answer in zip(blocks, records(numbers.stdout), answers, strict=True):
        assert (record["label"], record["exit_layer"]) == (answer.label, answer.exit_layer)
        text, _, *rows = block.splitlines()
        assert text == record["text"] and len(rows) == len(record["layers"])
        (exits,) = [row.split() for row in rows if "exits: " in row]
        assert exits[:2] == [str(answer.exit_layer), answer.label]


@pytest.mark.slow
def test_json_keeps_standard_output_for_numbers(model: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{LABELS[1]}\n" for text in TEXTS))
    data = ("--model", model, "--data", tmp_path / "dev.tsv", "--repeats", 1)
    compared = infer("compare", *data, "--speeds", 0.5, "--modes", "bucketed", "--json")
    output = ("--output", tmp_path / "compared")
    tabulated = infer("compare", *data, "--speeds", 0.5, "--modes", "cascade", *output, "--baselines", model, "--json")
    calibrated = infer("calibrate", *data, "--max-drop", 100, "--json")
    assert [done.returncode for done in (compared, tabulated, calibrated)] == [0, 0, 0]
    assert json.loads(compared.stdout)["batch_sizes"][0]["rows"][1]["mode"] == "bucketed"
    numbers = json.loads(tabulated.stdout)
    assert numbers == json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert [row["mode"] for row in numbers["batch_sizes"][0]["baselines"]] == [str(model)]
    assert f"tables, numbers and report are in {tmp_path / 'compared'}; next: " in tabulated.stderr.decode()
    kept = json.loads((model / "model" / "calibration.json").read_text())
    assert json.loads(calibrated.stdout) == kept["max-drop=100"]
    following = f"; next: python infer.py predict --model {model} --target max-drop=100 --input TEXTS\n"
    assert calibrated.stderr.decode().endswith(following)
    quiet = infer("calibrate", *data, "--max-drop", 100, "--quiet")
    assert quiet.stderr == b"" and quiet.stdout.startswith(b"target      max-drop=100\n")

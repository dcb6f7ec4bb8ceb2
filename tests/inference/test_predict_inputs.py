"""Inputs, their outputs, and the share of each process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbert_jax.errors import UserError
from fastbert_jax.inference.predict_command import Process, outputs_of, stem_of, this_process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with some files of texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts" / "more").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "c.csv.gz", "more/d.jsonl", "e[1].jsonl"):
        (tmp_path / "texts" / name).write_text("")
    return tmp_path


def test_a_pattern_stands_for_its_files_in_order(folder: Path) -> None:
    outputs = outputs_of(("texts/[ab].jsonl", "texts/c.csv.gz"), "out/{}.csv.zst")
    expected = {f"texts/{name}": f"out/{name[0]}.csv.zst" for name in ("a.jsonl", "b.jsonl", "c.csv.gz")}
    assert list(outputs.items()) == list(expected.items())
    assert list(outputs_of(("texts/**/*.jsonl",), "{}.tsv")) == [
        *("texts/a.jsonl", "texts/b.jsonl", "texts/e[1].jsonl", "texts/more/d.jsonl")
    ]
    assert outputs_of(("texts/e[1].jsonl",), "e.tsv") == {"texts/e[1].jsonl": "e.tsv"}  # a name, no pattern
    assert list(outputs_of(("texts/*",), "{}.tsv"))[-1] == "texts/e[1].jsonl"  # no directory


def test_one_input_needs_no_name_in_its_output(folder: Path) -> None:
    assert outputs_of(("-",), "-") == {"-": "-"}
    assert outputs_of(("texts/a.jsonl",), "out.tsv") == {"texts/a.jsonl": "out.tsv"}
    assert outputs_of(("texts/a.jsonl",), "{}.tsv") == {"texts/a.jsonl": "a.tsv"}


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (("texts/*.jsonl",), "out.tsv", r"expected a name with \{\}, .* for the 3 inputs, found 'out.tsv'; write"),
        (("texts/c*",), "-", r"expected a name with \{\}, .* for the 1 inputs, found '-'"),
        (("a.txt", "b.txt"), "out.tsv", r"expected a name with \{\}"),
        (("texts/*.tsv",), "{}.tsv", r"--input: expected files, found none that match 'texts/\*\.tsv'; check the path"),
        (
            ("x/a.txt", "y/a.csv.gz"),
            "{}.tsv",
            r"--input: x/a\.txt and y/a\.csv\.gz would have the same output, as both are named 'a'",
        ),
        (("a.txt", "a.txt"), "{}.tsv", r"a.txt and a.txt would have the same output"),
        (("texts/a.jsonl",), "texts/../texts/a.jsonl", r"is one of the inputs, or matches them"),
        (("texts/a.jsonl", "texts/b.jsonl"), "texts/{}.jsonl", r"--output: 'texts/a.jsonl' is one of the inputs"),
        (("texts/*.jsonl",), "texts/{}.answers.jsonl", r"--output: 'texts/a.answers.jsonl' is one of the inputs, or m"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(folder: Path, inputs: tuple, output: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        outputs_of(inputs, output)


def test_stems() -> None:
    names = ("texts/a.jsonl.gz", "a.b.TXT", "tfds:glue/sst2#test", "builtin:reuters_r8", "-", "texts/part-0")
    assert [stem_of(name) for name in names] == [
        "a",
        "a.b",
        "tfds_glue_sst2_test",
        "builtin_reuters_r8",
        "stdin",
        "part-0",
    ]


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_input_is_answered_by_one_process(inputs: int, count: int) -> None:
    outputs = {str(number): f"{number}.tsv" for number in range(inputs)}
    shares = [Process(index, count).share(outputs) for index in range(count)]
    assert sorted((name for share in shares for name in share), key=int) == list(outputs)
    assert all(outputs[name] == output for share in shares for name, output in share.items())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_command_then_the_launcher_tells_the_process() -> None:
    slurm = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
    mpi = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    assert this_process(0, -1, {}) == Process(0, 1)
    assert this_process(0, -1, {"SLURM_NTASKS": "4"}) == Process(0, 1)  # a shell inside an allocation
    assert str(this_process(0, -1, slurm)) == "process 3 of 4 (SLURM_NTASKS and SLURM_PROCID)"
    assert (this_process(0, -1, mpi).index, this_process(0, -1, mpi).count) == (1, 2)
    assert this_process(2, 0, slurm | mpi) == Process(0, 2)
    for wrong in ("4", "-1", "x", ""):
        with pytest.raises(
            UserError, match=r"expected SLURM_NTASKS processes, .* found '4' and .*pass --process-count"
        ):
            this_process(0, -1, slurm | {"SLURM_PROCID": wrong})

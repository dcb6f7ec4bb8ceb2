"""The prepare command: one corpus whatever interrupts it and however many make it, and what it says of bad inputs."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest

from fastbert_jax.atomic_files import lock_file
from fastbert_jax.config import BadRow, PrepareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text import prepare as prepare_module
from fastbert_jax.text.corpora import PreparedCorpus, verify
from fastbert_jax.text.prepare import prepare, words
from tests.text.corpora import files_of, preparation, some_texts, write_texts


@pytest.fixture
def prepared(tokenizer_directory, tmp_path):
    def make(output, *inputs, **settings):
        prepare(preparation(tokenizer_directory, tmp_path / output, *inputs, **settings))
        return tmp_path / output

    return make


def assert_refused(match, make, *arguments, **settings):
    with pytest.raises(UserError, match=match):
        make(*arguments, **settings)


def test_a_corpus_holds_what_the_tokenizer_makes_of_the_texts(prepared, tokenizer, tmp_path):
    names = [write_texts(tmp_path / f"{name}.txt", count, seed=count) for name, count in (("a", 120), ("b", 7))]
    directory = prepared("corpus", *names)
    corpus = PreparedCorpus(directory)
    texts = [*some_texts(120, seed=120), *some_texts(7, seed=7)]
    expected, found = tokenizer.encode(texts, max_length=16), corpus.take(np.arange(127))
    for field in ("token_ids", "token_types", "offsets"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    assert corpus.lengths_of(0).tolist() == expected.lengths.tolist()
    assert corpus.truncated_texts == expected.truncated_texts > 0
    assert corpus.truncated_tokens == expected.truncated_tokens
    assert [(shard.name, shard.texts, shard.last) for shard in corpus.manifest.shards] == [
        ("00000-00000", 50, False),
        ("00000-00001", 50, False),
        ("00000-00002", 20, True),
        ("00001-00000", 7, True),
    ]
    assert corpus.manifest.inputs == {str(path): path.stat().st_size for path in names}
    assert "127 texts" in words(corpus.manifest) and "4 shards from 2 inputs" in words(corpus.manifest)


def test_pairs_keep_their_types(prepared, tokenizer, tmp_path):
    pairs = [(text, text[::-1]) for text in some_texts(30)]
    lines = [json.dumps({"text_a": one, "text_b": other}) for one, other in pairs]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    expected = tokenizer.encode(pairs, max_length=16)
    found = PreparedCorpus(prepared("corpus", tmp_path / "a.jsonl")).take(np.arange(30))
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_array_equal(found.token_types, expected.token_types)


def test_several_columns_are_one_text(prepared, tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"subject": "the good", "body": "film"}\n{"subject": null, "body": "bad"}\n')
    settings = {"text_column": ("subject", "body")}
    directory = prepared("corpus", tmp_path / "a.jsonl", **settings)
    found = PreparedCorpus(directory).take(np.arange(2))
    assert found.token_ids.tolist() == tokenizer.encode(["the good film", "bad"], max_length=16).token_ids.tolist()
    prepared("corpus", tmp_path / "a.jsonl", **settings)  # the same again
    assert_refused("text_column: there .*subject", prepared, "corpus", tmp_path / "a.jsonl", text_column="body")
    one = prepared("one", tmp_path / "a.jsonl", text_column="body")
    assert '"text_column": "body"' in (one / "manifest.json").read_text()  # as earlier versions wrote it


def test_two_workers_make_the_same_bytes(prepared, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 110, seed=number) for number in range(3)]
    assert files_of(prepared("one", *names)) == files_of(prepared("two", *names, workers=2))


def test_shares_are_the_corpus_that_one_command_makes(prepared, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 60 + number, seed=number) for number in range(5)]
    whole = prepared("whole", *names)
    for number in (2, 0):
        prepared("shared", *names, share=f"{number}/3")
    assert_refused("expected the shares 0-of-3 to 2-of-3, found no 1-of-3", PreparedCorpus, tmp_path / "shared")
    shares = prepared("shared", *names, share="1/3")
    found, expected = PreparedCorpus(shares), PreparedCorpus(whole)
    assert found.fingerprint == expected.fingerprint
    rows = np.random.default_rng(0).permutation(len(expected))
    np.testing.assert_array_equal(found.take(rows).token_ids, expected.take(rows).token_ids)
    assert words(verify(shares, lambda size, note: None)) == words(expected.manifest)
    of_one, of_all = files_of(shares / "1-of-3"), files_of(whole)
    assert {name.partition("-")[0] for name in of_one.keys() - {"manifest.json"}} == {"00001", "00004"}
    assert of_one.items() - of_all.items() == {("manifest.json", of_one["manifest.json"])}


def test_shares_that_do_not_fit_each_other_are_refused(prepared, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 5, seed=number) for number in range(3)]
    assert_refused(
        "--share: expected at most 3 shares, as there are so many inputs", prepared, "x", *names, share="0/4"
    )
    prepared("shared", *names, share="0/2")
    assert_refused(r"expected an empty directory or that of a corpus, found \['0-of-2'\]", prepared, "shared", *names)
    prepared("shared", *names[:2], share="1/2")
    assert_refused(
        "1-of-2: expected a share made with .* of 0-of-2, .* the same command", PreparedCorpus, tmp_path / "shared"
    )
    prepared("shared", *names, share="0/3")
    assert_refused("expected the shares 0-of-3 to 2-of-3, found also 0-of-2", PreparedCorpus, tmp_path / "shared")
    prepared("whole", *names)
    assert_refused("expected no corpus or its shares, found one that is", prepared, "whole", *names, share="0/2")


@pytest.mark.parametrize("share", ["2/2", "0/0", "1", "-1/2", "a/b"])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UserError, match="--share: expected I/N, such as 0/16, the first of 16, to 15/16, the last"):
        PrepareConfig(input=("a",), output="b", share=share)


def test_a_killed_command_goes_on_and_ends_with_the_same_bytes(prepared, tokenizer_directory, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 500, seed=number) for number in range(2)]
    whole = prepared("whole", *names, shard_texts=20)
    directory = tmp_path / "killed"
    arguments = ["--input", *map(str, names), "--output", str(directory), "--tokenizer", str(tokenizer_directory)]
    arguments += ["--max-length", "16", "--shard-texts", "20", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastbert_jax.text.prepare", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(list(directory.glob("*-*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert_gone(process.pid)
    (directory / ".00000-00000.1.unfinished").write_bytes(b"left by a kill")
    shards = [path.with_suffix(".tokens") for path in directory.glob("*-*.json")]
    assert 3 <= len(shards) < 50
    times = [path.stat().st_mtime_ns for path in shards]
    assert_refused("found one that is being prepared; run the same command again", PreparedCorpus, directory)
    prepared("killed", *names, shard_texts=20)
    assert files_of(directory) == files_of(whole)
    assert [path.stat().st_mtime_ns for path in shards] == times


def assert_gone(group):
    """All processes of a group end by themselves: workers do when their command is killed."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("expected the workers to end with their command")


def test_a_shard_that_is_gone_or_cut_short_is_made_again_and_no_other(prepared, tmp_path):
    name = write_texts(tmp_path / "a.txt", 120)
    directory = prepared("corpus", name)
    whole = files_of(directory)
    first = (directory / "00000-00000.tokens").stat().st_mtime_ns
    (directory / "00000-00001.tokens").write_bytes(b"short")
    (directory / "00000-00002.texts").unlink()
    prepared("corpus", name)
    assert files_of(directory) == whole
    assert (directory / "00000-00000.tokens").stat().st_mtime_ns == first


def test_the_same_command_again_does_nothing(prepared, tmp_path):
    name = write_texts(tmp_path / "a.txt", 120)
    directory = prepared("corpus", name)
    times = {path.name: path.stat().st_mtime_ns for path in directory.glob("*-*")}
    prepared("corpus", name)
    assert {path.name: path.stat().st_mtime_ns for path in directory.glob("*-*")} == times


def test_other_settings_and_other_inputs_are_refused_with_all_differences(prepared, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 5, seed=number) for number in range(2)]
    prepared("corpus", *names)
    assert_refused(
        r"found one with others:\n  max_length: there 16, now 12\n  shard_texts: there 50, now 9\n"
        r"  input .*1.txt: there \d+, now None\nGive the same",
        prepared,
        "corpus",
        names[0],
        max_length=12,
        shard_texts=9,
    )
    assert_refused("the inputs: in another order", prepared, "corpus", *reversed(names))
    write_texts(names[0], 6)
    assert_refused(r"input .*0.txt: there \d+, now \d+", prepared, "corpus", *names)


def test_a_bad_row_stops_with_its_place_or_is_counted(prepared, tmp_path):
    rows = [json.dumps({"text": text}).encode() for text in some_texts(60)]
    rows[20:20], rows[55:55] = [b"{"], [b'{"text": null}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*rows, b'{"text": "\xff"}']))
    assert_refused(r"a\.jsonl:21: expected a JSON object, .*--on-bad-row skip", prepared, "stopped", path)
    corpus = PreparedCorpus(prepared("skipped", path, on_bad_row=BadRow.SKIP))
    assert len(corpus) == 60
    assert [(shard.texts, shard.bad_rows) for shard in corpus.manifest.shards] == [(49, 1), (11, 2)]
    assert "3 rows were left out; the first:" in words(corpus.manifest) and "a.jsonl:21" in words(corpus.manifest)
    (tmp_path / "bad.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    assert_refused(
        r"bad\.jsonl:1: expected a text, .*; none of the rows of .*bad.jsonl can be read",
        prepared,
        "bad",
        tmp_path / "bad.jsonl",
        on_bad_row=BadRow.SKIP,
        text_column="text",
    )


def test_a_bad_row_in_a_worker_stops_all(prepared, tmp_path):
    names = [write_texts(tmp_path / f"{number}.txt", 100, seed=number) for number in range(2)]
    with names[1].open("ab") as stream:
        stream.write(b"\xff\n")
    assert_refused(r"1\.txt:101: expected UTF-8, found the byte 0xff", prepared, "corpus", *names, workers=2)


def test_inputs_may_be_behind_any_scheme_compressed_and_patterns(prepared, tmp_path):
    (tmp_path / "in").mkdir()
    local = [write_texts(tmp_path / "in" / f"{number}.txt", 30, seed=number) for number in range(2)]
    expected = PreparedCorpus(prepared("local", f"{tmp_path}/in/*.txt"))
    for path in local:
        with fsspec.open(f"memory://corpus/{path.name}.gz", "wb", compression="gzip") as stream:
            stream.write(path.read_bytes())
    for output, pattern in (("url", f"file://{tmp_path}/in/*.txt"), ("memory", "memory://corpus/*.gz")):
        found = PreparedCorpus(prepared(output, pattern))
        assert found.fingerprint == expected.fingerprint
    assert list(found.manifest.inputs) == ["memory:///corpus/0.txt.gz", "memory:///corpus/1.txt.gz"]


def test_inputs_and_outputs_that_cannot_be_used(prepared, tmp_path):
    name = write_texts(tmp_path / "a.txt", 5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for match, output, inputs in [
        ("expected files, found none that match '.*nothing", "x", [f"{tmp_path}/nothing*"]),
        ("expected a file, found nothing at .*none.txt", "x", [tmp_path / "none.txt"]),
        ("expected each file once, found .*a.txt twice", "x", [name, name]),
        ("found builtin:reuters_r8; sets with a name need no preparation", "x", ["builtin:reuters_r8"]),
        ("expected a scheme:// that fsspec can read here, found: Protocol not known: nope", "x", ["nope://a/b.txt"]),
        (r"expected an empty directory or that of a corpus, found \['thesis.tex'\]", "full", [name]),
    ]:
        assert_refused(match, prepared, output, *inputs)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_told_and_what_was_whole_stays(prepared, tmp_path):
    small, large = write_texts(tmp_path / "a.txt", 10), write_texts(tmp_path / "b.txt", 12_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (140_000, limits[1]))
    try:
        match = "--output .*corpus: expected a directory that can be written, found .*File too large"
        assert_refused(match, prepared, "corpus", small, large, shard_texts=12_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert left == {".lock", "manifest.json", *(f"00000-00000.{end}" for end in ("tokens", "texts", "json"))}


@pytest.mark.parametrize("given", [{}, {"input": ("a",)}, {"input": ("a",), "output": "b", "verify": "c"}])
def test_the_command_prepares_or_verifies(given):
    with pytest.raises(UserError, match="expected --input and --output to prepare a corpus, or --verify alone"):
        PrepareConfig(**given)


def test_one_command_at_a_time(prepared, tmp_path):
    name = write_texts(tmp_path / "a.txt", 5)
    directory = prepared("corpus", name)
    with open(directory / ".lock", "wb") as lock:
        lock_file(lock, directory)
        assert_refused("is locked by another process", prepared, "corpus", name)


def test_verify_from_the_command_line(prepared, tmp_path, monkeypatch, capsys):
    directory = prepared("corpus", write_texts(tmp_path / "a.txt", 60))
    monkeypatch.setattr(sys, "argv", ["prepare", "--verify", str(directory)])
    prepare_module.main()
    assert "no byte has changed. 60 texts" in capsys.readouterr().out
    path = directory / "00000-00001.tokens"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"found changed files: .*00000-00001.tokens; delete them"):
        prepare_module.main()

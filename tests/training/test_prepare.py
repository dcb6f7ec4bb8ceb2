"""What a run is made of when its unlabelled texts are a corpus: batches, checks, notes and the words of data.json."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

from fastbert_jax.config import DataConfig, DistilConfig, EvaluateConfig, MeshConfig, ModelConfig, PrepareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.recipes import fastbert
from fastbert_jax.text import training_batches
from fastbert_jax.text.corpora import PreparedCorpus
from fastbert_jax.text.prepare import prepare as prepare_corpus
from fastbert_jax.text.training_batches import StreamedBatches, TrainingBatches
from fastbert_jax.training import run
from fastbert_jax.training.prepare import Prepared
from fastbert_jax.training.prepare import prepare as prepare_run
from fastbert_jax.training.terms import KEPT

TEXTS = ["the good", "the bad bad bad", "good", "bad good the good", "the the bad"] * 8


MESH = make_mesh(MeshConfig(), jax.devices()[:1])


def prepare(config: fastbert.Settings) -> Prepared:
    return prepare_run(config, MESH, fastbert)


@pytest.fixture(autouse=True)
def texts(tmp_path):
    """`train.tsv` of labelled texts and `more.jsonl` of others."""
    rows = [f"{'pos' if 'good' in text else 'neg'}\t{text}" for text in TEXTS]
    (tmp_path / "train.tsv").write_text("\n".join(["label\ttext", *rows]))
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS * 3))


@pytest.fixture
def config(tiny_bert_directory, tmp_path):
    def make(unlabelled="", *, distil=None, **data):
        return fastbert.Settings(
            data=DataConfig(train=str(tmp_path / "train.tsv"), unlabelled=unlabelled, **{"max_length": 16} | data),
            model=ModelConfig(pretrained=str(tiny_bert_directory), exit_size=4),
            distil=distil or DistilConfig(batch_size=4, epochs=2),
        )

    return make


@pytest.fixture
def corpus(tiny_bert_directory, tmp_path):
    def make(tokenizer=tiny_bert_directory):
        directory = tmp_path / f"corpus of {tokenizer.name}"
        prepare_corpus(
            PrepareConfig(
                input=(str(tmp_path / "more.jsonl"),),
                output=str(directory),
                tokenizer=str(tokenizer),
                max_length=16,
                shard_texts=50,
            )
        )
        return f"prepared:{directory}"

    return make


def test_a_prepared_corpus_is_distilled_on(config, corpus):
    spec = corpus()
    prepared = prepare(config(spec))
    batches = prepared.batches["distil"]
    assert isinstance(batches, TrainingBatches) and len(batches) == 2 * 30
    assert sum(int(batches[step].valid_BxK.sum()) for step in range(30)) == 120
    assert prepared.data["unlabelled"] == PreparedCorpus(spec.removeprefix("prepared:")).fingerprint
    assert prepared.data.keys() == {"train", "dev", "unlabelled"}


def test_a_dry_run_says_which_batches_it_has_planned(config, corpus, monkeypatch):
    settings = config(corpus(), distil=DistilConfig(batch_size=4, pack=True))
    monkeypatch.setattr(run, "make_mesh", lambda config: MESH)
    assert "of the first" not in run.describe(settings, fastbert)
    monkeypatch.setattr(training_batches, "WINDOW_TEXTS", 1)
    monkeypatch.setattr(training_batches, "WINDOW_BATCHES", 3)
    assert " 3 x [4, 16] of the first 3\n" in run.describe(settings, fastbert)


def test_texts_from_anywhere_can_be_packed(config, corpus, tmp_path):
    distil = DistilConfig(batch_size=4, epochs=2, pack=True, texts_per_row=3)
    for spec in ("", str(tmp_path / "more.jsonl"), corpus()):
        prepared = prepare(config(spec, distil=distil))
        batches = prepared.batches["distil"]
        assert isinstance(batches, TrainingBatches) and batches[0].cls_BxK.shape == (4, 3)
        assert prepared.batches["fine_tune"].words == ""
        assert f"distil: {batches.words}" in prepared.notes


def test_steps_are_the_length_of_the_phase(config):
    assert len(prepare(config(distil=DistilConfig(batch_size=4, steps=7))).batches["distil"]) == 7


@pytest.mark.parametrize("pack", [False, True])
def test_a_stream_is_distilled_on_for_so_many_steps(config, tmp_path, pack, monkeypatch):
    distil = DistilConfig(batch_size=4, steps=9, pack=pack)
    settings = config(f"stream:{tmp_path}/*.jsonl", distil=distil, shuffle_window=20)
    prepared = prepare(settings)
    batches = prepared.batches["distil"]
    assert isinstance(batches, StreamedBatches) and len(list(batches.stream(0))) == 9
    assert prepared.data["unlabelled"].startswith("stream of 1 files, ")
    monkeypatch.setattr(run, "make_mesh", lambda config: MESH)
    assert "9 steps" in run.describe(settings, fastbert)


def test_a_cached_teacher_needs_texts_with_a_number_and_a_second_epoch(config, corpus, tmp_path):
    saves_nothing = "distil: its steps end with its first epoch, so --distil.cache-teacher saves nothing"
    for spec in ("", str(tmp_path / "more.jsonl"), corpus()):
        for epochs in (1, 2):
            prepared = prepare(config(spec, distil=DistilConfig(batch_size=4, epochs=epochs, cache_teacher=True)))
            assert KEPT in prepared.recipe.phases[1].cases
            assert (saves_nothing in prepared.notes) is (epochs == 1)
    with pytest.raises(
        UserError, match="--distil.cache-teacher: expected texts that have numbers, those of a file or of prep"
    ):
        prepare(config(f"stream:{tmp_path}/*.jsonl", distil=DistilConfig(steps=9, cache_teacher=True)))


def test_corpora_that_do_not_fit_the_run_are_refused(config, corpus, tmp_path, minilm_directory):
    with pytest.raises(
        UserError, match="expected texts of up to --data.max-length 8 tokens, found a corpus of up to 16"
    ):
        prepare(config(corpus(), max_length=8))
    with pytest.raises(UserError, match="expected a corpus made with this run's tokenizer"):
        prepare(config(corpus(minilm_directory)))
    with pytest.raises(UserError, match="Set --distil.steps: the length of .* is unknown"):
        prepare(config(f"stream:{tmp_path}/*.jsonl"))


def test_what_takes_long_is_told_when_it_begins(config, tmp_path, capsys):
    prepare(config(str(tmp_path / "more.jsonl")))
    assert capsys.readouterr().err.splitlines() == [
        f"reading {tmp_path / 'train.tsv'}",
        "tokenising 16 train texts",
        "tokenising 16 dev texts",
        "tokenising 120 unlabelled texts",
    ]


def test_columns_to_report_by_are_checked_before_anything_is_trained(config, tmp_path):
    rows = [row.split("\t") for row in (tmp_path / "train.tsv").read_text().splitlines()]
    named = [["day", *rows[0]], *([str(place % 2), *row] for place, row in enumerate(rows[1:]))]
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(row) for row in named))
    settings = dataclasses.replace(config(text_column="text"), evaluate=EvaluateConfig(by=("day",)))
    prepared = prepare(settings)
    assert len(prepared.test_groups["day"]) == len(prepared.task.test) and set(prepared.test_groups["day"]) <= {
        "0",
        "1",
    }
    with pytest.raises(UserError, match=r"--evaluate\.by: expected a column 'days', .*did you mean 'day'"):
        prepare(dataclasses.replace(settings, evaluate=EvaluateConfig(by=("days",))))
    with pytest.raises(UserError, match=r"^--evaluate\.by: expected each column once"):
        EvaluateConfig(by=("day", "day"))


def test_notes_tell_what_the_models_files_leave_open(config, tiny_bert_directory):
    assert not [note for note in prepare(config()).notes if str(tiny_bert_directory) in note]
    path = tiny_bert_directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "own.Bert"}}))
    (tiny_bert_directory / "vocab.txt").write_text(
        (tiny_bert_directory / "vocab.txt").read_text().replace("good", "Good").replace("bad", "Bad")
    )
    notes = prepare(config()).notes
    assert f"{path} names code of its own" in notes[0] and "words with capitals" in notes[1]


def test_a_batch_that_the_devices_cannot_share_is_refused(config):
    with pytest.raises(UserError, match=r"^--distil.batch-size: expected a multiple of 8 .*, found 4; try 8$"):
        prepare_run(config(distil=DistilConfig(batch_size=4)), make_mesh(MeshConfig()), fastbert)

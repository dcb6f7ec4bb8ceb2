"""TFDS sets, made here as ArrayRecord and read without TensorFlow."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fastbert_jax.config import BadRow, DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.labelled_data import read_labelled_data
from fastbert_jax.text.sources import open_examples, own_split, read_examples
from fastbert_jax.text.tfds import open_tfds, splits

NLI = [(f"premise {i} é中", f"hypothesis {i}", i % 3) for i in range(6)]
SPLITS = {"train": NLI, "validation": NLI[:3], "test": [(premise, other, -1) for premise, other, _ in NLI]}


class OurPairs(tfds.core.GeneratorBasedBuilder):
    """Pairs with three classes, whose test labels are secret, as GLUE's are."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = ("premise", "hypothesis")

    def _info(self):
        features = {
            "hypothesis": tfds.features.Text(),
            "idx": tfds.features.Scalar(np.int32),
            "label": tfds.features.ClassLabel(names=["yes", "maybe", "no"]),
            "premise": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(rows) for split, rows in SPLITS.items()}

    def _generate_examples(self, rows):
        for i, (premise, hypothesis, label) in enumerate(rows):
            yield i, {"premise": premise, "hypothesis": hypothesis, "label": label, "idx": i}


class OurBytes(tfds.core.GeneratorBasedBuilder):
    """Single texts with a test split; one text is no UTF-8."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["b", "a"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for i, text in enumerate([b"one", b"tw\xffo", b"three", b""]):
            yield i, {"text": text, "label": i % 2}


class OurTags(tfds.core.GeneratorBasedBuilder):
    """Texts with any number of labels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        tags = tfds.features.Sequence(tfds.features.ClassLabel(names=["x", "y"]))
        features = {"text": tfds.features.Text(), "tags": tags, "box": tfds.features.Tensor(shape=(4,), dtype=np.int32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "both", "tags": [0, 1], "box": np.arange(4, dtype=np.int32)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    for builder in (OurPairs, OurBytes, OurTags):
        builder(data_dir=str(directory), file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture(autouse=True)
def _data_directory(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))


def test_pairs_come_in_their_order_with_the_names_of_the_classes():
    loaded = read_examples("tfds:our_pairs#train", DataConfig(), need_label=True)
    names = ["yes", "maybe", "no"]
    assert {(e.text, e.label) for e in loaded.examples} == {((p, h), names[label]) for p, h, label in NLI}
    assert loaded.class_names == tuple(names)
    assert loaded.examples[2].where == "tfds:our_pairs#train:3"
    assert "tensorflow" not in sys.modules


def test_a_task_uses_the_sets_own_splits_and_class_order():
    task = read_labelled_data(DataConfig(train="tfds:our_pairs"))
    assert (len(task.train), len(task.dev), len(task.test)) == (6, 3, 3)
    assert task.labels == ("yes", "maybe", "no")
    assert "There is no labelled test set: dev is used instead." in task.notes


def test_own_splits():
    assert splits("our_pairs") == ("train", "validation", "test")
    assert own_split("tfds:our_pairs#train", "dev", DataConfig()) == "tfds:our_pairs#validation"
    assert own_split("tfds:our_pairs", "test", DataConfig()) is None
    assert own_split("tfds:our_bytes", "dev", DataConfig()) is None
    assert own_split("tfds:our_bytes#train[:50%]", "test", DataConfig()) == "tfds:our_bytes#test"


def test_the_split_is_chosen_by_its_part_when_none_is_named():
    sizes = [
        len(read_examples("tfds:our_pairs", DataConfig(), need_label=True, role=r).examples) for r in ("train", "test")
    ]
    assert sizes == [6, 3]
    with open_examples("tfds:our_pairs", DataConfig(), role="test") as reader:
        assert len(list(reader)) == reader.table.row_count == 6
    with pytest.raises(UserError, match=r"tfds:our_bytes: expected a dev split, found \['train', 'test'\]; name one"):
        read_examples("tfds:our_bytes", DataConfig(), need_label=True, role="dev")


def test_secret_labels_are_none_and_no_labels():
    with open_examples("tfds:our_pairs#test", DataConfig()) as reader:
        assert [example.label for example in reader] == [None] * 6
    with pytest.raises(UserError, match=r"tfds:our_pairs#test:1: expected a label, found none"):
        read_examples("tfds:our_pairs#test", DataConfig(), need_label=True)


def test_slices_are_splits():
    assert len(read_examples("tfds:our_pairs#train[:50%]", DataConfig(), need_label=True).examples) == 3


def test_bytes_that_are_no_utf8_are_a_bad_row():
    with pytest.raises(UserError, match=r"tfds:our_bytes#train:\d: expected UTF-8, found the byte 0xff"):
        read_examples("tfds:our_bytes", DataConfig(), need_label=True)
    loaded = read_examples("tfds:our_bytes", DataConfig(on_bad_row=BadRow.SKIP), need_label=True)
    assert sorted(e.text for e in loaded.examples) == ["", "one", "three"] and len(loaded.rejected) == 1


@pytest.mark.parametrize("column", ["tags", "box"])
def test_a_column_of_sequences_is_no_label(column):
    message = f"tfds:our_tags#train:1: expected one value in the column '{column}', found a list; name another column"
    with pytest.raises(UserError, match=message):
        read_examples("tfds:our_tags#train", DataConfig(label_column=column), need_label=True)


def test_other_columns_are_no_texts():
    assert open_tfds("our_pairs", "train").text_columns == ("hypothesis", "premise")


def test_messages(prepared, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"tfds:our_pairs: expected one of the splits .* did you mean 'validation'\?"):
        open_tfds("our_pairs", "validatio")
    with pytest.raises(UserError, match=r"tfds:our_pairs: expected a split such as .*, found 'train\[:5x\]'"):
        open_tfds("our_pairs", "train[:5x]")
    with pytest.raises(UserError, match=r"expected a TFDS name, found tfds:imdb_review; did you mean 'imdb_reviews'\?"):
        open_tfds("imdb_review", "train")
    with pytest.raises(UserError, match=r"expected a TFDS name, found tfds:q9x;.* \(TFDS_DATA_DIR\)"):
        open_tfds("q9x", "train")
    with pytest.raises(UserError, match=r"expected a TFDS name, found tfds:glue/nosuch"):
        open_tfds("glue/nosuch", "train")
    unprepared = (
        r"tfds:glue/sst2: expected a prepared set in .*glue/sst2/.*, found nothing; prepare it once: python -c "
    )
    with pytest.raises(UserError, match=unprepared + r".*tfds\.builder\('glue/sst2', file_format='array_record'\)"):
        read_labelled_data(DataConfig(train="tfds:glue/sst2"))

    old = tmp_path / "our_pairs"
    shutil.copytree(prepared / "our_pairs", old)
    info = old / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'), encoding="utf-8")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"expected ArrayRecord files in .*, found TFRecord, .* prepare the set again"):
        open_tfds("our_pairs", "train")

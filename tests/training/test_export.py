"""An export: the tensors byte for byte, the tokenizer and the answers of the model, and a card that is true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import yaml
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

import fastbert_jax
from fastbert_jax.config import BertConfig, DataConfig, ExportConfig, ModelConfig, ReadingConfig
from fastbert_jax.config_yaml import to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.inference.calibrate import FILE as CALIBRATION
from fastbert_jax.model import in_numpy
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.config_json import read_bert_config
from fastbert_jax.model.weights import load_params, save_model
from fastbert_jax.recipes import fastbert
from fastbert_jax.text.builtin import MINILM, MINILM_ON_HUB
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.training import export as module
from fastbert_jax.training.export import export
from fastbert_jax.training.run_directory import RunDirectory
from tests.inference.saved import LABELS, save_tiny_model, some_texts
from tests.report.comparisons import COMPARISON

DOCUMENT = Path(__file__).parents[2] / "docs" / "model_format.md"
TEXTS = [*some_texts(12), "[SEP] is a text too", "never quite " * 20]


def tensors_of(directory: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path in directory.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(path)
    return found


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that is done: settings with the paths of a machine, counts of texts, measurements, a calibrated model."""
    run = RunDirectory(tmp_path / "runs" / "reviews")
    save_tiny_model(run.model)
    data = DataConfig(train="/home/someone/train.tsv", unlabelled="prepared:/data/secret/corpus", test="tfds:a/b#test")
    config = fastbert.Settings(run=str(run.path), data=data, model=ModelConfig(pretrained="/home/someone/bert"), seed=7)
    run.config.write_text(to_yaml(config))
    run.data.write_text(json.dumps({"train": "9 texts, sha256 ab", "dev": "1 texts, sha256 cd"}))
    run.comparison.write_text(json.dumps(COMPARISON.to_json()))
    (run.model / CALIBRATION).write_text('{"max-drop=0.5": {"thresholds": [0.1], "data": "/data/secret/dev.tsv"}}')
    return run


def test_a_layer_norm_that_transformers_does_not_have_is_refused(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"layer_norm": "unbiased"}))
    with pytest.raises(UserError, match="expected a model with BERT's LayerNorm, found one with UER's, .*as it is"):
        export(ExportConfig(model=str(directory), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def exported(run: RunDirectory, tmp_path: Path) -> Path:
    export(ExportConfig(model=str(run.path), output=str(tmp_path / "out" / "reviews")))
    return tmp_path / "out" / "reviews"


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_hugging_face_bert_comes_back_byte_for_byte(tiny_bert_directory: Path, tmp_path: Path, prefix: str) -> None:
    path = tiny_bert_directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["encoder.layer.1.output.dense.bias"][:4] = np.array([-0.0, 1e-45, 3e38, -3e38], np.float32)
    safetensors.numpy.save_file({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, path)
    config = read_bert_config(tiny_bert_directory, num_classes=3, exit_size=8, exit_heads=2)
    params = jax.device_get(Bert(config).init(jax.random.key(0)))
    params |= load_params(tiny_bert_directory, config, exits=False)
    extra = {"labels": list(LABELS), "max_length": 16, "length_buckets": [16], "precision": "float32"}
    save_model(tmp_path / "model", params, config, extra=extra)
    load_tokenizer(tiny_bert_directory).save(tmp_path / "model")
    export(ExportConfig(model=str(tmp_path / "model"), output=str(tmp_path / "export")))

    expected = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    found = safetensors.numpy.load_file(tmp_path / "export" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == tensor.tobytes(), name
    original = json.loads((tiny_bert_directory / "config.json").read_text())
    assert original.items() <= json.loads((tmp_path / "export" / "config.json").read_text()).items()


def test_every_exit_is_the_models_byte_for_byte(run: RunDirectory, tmp_path: Path) -> None:
    directory = exported(run, tmp_path)
    whole = tensors_of(run.model)
    assert {name: tensor.tobytes() for name, tensor in tensors_of(directory).items()} == {
        name.removeprefix("bert."): tensor.tobytes() for name, tensor in whole.items()
    }
    with safetensors.safe_open(directory / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(name.startswith(("embeddings.", "encoder.")) for name in file.keys())


def test_what_is_loaded_from_it_answers_the_same(run: RunDirectory, tmp_path: Path) -> None:
    directory = exported(run, tmp_path)
    model, copy = fastbert_jax.load(run.path), fastbert_jax.load(directory)
    assert (copy.labels, copy.max_length, copy.length_buckets) == (LABELS, 16, (8, 16))
    np.testing.assert_array_equal(copy.exit_probabilities(TEXTS), model.exit_probabilities(TEXTS))
    again = tmp_path / "again"
    export(ExportConfig(model=str(directory), output=str(again)))
    assert (again / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


def test_its_tokenizer_is_transformers_own(run: RunDirectory, tmp_path: Path) -> None:
    directory = exported(run, tmp_path)
    encoded = load_tokenizer(run.model).encode(TEXTS, max_length=16)
    theirs = AutoTokenizer.from_pretrained(directory)(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert [*map(len, theirs)] == encoded.lengths.tolist() and max(map(len, theirs)) == 16
    np.testing.assert_array_equal(np.concatenate(theirs), encoded.token_ids)


def test_all_its_files_are_told_and_may_be_read_by_others(run: RunDirectory, tmp_path: Path) -> None:
    said = export(ExportConfig(model=str(run.model), output=str(tmp_path / "export")))
    names = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert said == f"{tmp_path / 'export'}: {', '.join(names)}"
    assert names == sorted(
        "README.md calibration.json config.json fastbert_exits.safetensors model.safetensors tokenizer.json "
        "tokenizer_config.json".split()
    )
    files = DOCUMENT.read_text().partition("## Files")[2].partition("##")[0]
    assert {*names, "files.json"} == set(re.findall(r"`([\w.]+\.[a-z]+)`", files)) - {"infer.py"}
    calibrations = json.loads((tmp_path / "export" / CALIBRATION).read_text())
    assert calibrations == {"max-drop=0.5": {"thresholds": [0.1], "data": "dev.tsv"}}
    modes = {path.stat().st_mode for path in (tmp_path / "export").iterdir()}
    assert modes == {run.config.stat().st_mode}


def card_of(directory: Path) -> tuple[dict, str, list[str]]:
    """A card's head, its text, and its Python."""
    card = (directory / "README.md").read_text(encoding="utf-8")
    _, head, text = card.split("---\n", 2)
    return yaml.safe_load(head), text, re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_card_tells_what_the_run_tells_and_no_machines_paths(run: RunDirectory, tmp_path: Path) -> None:
    head, text, _ = card_of(exported(run, tmp_path))
    assert head["library_name"] == "fastbert_jax" and head["pipeline_tag"] == "text-classification"
    assert text.startswith("\n# reviews\n")
    labels = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert labels and json.loads(labels[1]) == list(LABELS)
    assert "| train | `train.tsv` | 9 texts, sha256 ab |\n| dev |  | 1 texts, sha256 cd |" in text
    assert "| unlabelled | `corpus` |  |\n| test | `tfds:a/b#test` |  |" in text
    settings = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert settings and yaml.safe_load(settings[1])["seed"] == 7
    assert yaml.safe_load(settings[1])["model"]["pretrained"] == "bert"
    assert (
        "On 2189 test texts." in text
        and "| full depth | 0.9700 (0.9620 to 0.9764) | 6.00 | 0M | 1.00x | 1.00x |" in text
    )
    assert (
        "| speed 0.5 | 0.9651 (0.9566 to 0.9720) | 2.00 | 0M | 2.95x | 2.93x |" in text
        and "Measured 2026-11-21 on cpu, with jax 1." in text
    )
    assert "| wall clock, batches of 1 text | wall clock, batches of 2048 tokens |" in text
    assert "2.93x | 2.40x (2.30 to 2.50), bucketed | 2.40x (2.30 to 2.50), bucketed |" in text
    assert "more than 16 tokens are truncated; 0 of the test texts were." in text and "2 cores" in text
    assert "someone" not in text and "secret" not in text and str(tmp_path) not in text


def head_of(run: RunDirectory, output: Path, **given) -> dict:
    """The head of an export's card, as the Hugging Face Hub reads it."""
    export(ExportConfig(model=str(run.path), output=str(output), **given))
    data = ModelCard((output / "README.md").read_text(encoding="utf-8")).data  # raises where its form is wrong
    found = data.to_dict()
    assert found == yaml.safe_load((output / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1])
    return found


def test_the_head_of_the_card_is_in_the_hubs_form(run: RunDirectory, tmp_path: Path) -> None:
    head = head_of(run, tmp_path / "reviews", license="apache-2.0", language=("en", "de"), datasets=("org/reviews",))
    assert head["license"] == "apache-2.0" and head["language"] == ["en", "de"] and head["datasets"] == ["org/reviews"]
    assert head["metrics"] == ["accuracy"]
    ((result,),) = (entry["results"] for entry in head["model-index"] if entry["name"] == "reviews")
    assert result["dataset"] == {"name": "tfds:a/b#test", "type": "tfds", "split": "test"}
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("Accuracy at full depth", 0.97),
        ("Accuracy at speed 0.1", 0.97),
        ("Accuracy at speed 0.5", 0.9651),
    ]
    plain = head_of(run, tmp_path / "plain")
    assert plain.keys() == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    run.comparison.unlink()
    assert head_of(run, tmp_path / "unmeasured").keys() == {"library_name", "pipeline_tag", "tags"}


def test_the_base_model_is_named_where_it_comes_from_the_hub(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "bert").mkdir(parents=True)
    cached = tmp_path / "hub" / "models--org--bert" / "snapshots" / "1a2b"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    (cached.parents[1] / "refs").mkdir()
    (cached.parents[1] / "refs" / "main").write_text("1a2b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    shown = {"org/bert": "org/bert", "models/bert": "bert", "gone/bert": "bert", "random": "random", MINILM: MINILM}
    named = {"org/bert": "org/bert", MINILM: MINILM_ON_HUB}
    for number, pretrained in enumerate(shown):
        settings = yaml.safe_load(run.config.read_text())
        settings["model"]["pretrained"] = pretrained
        run.config.write_text(yaml.safe_dump(settings))
        assert head_of(run, tmp_path / str(number)).get("base_model") == named.get(pretrained)
        told = re.search(r"```yaml\n(.*?)```", card_of(tmp_path / str(number))[1], re.DOTALL)
        assert told and yaml.safe_load(told[1])["model"]["pretrained"] == shown[pretrained]


@pytest.mark.parametrize(
    "given", [{"license": "Apache 2.0"}, {"language": ("English",)}, {"datasets": ("my data",)}, {"license": "mit\n"}]
)
def test_what_the_hub_would_refuse_in_a_head_is_refused(given: dict) -> None:
    with pytest.raises(UserError, match=rf"^--{next(iter(given))}: expected"):
        ExportConfig(model="a", output="b", **given)


def test_the_card_tells_joined_columns_and_excluded_labels(tmp_path: Path) -> None:
    reading = ReadingConfig(text_column=("subject", "message"), pair_column="none", label_column="label")
    save_tiny_model(tmp_path / "model", reading=reading, excluded_labels=("whale",))
    export(ExportConfig(model=str(tmp_path / "model"), output=str(tmp_path / "export")))
    _, text, _ = card_of(tmp_path / "export")
    assert (
        "Its training texts are the columns `subject`, `message`, joined" in text and "the labels `whale` were" in text
    )
    assert "fastbert-infer predict --model export --input" in text


def test_a_model_without_its_run_has_a_shorter_card(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.model, tmp_path / "alone" / "model")
    export(ExportConfig(model=str(tmp_path / "alone" / "model"), output=str(tmp_path / "export")))
    _, text, _ = card_of(tmp_path / "export")
    assert "## How to load it" in text and "## How it was made" not in text and "## How well" not in text


def test_measurements_in_another_form_are_left_out(run: RunDirectory, tmp_path: Path) -> None:
    run.comparison.write_text('{"rows": []}')
    _, text, _ = card_of(exported(run, tmp_path))
    assert "## How it was made" in text and "## How well" not in text and "has not been measured" in text


def test_the_cards_code_runs_as_it_stands(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the block that needs PyTorch, whose hidden states are ours here."""
    directory = tmp_path / 'a "quoted" näme'
    export(ExportConfig(model=str(run.path), output=str(directory)))
    monkeypatch.chdir(tmp_path)
    whole, backbone, ours, numbers = card_of(directory)[2]
    names: dict = {}
    exec(whole, names)
    compile(backbone, "card", "exec")
    tokens = next(line for line in backbone.splitlines() if line.startswith("tokenizer = "))
    exec(f"from transformers import AutoTokenizer\n{tokens}\n{ours}", names)
    [hidden_LxSxH] = names["classifier"].hidden_states(["a text"])

    class Tensor(np.ndarray):
        """What the card asks of PyTorch's."""

        def detach(self) -> Tensor:
            return self

        def numpy(self) -> np.ndarray:
            return np.asarray(self)

    names["hidden_states"] = [hidden_SxH[None].view(Tensor) for hidden_SxH in hidden_LxSxH]
    exec(numbers, names)
    probabilities_N = np.exp(names["logits"]) / np.exp(names["logits"]).sum()
    expected_LxN = names["classifier"].exit_probabilities(["a text"])[0]
    np.testing.assert_allclose(probabilities_N, expected_LxN[0], atol=1e-5)
    assert names["read_model"].__doc__ == in_numpy.read_model.__doc__


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": {"data": 1}}', '{"a": {}}', "{", "[" * 50_000])
def test_a_calibration_that_is_none_is_refused(run: RunDirectory, tmp_path: Path, content: str) -> None:
    (run.model / CALIBRATION).write_text(content)
    with pytest.raises(
        UserError, match=rf"{CALIBRATION}: (expected a JSON object|not a file of `infer\.py calibrate`)"
    ):
        exported(run, tmp_path)
    assert not (tmp_path / "out" / "reviews").exists()


@pytest.mark.parametrize("content", ["seed: 1\n", "data: 1\n", "- 1\n", "data: {train: a}\nmodel: {}\n"])
def test_settings_that_are_none_are_refused(run: RunDirectory, tmp_path: Path, content: str) -> None:
    run.config.write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml: expected the settings of a run, found"):
        exported(run, tmp_path)


def test_a_directory_in_use_is_left_alone(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for output in (tmp_path / "mine", tmp_path / "mine" / "file"):
        with pytest.raises(UserError, match="expected a new or an empty directory, found one in use; name another"):
            export(ExportConfig(model=str(run.path), output=str(output)))
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    export(ExportConfig(model=str(run.path), output=str(tmp_path / "empty")))
    assert (tmp_path / "empty" / "config.json").is_file()


def test_a_full_disk_leaves_nothing(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(UserError, match="--output .*: cannot write the model: No space left"):
        export(ExportConfig(model=str(run.path), output=str(tmp_path / "out" / "reviews")))
    assert not list((tmp_path / "out").iterdir())


def test_a_plain_bert_is_not_exported(tiny_bert_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the 'fastbert' section of a trained model, found none"):
        export(ExportConfig(model=str(tiny_bert_directory), output=str(tmp_path / "export")))
    assert not (tmp_path / "export").exists()


def test_a_model_without_labels_is_not_exported(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=9, hidden_size=4, num_layers=1, num_heads=1, feed_forward_size=4, exit_size=4)
    save_model(tmp_path / "model", Bert(config).init(jax.random.key(0)), config, extra={})
    with pytest.raises(UserError, match="fastbert.extra: expected labels, max_length, .* found no labels, max_length"):
        export(ExportConfig(model=str(tmp_path / "model"), output=str(tmp_path / "export")))

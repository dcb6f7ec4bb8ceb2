"""train.py as a user runs it: on files, resumed after a kill, and with every kind of bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import fastbert_jax
from fastbert_jax.commands import train_arguments
from fastbert_jax.config import ReadingConfig
from fastbert_jax.config_yaml import from_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.model import sharding
from fastbert_jax.recipes import fastbert, train
from fastbert_jax.training import run, run_directory
from fastbert_jax.training.run_directory import RunDirectory
from tests.training.logger_backends import Mlflow

ROOT = Path(__file__).parent.parent
SETTINGS = """
run: {run}
data: {{train: {train}, test: {test}, max_length: 16, length_buckets: [8]}}
model:
  {{pretrained: random, hidden_size: 16, num_layers: 3, num_heads: 2, feed_forward_size: 32, exit_size: 8,
   vocab_size: 60}}
fine_tune: {{epochs: 2, batch_size: 8, learning_rate: 0.01}}
distil: {{epochs: 2, batch_size: 8, learning_rate: 0.01}}
evaluate: {{speeds: [0.5], repeats: 1, batch_size: 8}}
"""


def _write_texts(path: Path, rows: int, *, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    lines = ["label\ttext"]
    for _ in range(rows):
        label, word = (("good", "fine"), ("bad", "poor"))[generator.integers(2)]
        filler = " ".join(generator.choice(["film", "plot", "cast", "the", "was"], generator.integers(1, 9)))
        lines.append(f"{label}\t{filler} {word}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def settings(tmp_path) -> Path:
    """A YAML file of a tiny run."""
    train = _write_texts(tmp_path / "train.tsv", 60, seed=0)
    test = _write_texts(tmp_path / "test.tsv", 21, seed=1)
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(run=tmp_path / "run", train=train, test=test))
    return path


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """Runs inside the tests' own process take one of its eight devices: programs for eight compile slowly."""
    monkeypatch.setattr(run, "make_mesh", lambda config: sharding.make_mesh(config, jax.devices()[:1]))


def _environment() -> dict[str, str]:
    cache = jax.config.jax_compilation_cache_dir
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


def _command(settings: Path, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "--config", str(settings), *map(str, flags)]


def _train(settings: Path, *flags: object) -> subprocess.CompletedProcess:
    return subprocess.run(_command(settings, *flags), env=_environment(), capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_from_text_to_answers(settings, tmp_path, capsys):
    comparison = train(from_yaml(fastbert.Settings, settings))
    assert [(row.mode, row.speed) for row in comparison.rows] == [
        ("full depth", 0.0),
        ("masked", 0.5),
        ("bucketed", 0.5),
        ("cascade", 0.5),
    ]
    assert comparison.disagreements == 0
    assert comparison.baseline_accuracy == 1.0
    printed = capsys.readouterr().out
    assert "TF-IDF + linear SVM" in printed and "dev accuracy by exit" in printed
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.yaml",
        "labels.json",
        "data.json",
        "metrics.jsonl",
        "throughput.jsonl",
        "checkpoints",
        "model",
        "comparison.json",
        "report.html",
        ".lock",
    }
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == ["bad", "good"]
    assert f"{tmp_path / 'run' / 'report.html'}: " in printed
    assert "How the exits learned" in (tmp_path / "run" / "report.html").read_text()

    classifier = fastbert_jax.load(tmp_path / "run")
    assert classifier.reading == ReadingConfig(text_column="text", pair_column="none", label_column="label")
    answers = classifier.predict(["the film was fine", "", "poor plot"], speed=0.5)
    assert [set(answer.probabilities.shape) for answer in answers] == [{2}] * 3
    assert all(answer.label in ("bad", "good") and 1 <= answer.exit_layer <= 3 for answer in answers)


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(settings, tmp_path):
    config = from_yaml(fastbert.Settings, settings)
    train(config)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    train(config)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_loggers_profile_and_card_of_a_run_that_was_stopped_before_it_was_measured(
    settings, tmp_path, monkeypatch, capsys
):
    mlflow = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow.module)
    flags = ["--log.to", "mlflow", "--profile", "13:16"]  # the end of one phase, and the beginning of the next
    config = train_arguments(["--config", str(settings), *flags]).settings
    where = RunDirectory(tmp_path / "run")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    compare = run.compare
    monkeypatch.setattr(run, "compare", killed)
    with pytest.raises(KeyboardInterrupt, match=f"^stopped by Ctrl-C; the model is already saved in {where.model} and"):
        train(config)
    assert f"profile: steps 13 to 16 are in {where.profile}; " in capsys.readouterr().out
    assert "The model has not been measured on test texts" in (where.model / "README.md").read_text()
    assert "model" in run_directory.verify_run(where.path)

    monkeypatch.setattr(run, "compare", compare)
    comparison = train(config)
    assert "none left: the run is done" in capsys.readouterr().out
    card = (where.model / "README.md").read_text()
    assert "On 21 test texts." in card and f"| speed 0.5 | {comparison.rows[1].accuracy:.4f} |" in card
    assert "model" in run_directory.verify_run(where.path)
    (told,) = mlflow.runs.values()
    for phase, steps in (("fine_tune", range(1, 15)), ("distil", range(15, 29)), ("dev", (7, 14, 21, 28))):
        assert [row[f"{phase}/step"] for row in told.rows if f"{phase}/step" in row] == list(steps)
    assert told.metrics["throughput/goodput"] > 0 and told.ended == ["KILLED", "FINISHED"]

    (where.model / "model.safetensors").unlink()  # trained again: measurements of another model are gone
    where.model.rename(tmp_path / "old")
    monkeypatch.setattr(run, "compare", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert "has not been measured on test texts" in (where.model / "README.md").read_text()


def test_a_logger_that_is_not_installed_is_said_before_anything_is_written(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "install it with `pip install wandb`" in _refusal(settings, "--log.to", "wandb")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_model(settings, tmp_path):
    long = ("--distil.epochs", 8)  # so that the signals come long before the end, however quick the machine is
    whole = tmp_path / "whole"
    done = _train(settings, "--run", whole, *long)
    assert done.returncode == 0
    assert done.stderr.endswith(f"the model is in {whole}; next: python infer.py explore --model {whole}\n")
    killed = tmp_path / "killed"
    # At or after the first and the second measurement.
    for checkpoint, with_signal in ((7, signal.SIGINT), (14, signal.SIGKILL)):
        with subprocess.Popen(
            _command(settings, "--run", killed, *long),
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            while process.poll() is None and checkpoint not in _steps(killed):
                time.sleep(0.01)
            process.send_signal(with_signal)
            _, errors = process.communicate()
        if with_signal is signal.SIGINT:
            assert process.returncode == 130 and b"Traceback" not in errors, errors
            assert b"stopped by Ctrl-C and saved at step" in errors and b"; the same command goes on\n" in errors
    again = _train(settings, "--run", killed, *long, "--json", "--quiet")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads((killed / "comparison.json").read_text())
    assert "next: " not in again.stderr
    checked = _train(settings, "--run", killed, "--verify")
    assert checked.returncode == 0 and checked.stdout.endswith("model\n") and "whole: checkpoint" in checked.stdout
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_a_full_disk_ends_with_code_2_and_the_same_command_goes_on(settings, tmp_path):
    # No file of more than 4 KiB can be written, which stands for a full disk.
    limited = ["bash", "-c", 'ulimit -f 4 && exec "$@"', "bash", *_command(settings)]
    environment = _environment() | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    full = subprocess.run(limited, env=environment, capture_output=True, text=True)
    # Threads of Orbax and TensorStore may add their own complaints, which cannot be prevented.
    assert full.returncode == 2, full.stderr
    assert "error: " in full.stderr and "checkpoints/7: cannot write the checkpoint: " in full.stderr
    assert not (tmp_path / "run" / "model").exists()
    again = _train(settings)
    assert again.returncode == 0, again.stderr


def _steps(directory: Path) -> set[int]:
    checkpoints = directory / "checkpoints"
    return {int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()} if checkpoints.exists() else set()


def test_a_dry_run_and_the_settings_are_printed_and_nothing_is_written(settings, tmp_path):
    dry = _train(settings, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    for words in (
        "train 54, dev 6, test 21",
        "bad, good",
        "fine_tune   14 steps of 8 rows",
        "each device holds",
        "parameters",
        "FLOPs",
    ):
        assert words in dry.stdout
    printed = _train(settings, "--print-config", "--distil.epochs", 7)
    (tmp_path / "again.yaml").write_text(printed.stdout)
    assert from_yaml(fastbert.Settings, tmp_path / "again.yaml").distil.epochs == 7
    assert not (tmp_path / "run").exists()


def test_help_names_every_room_and_an_unknown_flag_its_neighbour(settings):
    printed = _train(settings, "--help")
    assert printed.returncode == 0
    for words in ("--data.train", "--fine-tune.learning-rate", "--distil.kl", "--evaluate.speeds", "resumes"):
        assert words in printed.stdout
    wrong = _train(settings, "--data.trian", "x.tsv")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert "Unrecognized options: --data.trian" in wrong.stderr and "--data.train STR" in wrong.stderr


def test_a_users_mistake_ends_with_its_message_and_code_2(settings, tmp_path):
    ended = _train(settings, "--data.train", tmp_path / "nothing.tsv")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "nothing.tsv" in last and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def _refusal(settings: Path, *flags: str) -> str:
    """The message of a run that is refused before it writes anything."""
    config = train_arguments(["--config", str(settings), *flags]).settings
    with pytest.raises(UserError) as error:
        train(config)
    assert not Path(config.run).exists()
    return str(error.value)


def test_no_training_texts(settings):
    assert "--data.train: expected a SPEC" in _refusal(settings, "--data.train", "")


def test_a_label_in_test_that_train_never_had(settings, tmp_path):
    path = tmp_path / "odd.tsv"
    path.write_text("label\ttext\ngood\ta\nugly\tb\n")
    message = _refusal(settings, "--data.test", str(path))
    assert "ugly" in message and "odd.tsv:3" in message and "good" in message


def test_one_class_only(settings, tmp_path):
    path = tmp_path / "one.tsv"
    path.write_text("label\ttext\n" + "good\ta\n" * 20)
    message = _refusal(settings, "--data.train", str(path), "--data.test", str(path))
    assert "good" in message and "2" in message


def test_a_poison_row_stops_with_file_and_line_or_is_counted(settings, tmp_path, capsys):
    path = tmp_path / "poison.tsv"
    rows = (tmp_path / "train.tsv").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rows[:5], b"good\t\xff\xfe\n", *rows[5:]]))
    assert "poison.tsv:6" in _refusal(settings, "--data.train", str(path))
    flags = ["--config", str(settings), "--data.train", str(path), "--data.on-bad-row", "skip"]
    print(run.describe(train_arguments(flags).settings, fastbert))
    described = capsys.readouterr().out
    assert "train 54, dev 6" in described and "1 row" in described


def test_texts_that_are_cut_are_counted_set_by_set(settings, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("film plot " * 20 + "\nfilm\n")
    (tmp_path / "dev.tsv").write_text("label\ttext\ngood\t龘 龘\nbad\tfilm\n", encoding="utf-8")
    flags = ["--config", str(settings), "--data.unlabelled", str(tmp_path / "more.txt"), "--data.max-length", "8"]
    flags += ["--data.dev", str(tmp_path / "dev.tsv")]
    print(run.describe(train_arguments(flags).settings, fastbert))
    described = capsys.readouterr().out
    assert "1 of 2 unlabelled texts have more than 8 tokens: 34 tokens were cut off" in described
    assert "of 60 train texts have more than 8 tokens" in described
    assert "1 of 2 (50.0 %) dev texts are nothing but [UNK]: the tokenizer knows none of their words; take" in described


def test_a_length_beyond_the_backbones_positions(settings):
    message = _refusal(settings, "--data.max-length", "1024")
    assert "expected at most the backbone's 512 positions, found 1024" in message


def test_a_backbone_that_is_not_there(settings, tmp_path):
    assert "nowhere" in _refusal(settings, "--model.pretrained", str(tmp_path / "nowhere"))


def test_a_truncated_weight_file(settings, tiny_bert_directory):
    weights = tiny_bert_directory / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert "model.safetensors" in _refusal(settings, "--model.pretrained", str(tiny_bert_directory))


def test_a_tokenizer_with_ids_beyond_the_vocabulary(settings, tiny_bert_directory):
    with (tiny_bert_directory / "vocab.txt").open("a") as vocabulary:
        vocabulary.writelines(f"word{index}\n" for index in range(40))
    message = _refusal(settings, "--model.pretrained", str(tiny_bert_directory), "--data.max-length", "16")
    assert "40" in message


@pytest.mark.slow
def test_fewer_chinese_pairs_than_a_batch_go_the_whole_way(settings, tmp_path):
    rows = ["label\ttext_a\ttext_b"]
    rows += [f"{'相同' if i % 2 else '不同'}\t这本书{'很好' if i % 3 else '一般'}\t这本书好吗" for i in range(6)]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(rows) + "\n", encoding="utf-8")
    flags = ["--config", str(settings), "--data.train", str(pairs), "--data.test", "", "--fine-tune.epochs", "1"]
    flags += ["--data.dev", str(pairs)]
    config = train_arguments([*flags, "--distil.epochs", "1", "--model.precision", "bfloat16"]).settings
    train(config)
    (answer,) = fastbert_jax.load(config.run).predict([("这本书很好", "这本书好吗")], speed=0.5)
    assert answer.label in ("相同", "不同") and np.isfinite(answer.probabilities).all()
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "fine_tune" for event in events) == 1  # one partial batch


@pytest.mark.slow
def test_a_run_directory_of_another_model_is_refused_and_kept(settings, tmp_path):
    config = from_yaml(fastbert.Settings, settings)
    train(config)
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    ended = _train(settings, "--model.num-layers", 2)
    assert ended.returncode == 2 and "model.num_layers: there 3, now 2" in ended.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before

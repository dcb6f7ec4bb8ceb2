"""The way of a text through the layers is what `predict` does at every speed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fastbert_jax.config import ExitConfig, ExplainConfig, PolicyName, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.explain import exit_paths, explain, printable, show
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from tests.inference.saved import LABELS, save_tiny_model, some_texts

TEXTS = [*some_texts(20), ""]


@pytest.mark.parametrize("speed", [0, 0.3, 0.6, 1])
def test_a_path_ends_where_predict_does(predictor: Predictor, speed: float) -> None:
    answers = predictor.predict(TEXTS, speed=speed, mode="masked", batch_size=8)
    for path, answer in zip(exit_paths(predictor, TEXTS, speed), answers, strict=True):
        assert (path["label"], path["exit_layer"]) == (answer.label, answer.exit_layer)
        assert path["layers"][answer.exit_layer - 1]["probability"] == pytest.approx(answer.probability, abs=1e-5)
        sure = [step["uncertainty"] < step["threshold"] for step in path["layers"]]
        assert path["exit_layer"] == (sure.index(True) + 1 if any(sure) else len(sure))


def test_json_holds_the_answer_and_every_layers(predictor: Predictor) -> None:
    (values,) = exit_paths(predictor, [("good film", "bad film")], 0.5)
    assert list(values) == ["text", "pair", "label", "probabilities", "exit_layer", "uncertainty", "layers"]
    assert tuple(values["probabilities"]) == LABELS and values["pair"] == "bad film"
    here = values["layers"][values["exit_layer"] - 1]
    assert (here["label"], here["uncertainty"]) == (values["label"], values["uncertainty"])
    assert [layer["layer"] for layer in values["layers"]] == [1, 2, 3, 4, 5]


def test_pairs_and_exits_that_are_not_asked(directory: Path) -> None:
    exits = ExitConfig(every=2, policy=PolicyName.MARGIN)
    config = ExplainConfig(model=str(directory), texts=("good", "bad"), pair=("film", "plot"), speed=1.0, exits=exits)
    paths = explain(config)
    assert [(path["text"], path["pair"]) for path in paths] == [("good", "film"), ("bad", "plot")]
    assert [step["asked"] for step in paths[0]["layers"]] == [False, True, False, True, True]
    assert {path["exit_layer"] for path in paths} == {2}


def test_a_text_that_is_cut_is_told(predictor: Predictor, capsys: pytest.CaptureFixture[str]) -> None:
    exit_paths(predictor, ["good " * 40, "good"], 0.5)
    assert capsys.readouterr().err == "1 texts have more than 16 tokens and were cut\n"


def test_mistakes(directory: Path) -> None:
    with pytest.raises(UserError, match="TEXTS: expected one text or more, each in quotes, found"):
        ExplainConfig(model="x")
    with pytest.raises(UserError, match="--pair: expected 2 second texts, one for each text, or none, found 1"):
        ExplainConfig(model="x", texts=("a", "b"), pair=("c",))
    with pytest.raises(UserError, match="no calibration for 'max-drop=1'; make it with"):
        explain(ExplainConfig(model=str(directory), texts=("a",), target="max-drop=1"))


def test_labels_and_texts_are_no_markup_of_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("[red]hot", "[/red]", "[link=http://x.example]a[/link]\x1b[31m")
    predictor = load(save_tiny_model(tmp_path / "model", labels=labels))
    for text in ("[bold]good[/bold]", "[/]", ("[red]", "bad [/red]")):
        (path,) = exit_paths(predictor, [text], 0.5)
        show(path, Console(width=200, force_terminal=True))
        shown = capsys.readouterr().out
        assert path["text"] in shown and labels[0] in shown + labels[0]
        for step in path["layers"]:
            assert printable(step["label"]) in shown
    assert "\x1b[31m" not in printable(labels[2])


def test_a_model_of_pairs_asks_for_the_second_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading = ReadingConfig(text_column="a", pair_column="b", label_column="c")
    directory = str(save_tiny_model(tmp_path / "model", reading=reading))
    explain(ExplainConfig(model=directory, texts=("good",), pair=("bad",), speed=0.5))
    assert capsys.readouterr().err == ""
    explain(ExplainConfig(model=directory, texts=("good",), speed=0.5))
    assert capsys.readouterr().err.startswith("the model was trained on pairs of texts; give the second text of each")

"""A model for others: its card, README.md, and its export, a Hugging Face directory with the exits beside the backbone.

The card is made from the files of the model and of its run. It states a licence, languages and data sets of the Hub
only where the command gives them: those of the weights and texts that a model comes from are unknown here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import jinja2
import yaml

from fastbert_jax.atomic_files import atomic_directory, check_unused, unless_refused, user_path, write_json, write_text
from fastbert_jax.config import ExportConfig, LayerNormKind
from fastbert_jax.config_yaml import read_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.inference import calibration
from fastbert_jax.inference.loading import CARD, EXCLUDED, model_directory, saved_settings
from fastbert_jax.model import in_numpy
from fastbert_jax.model.config_json import read_fastbert_config
from fastbert_jax.model.tensor_files import EXITS_FILE, read_json
from fastbert_jax.model.weights import load_model, save_model
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import baseline_words, speed_table
from fastbert_jax.text.builtin import hub_name
from fastbert_jax.text.filesystem import without_compression
from fastbert_jax.text.sources import is_named_set
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.training.run_directory import FREE_KEYS, RunDirectory

TEMPLATE = "model_card.md.jinja"
NOT_SHOWN = ("data", *FREE_KEYS)
"""Settings that a card does not show: they are private to a machine, or do not affect what is trained."""
HEAD = {
    "library_name": "fastbert_jax",
    "pipeline_tag": "text-classification",
    "tags": ["bert", "fastbert", "early-exit", "safetensors"],
}
"""What the head of every card says."""
MODEL_KEYS = (
    "pretrained",
    "first_layers",
    "keep_exits",
    "exit_kind",
    "exit_size",
    "exit_heads",
    "dropout",
    "precision",
)
"""The settings of a model that a card shows; sizes are in config.json."""


def export(config: ExportConfig) -> str:
    """Write the directory of an export; its files, in words.

    Raises:
      UserError: no trained model, one that transformers cannot compute, damaged files, or no place for the directory.
    """
    output = user_path(config.output)
    check_unused(output, "--output")
    source = model_directory(config.model)
    params, architecture, extra = load_model(source)
    if architecture.layer_norm is not LayerNormKind.STANDARD:
        raise UserError(
            f"--model {source}: expected a model with BERT's LayerNorm, found one with UER's, which transformers would "
            "compute wrongly; share the directory as it is, which fastbert_jax loads"
        )
    name = output.resolve().name
    given = {"license": config.license, "language": [*config.language], "datasets": [*config.datasets]}
    card = card_of(source, name=name, exported_to=name, given=given)
    tokenizer = load_tokenizer(source)
    with unless_refused(f"--output {output}", "write the model"), atomic_directory(output.resolve()) as directory:
        tokenizer.save(directory, max_length=extra["max_length"])
        save_model(directory, params, architecture, extra=extra, exits_apart=True)
        if (source / calibration.FILE).is_file():
            write_json(directory / calibration.FILE, _calibrations(source / calibration.FILE))
        write_text(directory / CARD, card)
    return f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}"


def _calibrations(path: Path) -> dict[str, Any]:
    """The calibrations of a model, without the directories of their texts.

    Raises:
      UserError: the file holds something else.
    """
    try:
        return {target: entry | {"data": _last_part(entry["data"])} for target, entry in read_json(path).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a file of `infer.py calibrate` ({error}); calibrate again") from None


def write_card(run: RunDirectory) -> None:
    """Write the card beside the model of a run, with the measurements where there are some.

    Raises:
      UserError: a file of the run that cannot be read.
      OSError: the card cannot be written.
    """
    write_text(run.model / CARD, card_of(run.model, name=run.path.resolve().name))


def renew_card(model: Path) -> None:
    """Write the card of a run's model anew, as its recommended speed has changed; nothing for another directory.

    Raises:
      UserError: a file of the run that cannot be read, or the card cannot be written.
    """
    run = RunDirectory(model.resolve().parent)
    if model.resolve() == run.model and run.config.is_file():
        with unless_refused(run.model / CARD, "write the model card"):
            write_card(run)


def card_of(model: Path, *, name: str, exported_to: str = "", given: Mapping[str, Any] | None = None) -> str:
    """The card of a model directory, as Markdown, with a YAML head as Hugging Face's hub reads it.

    Args:
      name: the model's, for people.
      exported_to: the name of the directory that an export of it gets; empty: the card is for `model` itself.
      given: keys of the head that only a person knows, where they are not empty.

    Raises:
      UserError: one of the files cannot be read.
    """
    architecture, extra = read_fastbert_config(model)
    directory = exported_to or model.name
    settings = saved_settings(model, extra, architecture)
    run = _run_of(model)
    comparison, recommended = run and run["comparison"], calibration.recommended_calibration(model)
    reading = settings.get("reading")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        head=yaml.safe_dump(_head(name, run, given or {}), sort_keys=False, allow_unicode=True).strip(),
        name=_as_text(name),
        directory=_as_json(directory),
        typed_directory=directory if re.fullmatch(r"[\w.-]+", directory) else "DIRECTORY",
        config=architecture,
        standard_layer_norm=architecture.layer_norm is LayerNormKind.STANDARD,
        labels=_as_json(settings["labels"]),
        max_length=settings["max_length"],
        exits_file=EXITS_FILE if exported_to else "model.safetensors",
        numpy_code=inspect.getsource(in_numpy).strip(),
        story=_as_text(extra.get("story", "")),
        text_columns=[*map(_as_code, reading.text_columns)] if reading else [],
        excluded_labels=[*map(_as_code, settings.get(EXCLUDED, ()))],
        has_license=bool(given and given["license"]),
        run=run,
        recommended=recommended and dataclasses.replace(recommended, data=_as_text(_last_part(recommended.data))),
        comparison=comparison,
        speed_table=speed_table(comparison) if comparison else "",
        baseline_words=baseline_words(comparison) if comparison else "",
    )


def _head(name: str, run: dict[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a card in the form of the Hugging Face Hub; what is unknown is left out."""
    head = {key: value for key, value in given.items() if value} | HEAD
    if run and run["base_model"]:
        head["base_model"] = run["base_model"]
    if run and (comparison := run["comparison"]):
        accuracies = {row.speed: row.accuracy for row in comparison.rows}  # every mode gives the same answers
        metrics = [
            {
                "type": "accuracy",
                "value": round(accuracy, 4),
                "name": f"Accuracy at speed {speed:g}" if speed else "Accuracy at full depth",
            }
            for speed, accuracy in sorted(accuracies.items())
        ]
        task = {"type": HEAD["pipeline_tag"]}
        head["metrics"] = ["accuracy"]
        head["model-index"] = [
            {"name": name, "results": [{"task": task, "dataset": run["tested_on"], "metrics": metrics}]}
        ]
    return head


def _run_of(model: Path) -> dict[str, Any] | None:
    """What the run around a `model` directory says, without the names of directories; None where there is no run.

    Raises:
      UserError: one of its files cannot be read.
    """
    run = RunDirectory(model.resolve().parent)
    if model.resolve() != run.model or not run.config.is_file():
        return None
    settings, counts = read_yaml(run.config), read_json(run.data) if run.data.is_file() else {}
    try:
        base_model = hub_name(settings["model"]["pretrained"])
        for section in settings.values():
            if isinstance(section, dict):
                section |= {key: _public(section[key]) for key in ("pretrained", "teacher") if section.get(key)}
        specs = {role: str(settings["data"][role]) for role in ("train", "dev", "unlabelled", "test")}
        shown = {key: value for key, value in settings.items() if key not in NOT_SHOWN}
        shown["model"] = {key: settings["model"][key] for key in MODEL_KEYS}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.config}: expected the settings of a run, found none for {error}") from None
    comparison = None
    with contextlib.suppress(ValueError):  # measurements of another version, which lack some
        comparison = Comparison.from_json(read_json(run.comparison)) if run.comparison.is_file() else None
    test = specs["test"] or specs["train"]
    scheme, colon, _ = test.partition(":")
    return {
        "base_model": base_model,
        "tested_on": {
            "name": _last_part(test),
            "type": scheme if colon else without_compression(test).suffix.removeprefix(".") or "text",
            "split": "test",
        },
        "texts": [
            (role, _as_code(_last_part(spec)) if spec else "", counts.get(role, ""))
            for role, spec in specs.items()
            if spec or role in counts
        ],
        "settings": yaml.safe_dump(shown, sort_keys=False).strip(),
        "comparison": comparison,
    }


def _as_json(value: Any) -> str:
    """JSON, which is Python too, without a character that begins or ends markup."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("`", "\\u0060")


def _as_text(words: str) -> str:
    """Words on one line, without HTML."""
    return " ".join(html.escape(words, quote=False).split())


def _as_code(words: str) -> str:
    """Words in a cell of a table, as code that they do not end."""
    return f"`{' '.join(words.split())}`" if not set(words) & {"`", "|"} else _as_text(words).replace("|", r"\|")


def _public(model: str) -> str:
    """A pretrained model without the directories that it is in; the whole name of one of the Hub."""
    return model if hub_name(model) == model else _last_part(model)


def _last_part(spec: str) -> str:
    """A SPEC without the directories that it is in, which are private to a machine."""
    return spec if is_named_set(spec) else PurePath(spec).name

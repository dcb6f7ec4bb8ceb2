"""The compare command: read labelled texts, measure early exit on them, write numbers, tables and the report."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastbert_jax.atomic_files import write_text
from fastbert_jax.config import CompareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import compare, evenly
from fastbert_jax.inference.exit_outputs import EvaluatedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.inference.report_page import DESCRIPTION, page_values
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render_markdown, render_page
from fastbert_jax.text.labelled_data import label_ids, tfidf_svm_accuracy
from fastbert_jax.text.sources import read_examples


class Compared(NamedTuple):
    """What `infer.py compare` measured."""

    comparison: Comparison
    page: str
    """The report; empty where none is written."""


def compare_data(config: CompareConfig) -> Compared:
    """Measure what `infer.py compare` asks for; `save` writes the files.

    Raises:
      UserError: no model, no data, a label that the model does not know, other labels in a baseline, or a file that
        cannot be written, which is checked before all else, so that no measurement is lost.
    """
    check_places(config)
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    baselines = baseline_models(config.baselines, predictor.labels)
    test = read_examples(config.data, config, need_label=True, role="test")
    examples = [test.examples[i] for i in evenly(len(test.examples), config.limit)]
    skipped_rows = len(test.rejected)
    expected_B = label_ids(examples, predictor.labels, remedy="fix the row, or compare a model that knows this label")
    baseline_accuracy = None
    if config.baseline:
        train = read_examples(config.baseline, config, need_label=True, role="train")
        baseline_accuracy = tfidf_svm_accuracy(train.examples, examples)
        skipped_rows += len(train.rejected)
    texts = [example.text for example in examples]
    evaluate = functools.partial(EvaluatedTexts.of, batch_tokens=config.batch_tokens)
    evaluated = evaluate(predictor, texts, expected_B)
    comparison = compare(
        evaluated,
        measure=config,
        baseline_accuracy=baseline_accuracy,
        timed_texts=config.timed_texts,
        baselines={name: evaluate(model, texts, expected_B) for name, model in baselines.items()},
    )
    comparison = dataclasses.replace(comparison, skipped_rows=skipped_rows)
    page = ""
    if config.report:
        page = render_page(comparison, page_values(evaluated, comparison), model=config.model, data=config.data)
    return Compared(comparison, page)


def baseline_models(directories: Sequence[str], labels: Sequence[str]) -> dict[str, Predictor]:
    """Other models by their directories.

    Raises:
      UserError: no model, or one with other labels.
    """
    found = {path: load(path) for path in directories}
    for path, baseline in found.items():
        baseline.require_exits()
        if baseline.labels != tuple(labels):
            raise UserError(f"--baselines {path}: expected the labels of --model, {labels}, found {baseline.labels}")
    return found


def places(config: CompareConfig) -> list[tuple[str, Path]]:
    """What is written where: `numbers`, `tables` or `report`, and a path."""
    output = Path(config.output).expanduser()
    found = [] if config.json in ("", "-") else [("numbers", Path(config.json).expanduser())]
    if config.output:
        found += [("numbers", output / "comparison.json"), ("tables", output / "comparison.md")]
    if config.report:
        found.append(("report", output / Path(config.report).expanduser()))
    return found


def check_places(config: CompareConfig) -> None:
    """Make the output directory, and raise `UserError` for a file that cannot be written."""
    if config.output:
        try:
            Path(config.output).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output {config.output}: cannot make the directory: {error.strerror}") from None
    for what, path in places(config):
        found = ""
        if path.is_dir():
            found = "it is a directory"
        elif not path.parent.is_dir():
            found = f"there is no directory {path.parent}"
        elif not os.access(path.parent, os.W_OK):
            found = f"the directory {path.parent} is not writable"
        if found:
            remedy = "; name another file with --report, or none with --report ''" if what == "report" else ""
            raise UserError(f"{path}: cannot write the {what}: {found}{remedy}")


def save(config: CompareConfig, compared: Compared) -> str:
    """Write the files that `config` names; what a user can open, in words. A failure does not stop the other files.

    Raises:
      UserError: a file cannot be written.
    """
    comparison, page = compared
    contents = {
        "numbers": json.dumps(comparison.to_json(), indent=2, ensure_ascii=False) + "\n",
        "tables": render_markdown(comparison, f"{config.model} on {config.data}"),
        "report": page,
    }
    failed = []
    for what, path in places(config):
        try:
            write_text(path, contents[what])
        except OSError as error:
            failed.append(f"{path}: cannot write the {what}: {error.strerror}")
    if failed:
        raise UserError("\n".join(failed))
    written = [f"{config.output}: comparison.md (tables) and comparison.json (numbers)"] if config.output else []
    written += [f"{path}: {DESCRIPTION}" for what, path in places(config) if what == "report"]
    return "\n".join(written)

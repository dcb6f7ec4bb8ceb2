"""What `infer.py compare` does: read labelled texts, measure early exit on them, keep the numbers and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastbert_jax.atomic_files import write_json, write_text
from fastbert_jax.config import CompareConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.compare import compare
from fastbert_jax.inference.exit_outputs import AskedTexts
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.report_contents import report_of
from fastbert_jax.inference.timing import evenly
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.html.contents import Report
from fastbert_jax.report.html.page import WHAT_A_REPORT_IS, render_page
from fastbert_jax.text.labelled_data import label_ids, tfidf_svm_accuracy
from fastbert_jax.text.sources import read_examples


class Compared(NamedTuple):
    """What `infer.py compare` has found."""

    comparison: Comparison
    report: Report | None
    """None where none was asked for."""


def compare_spec(config: CompareConfig) -> Compared:
    """Measure what `infer.py compare` asks for; `save` writes what it wants to keep.

    Raises:
      UserError: no model, no data, a label that the model does not know, or no place for one of the files, which is
        looked for before all else, so that no measurement is lost.
    """
    if config.json not in ("", "-"):
        require_place(Path(config.json), "the numbers")
    if config.report:
        require_place(
            Path(config.report), "the report", remedy="; name another with --report, or none with --report ''"
        )
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    test = read_examples(config.data, config.reading, need_label=True, role="test")
    examples = [test.examples[i] for i in evenly(len(test.examples), config.limit)]
    skipped_rows = test.skipped
    expected = label_ids(examples, predictor.labels, remedy="fix the row, or compare a model that knows this label")
    baseline_accuracy = None
    if config.baseline:
        train = read_examples(config.baseline, config.reading, need_label=True, role="train")
        baseline_accuracy = tfidf_svm_accuracy(train.examples, examples)
        skipped_rows += train.skipped
    texts = [example.text for example in examples]
    asked = AskedTexts.of(predictor, texts, expected, batch_tokens=config.batch_tokens)
    comparison = compare(
        asked, evaluate=config.evaluate, baseline_accuracy=baseline_accuracy, timed_texts=config.timed_texts
    )
    comparison = dataclasses.replace(comparison, skipped_rows=skipped_rows)
    report = report_of(asked, comparison, model=config.model, data=config.data) if config.report else None
    return Compared(comparison, report)


def require_place(path: Path, what: str, *, remedy: str = "") -> None:
    """Raise `UserError` where no file can be written to `path`; `what` it would hold, in words."""
    path = path.expanduser()
    found = None
    if path.is_dir():
        found = "a directory"
    elif not path.parent.is_dir():
        found = f"no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        found = f"a directory {path.parent} that may not be written to"
    if found:
        raise UserError(f"{path}: expected a place to write {what} to, found {found}{remedy}")


def save(config: CompareConfig, compared: Compared) -> str:
    """Write the files that `config` names, and say so where a person would look; each is kept when another fails.

    Raises:
      UserError: a file cannot be written.
    """
    try:
        if config.json not in ("", "-"):
            save_json(Path(config.json), compared.comparison)
    finally:
        if compared.report:
            save_report(Path(config.report), compared.report)
    return f"{config.report}: {WHAT_A_REPORT_IS}" if compared.report else ""


def save_json(path: Path, comparison: Comparison) -> None:
    """Write a comparison's numbers.

    Raises:
      UserError: the file cannot be written.
    """
    with _no_place_for("the numbers", path):
        write_json(path.expanduser(), comparison.to_json())


def save_report(path: Path, report: Report) -> None:
    """Write a report as a page.

    Raises:
      UserError: the file cannot be written.
    """
    with _no_place_for("the report", path):
        write_text(path.expanduser(), render_page(report))


@contextlib.contextmanager
def _no_place_for(what: str, path: Path) -> Iterator[None]:
    """A file that cannot be written is a user's mistake."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: expected a place to write {what} to, found: {error.strerror}") from None

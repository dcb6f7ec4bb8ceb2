"""A comparison for people: plain text, the FastBERT paper's tables in Markdown, the report as one HTML page; the texts
whose labels the model contradicts.

The page contains all it needs: it opens from disk and makes no request. Its own scripts draw the plots from numbers
that it holds as JSON. Names and texts may come from anyone: the template escapes what it shows, the JSON holds no `<`,
and the scripts write text as text. The Content-Security-Policy allows the page's own scripts, by their hash, and
nothing else.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html
import io
import shlex
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbert_jax.report.comparison import (
    BatchSizeComparison,
    Comparison,
    ComparisonRow,
    Share,
    SpeedPoint,
    is_beyond_noise,
)

ASSETS = Path(__file__).parent / "html"
SCRIPTS = ("elements.js", "axes.js", "plots.js", "page.js")
"""In the order in which they need each other."""
WIDTH = 118
LONGEST_NAME = 40
"""Characters that a table shows of a class, a column or its value."""
POINT = (
    "speed",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "gained",
    "lost",
    "mean_depth",
    "paper_speedup",
    "true_speedup",
)
"""Columns of the files of CSV: attributes of `SpeedPoint`, and the 95 % interval of the accuracy."""
MOST_MISLABELLED = 1000
"""Texts that are listed, at most."""
FORMULA = ("=", "+", "-", "@")
"""With one of these, the cell of a spreadsheet is a formula."""
FEW_BATCHES = 8
"""With fewer timed batches, filling and emptying an engine's queues takes a large part of the time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MislabelledText:
    """A text whose label the model contradicts."""

    place: str
    """Where the row is, such as `train.csv:17`."""
    label: str
    suggested: str
    probability: float
    """Of the label, on average over the exits."""
    suggested_probability: float
    agreeing: int
    """Exits whose answer is the suggested label."""
    exits: int
    """All of them."""
    text: str
    pair: str = ""


def ranked(texts: Iterable[MislabelledText]) -> list[MislabelledText]:
    """The most certainly contradicted first, `MOST_MISLABELLED` at most; where two are equal, in their own order."""
    return sorted(texts, key=lambda one: one.probability - one.suggested_probability)[:MOST_MISLABELLED]


def mislabelled_csv(texts: Sequence[MislabelledText]) -> str:
    """A .csv file of ranked texts, each on a line of its own.

    What a spreadsheet would compute, as it begins like a formula, has a `'` before it.
    """
    columns = ("rank", "place", "label", "suggested", "probability", "suggested_probability", "exits_that_agree")
    columns = (*columns, "text", *(("pair",) if any(one.pair for one in texts) else ()))
    rows = []
    for rank, one in enumerate(texts, 1):
        values = dataclasses.asdict(one) | {"rank": rank, "exits_that_agree": f"{one.agreeing} of {one.exits}"}
        values |= {key: f"{values[key]:.4f}" for key in ("probability", "suggested_probability")}
        cells = (str(values[column]) for column in columns)
        rows.append([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return _csv(columns, rows)


def texts_to_check(texts: Sequence[MislabelledText]) -> str:
    """What a .csv file of ranked texts holds, in words."""
    return f"{len(texts)} text{'s' * (len(texts) != 1)} whose label the model contradicts, the most certain first"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of plain text, the first column left-aligned, the others right-aligned, a rule under the header.

    Raises:
      ValueError: a row of another width than the header.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)][1:]
        return "  ".join([cells[0].ljust(widths[0]), *right]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def render(comparison: Comparison) -> str:
    """A comparison as plain text: one block per batch size, and the notes that explain how it was measured."""
    c = comparison
    blocks = blocks_of(c)
    header = tuple(blocks[0][1][0])
    rows = [tuple(row.values()) for _, block in blocks for row in block]
    if c.baseline_accuracy is not None:
        rows.append(("TF-IDF + linear SVM", "", f"{c.baseline_accuracy:.4f}", *[""] * (len(header) - 3)))
    head, rule, *body = table(header, rows).split("\n")
    lines = [head, rule]
    for title, block in blocks:
        lines += [title, *body[: len(block)], ""]
        body = body[len(block) :]
    lines += [*body, ""] if body else []
    for note in notes(c):
        lines += textwrap.wrap(note, WIDTH)
    early = [size for size in c.batch_sizes if size.speeds]
    if early:
        lines += ["", "Fastest mode at each speed; modes joined by `or` differ by less than the noise:"]
    for size in early:
        lines += textwrap.wrap(_fastest(size), WIDTH, initial_indent="  ", subsequent_indent="    ")
    for column, names, cells in group_tables(c):
        lines += ["", f"Accuracy by {column}, with its 95 % interval:", *table(names, cells).split("\n")]
    if c.disagreements:
        lines.append(f"WARNING: {c.disagreements} answers of the engines differ from those of the all-exits pass.")
    if words := baseline_words(c):
        lines += ["", *textwrap.wrap(f"Note: {words}", WIDTH)]
    if c.recommended is not None:
        best, full = c.recommended, c.batch_sizes[0].rows[0]
        measured = f"accuracy {best.accuracy:.4f} ({full.accuracy:.4f} at full depth)"
        depth = f"depth {best.mean_depth:.2f} of {c.layers}"
        lines += ["", f"Recommended speed {best.speed:g}, chosen on dev, the default: {measured}, {depth}"]
    return "\n".join(lines)


def baseline_words(comparison: Comparison) -> str:
    """What to know and to try where the model is no more accurate than TF-IDF and a linear SVM; empty where it is."""
    c, full = comparison, comparison.rows[0].accuracy
    if c.baseline_accuracy is None or full > c.baseline_accuracy:
        return ""
    texts = round(c.texts * (c.baseline_accuracy - full))
    if c.baseline_gained is None or c.baseline_lost is None:  # in files of earlier versions
        is_noise = c.baseline_accuracy <= c.accuracy_of(full).high
    else:
        is_noise = not is_beyond_noise(c.baseline_gained, c.baseline_lost)
    fewer = f"answers {texts} fewer of {c.texts} texts correctly than" if texts else "is no more accurate than"
    noise = f"; the difference is {'within' if is_noise else 'beyond'} the noise" if texts else ""
    return (
        f"this model at full depth (accuracy {full:.4f}) {fewer} TF-IDF + linear SVM trained on the same texts "
        f"({c.baseline_accuracy:.4f}){noise}. Try more epochs (--fine-tune.epochs), another learning rate "
        "(--fine-tune.learning-rate) or unlabelled texts (--data.unlabelled) in training, or use the SVM itself."
    )


def group_tables(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """For each column that was asked for: its name, the header, and a row of cells for each value."""
    if not comparison.answers:
        return []
    full, *shown = comparison.shown_answers
    header = ["texts", "full depth", *(f"speed {one.speed:g}" for one in shown)]
    tables = []
    for column in dict.fromkeys(one.column for one in full.groups):
        same = zip(*(one.groups for one in (full, *shown)), strict=True)
        rows = [
            [_cut(groups[0].value), str(groups[0].texts), *(with_interval(one.accuracy) for one in groups)]
            for groups in same
            if groups[0].column == column
        ]
        tables.append((column, [_cut(column), *header], rows))
    return tables


def with_interval(share: Share | None) -> str:
    """`0.9744 (0.9668 to 0.9803)`, or `-` for no share."""
    return f"{share.value:.4f} ({share.low:.4f} to {share.high:.4f})" if share else "-"


def against_full_depth(point: SpeedPoint) -> str:
    """How many texts gain and lose a correct answer, in words; empty where it is not known."""
    if point.gained is None or point.lost is None:
        return ""
    noise = "beyond" if is_beyond_noise(point.gained, point.lost) else "within"
    return f"{point.lost} lost, {point.gained} gained, {noise} the noise"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def blocks_of(comparison: Comparison) -> list[tuple[str, list[dict[str, str]]]]:
    """For each batch size: what was timed, in words, and the rows of the table, cells by the columns' names."""
    blocks = []
    for size in comparison.batch_sizes:
        batches = f"{size.timed_batches} batch" + "es" * (size.timed_batches > 1)
        title = f"batches of {size.batches}: {size.timed_texts} texts timed in {batches}"
        rows = [_cells(row, size, comparison) for row in (*size.rows, *size.baselines)]
        blocks.append((f"{title}, {size.padding_share:.0%} padding", rows))
    return blocks


def _cells(row: ComparisonRow, size: BatchSizeComparison, comparison: Comparison) -> dict[str, str]:
    """A row of the table. Texts per second are shown only for a GPU or TPU."""
    rate = {"texts/s": f"{size.timed_texts / statistics.median(row.seconds):.0f}"}
    return {
        "mode": row.mode,
        "speed": f"{row.speed:g}",
        "accuracy": f"{row.accuracy:.4f}",
        "depth": f"{row.mean_depth:.2f}",
        "FLOPs/paper": f"{row.paper_speedup:.2f}x",
        "FLOPs/true": f"{row.true_speedup:.2f}x",
        "measured": f"{row.speedup.median:.2f}x",
        "(min..max)": f"{row.speedup.low:.2f}..{row.speedup.high:.2f}",
        "efficiency": f"{row.efficiency:.2f}",
    } | (rate if comparison.origin.platform != "cpu" else {})


def notes(comparison: Comparison) -> list[str]:
    """How the numbers of a comparison were measured, a remark each."""
    return _rendered("notes.jinja", comparison=comparison, few_batches=FEW_BATCHES).splitlines()


def _fastest(size: BatchSizeComparison) -> str:
    """One line: the fastest modes of every speed."""
    parts = []
    for speed in size.speeds:
        rows = size.fastest(speed)
        words = f"{' or '.join(row.mode for row in rows)} {rows[0].speedup.median:.2f}x"
        if not size.is_faster(rows[0].speedups):
            words += " (no faster than full depth)"
        parts.append(f"speed {speed:g} {words}")
    return f"batches of {size.batches}: {'; '.join(parts)}"


def speed_table(comparison: Comparison) -> str:
    """Full depth, other models and every speed in Markdown: the paper's Table 2, with wall-clock time."""
    return _rendered("speeds.md.jinja", comparison=comparison).rstrip("\n")


def render_page(
    comparison: Comparison,
    values: Mapping[str, Any],
    *,
    model: str,
    data: str,
    mislabelled: Sequence[MislabelledText] = (),
) -> str:
    """The whole page. Characters that are no Unicode, such as half a surrogate pair, become question marks.

    Args:
      values: what the scripts draw, of `inference.report_page.page_values`.
      model: the model's directory, as a command names it.
      data: the texts, in words.
      mislabelled: texts to show and to download, ranked.
    """
    style, *scripts = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS))
    page = _rendered(
        "page.html",
        comparison=comparison,
        model=model,
        quoted_model=shlex.quote(model),
        data=data,
        blocks=blocks_of(comparison),
        notes=notes(comparison),
        warning=(words := baseline_words(comparison)) and words[0].upper() + words[1:],
        values=values,
        mislabelled=mislabelled,
        mislabelled_csv=_base64(mislabelled_csv(mislabelled).encode("utf-8", "replace")),
        style=style,
        script="\n".join(scripts),
        source_hash=source_hash,
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def curve_csv(comparison: Comparison) -> str:
    """The curve as CSV: a row for each of its speeds, with the columns of `POINT`."""
    values = comparison.to_json()["curve"]
    return _csv(POINT, ([one[key] for key in POINT] for one in values))


def speeds_csv(comparison: Comparison) -> str:
    """Every measurement as CSV: a row for each batch size, mode and speed; speedups are in wall-clock time."""
    header = ("batches", "mode", *POINT, "speedup", "speedup_low", "speedup_high", "efficiency")
    measured = ("median", "low", "high")
    rows = (
        [
            *(size.batches, row["mode"]),
            *(row[key] for key in POINT),
            *(row["speedup"][key] for key in measured),
            row["efficiency"],
        ]
        for size, values in zip(comparison.batch_sizes, comparison.to_json()["batch_sizes"], strict=True)
        for row in (*values["rows"], *values["baselines"])
    )
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def render_markdown(comparison: Comparison, name: str) -> str:
    """The tables of the FastBERT paper: speeds and other models (Table 2), every exit alone, and LUHA (figure 4)."""
    return _rendered("tables.md.jinja", comparison=comparison, name=name) + "\n"


def source_hash(source: str) -> str:
    """The hash of an inline script or style (the text between the tags) for a Content-Security-Policy."""
    return "sha256-" + _base64(hashlib.sha256(source.encode()).digest())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _rendered(template: str, **values: Any) -> str:
    import jinja2  # which takes longer to import than all else that answering texts needs of this file

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    functions = (with_interval, against_full_depth, group_tables, baseline_words)
    environment.globals |= {function.__name__: function for function in functions}
    environment.filters["cell"] = lambda text: html.escape(_cut(text), quote=False).replace("|", "\\|")
    return environment.get_template(template).render(values)

"""A report as one HTML page that holds all it needs: it opens from disk and asks nobody for anything.

Plots are drawn by the page's own scripts from numbers that stand in it as JSON. Names and texts are anybody's: the
template escapes what it shows, the JSON holds no `<`, and the scripts write text as text. The page lets no other script
run than its own, which it names by its hash, and makes no request (Content-Security-Policy).
"""

from __future__ import annotations

import shlex
from pathlib import Path

import jinja2
from markupsafe import Markup

from fastbert_jax.report.comparison_table import cells, header_of, notes, title
from fastbert_jax.report.html.contents import Report
from fastbert_jax.report.source_hash import source_hash

WHAT_A_REPORT_IS = "the same as pictures; open it in a browser"
"""Said beside the name of its file."""
HERE = Path(__file__).parent
SCRIPTS = ("elements.js", "axes.js", "plots.js", "page.js")
"""In the order in which they need each other."""


def render_page(report: Report) -> str:
    """The whole page. What is no Unicode in a name or a text, half a surrogate pair, becomes a question mark."""
    comparison = report.comparison
    header = header_of(comparison)
    style, script = _read("page.css"), "\n".join(map(_read, SCRIPTS))
    page = (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            comparison=comparison,
            model=shlex.quote(report.model),
            sizes=[(title(size), [cells(row, size, header) for row in size.rows]) for size in comparison.batch_sizes],
            header=header,
            notes=list(notes(comparison)),
            values=report.to_json(),
            style=Markup(style),
            script=Markup(script),
            style_hash=source_hash(style),
            script_hash=source_hash(script),
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")

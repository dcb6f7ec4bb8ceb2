"""A report as one HTML page that contains all it needs: it opens from disk and makes no request.

The page's own scripts draw the plots from numbers that it holds as JSON. Names and texts may come from anyone: the
template escapes what it shows, the JSON holds no `<`, and the scripts write text as text. The Content-Security-Policy
allows the page's own scripts, by their hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import cells, header_of, notes, title

ASSETS = Path(__file__).parent / "html"
SCRIPTS = ("elements.js", "axes.js", "plots.js", "page.js")
"""In the order in which they need each other."""


def render_page(comparison: Comparison, values: Mapping[str, Any], *, model: str, data: str) -> str:
    """The whole page. Characters that are no Unicode, such as half a surrogate pair, become question marks.

    Args:
      values: what the scripts draw, of `inference.report_page.page_values`.
      model: the model's directory, as a command names it.
      data: the texts, in words.
    """
    header = header_of(comparison)
    style, script = _read("page.css"), "\n".join(map(_read, SCRIPTS))
    page = (
        _environment()
        .get_template("page.html")
        .render(
            comparison=comparison,
            model=model,
            quoted_model=shlex.quote(model),
            data=data,
            sizes=[
                (title(size), [cells(row, size, header) for row in (*size.rows, *size.baselines)])
                for size in comparison.batch_sizes
            ],
            header=header,
            notes=list(notes(comparison)),
            values=values,
            style=Markup(style),
            script=Markup(script),
            style_hash=source_hash(style),
            script_hash=source_hash(script),
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def source_hash(source: str) -> str:
    """The hash of an inline script or style (the text between the tags) for a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")

"""HTTP for the page: three addresses, small bodies, and JSON with `error` for whatever is wrong."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from fastbert_jax.errors import UserError
from fastbert_jax.report.page import source_hash
from fastbert_jax.serving.answers import PageAnswers
from fastbert_jax.serving.hosts import is_allowed

MOST_BYTES = 64 * 1024
"""Of a request's body."""
READ_AWAY = 1024 * 1024
"""Of a body that is refused, so much is read before the answer, or the browser may never see it."""
SECONDS = 30
"""A connection that is silent for so long is closed."""
PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
    """The hashes by which a browser knows the page's own scripts or styles."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return " ".join(f"'{source_hash(part)}'" for part in parts)


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is answered by an error."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class PageHandler(BaseHTTPRequestHandler):
    """Answers one connection; `handler_of` gives it what it answers with."""

    answers: PageAnswers
    host: str
    """What the server is bound to."""
    timeout = SECONDS
    server_version, sys_version = "fastbert_jax", ""

    def do_GET(self) -> None:
        self._answer("GET", {"/": self._page, "/model": lambda: self._give_json(HTTPStatus.OK, self.answers.model())})

    def do_POST(self) -> None:
        self._answer("POST", {"/answer": self._answer_text})

    def _answer(self, method: str, routes: dict[str, Any]) -> None:
        try:
            if not is_allowed(self.headers.get("Host"), bound=self.host):
                raise Refusal(HTTPStatus.FORBIDDEN, f"Host: expected {self.host} or the loopback, found another name")
            path = self.path.partition("?")[0]
            if path not in routes:
                raise Refusal(HTTPStatus.NOT_FOUND, f"expected {method} {' or '.join(routes)}, found {path!r:.80}")
            routes[path]()
        except Refusal as refusal:
            self._give_json(refusal.status, {"error": str(refusal)})
        except UserError as error:
            self._give_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except ConnectionError:  # the browser has gone
            self.close_connection = True
        except Exception as error:
            self._give_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"})

    def _page(self) -> None:
        self._give(HTTPStatus.OK, PAGE.encode(), "text/html; charset=utf-8")

    def _answer_text(self) -> None:
        if self.headers.get_content_type() != "application/json":
            # A form of another site can send any text here, but not as JSON.
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json")
        try:
            question = json.loads(self._body())
        except (ValueError, RecursionError):
            raise Refusal(HTTPStatus.BAD_REQUEST, "expected a body of JSON in UTF-8") from None
        self._give_json(HTTPStatus.OK, self.answers.answer(question))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "Content-Length: expected the bytes of the body")
        if int(length) > MOST_BYTES:
            self.rfile.read(min(int(length), READ_AWAY))
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected a body of {MOST_BYTES} bytes at most, found {length}",
            )
        return self.rfile.read(int(length))

    def _give_json(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._give(status, json.dumps(values).encode(), "application/json")

    def _give(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, such as another method, also as JSON."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "expected GET or POST"
        self.close_connection = True
        self._give_json(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not written down."""


def handler_of(answers: PageAnswers, *, host: str) -> type[PageHandler]:
    """The handler of a server that is bound to `host`."""
    return type("Handler", (PageHandler,), {"answers": answers, "host": host})

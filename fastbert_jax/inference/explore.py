"""The explore command: a page on this machine that shows the answer of every layer to a typed text.

    GET /          the page
    GET /model     the model's facts, as JSON
    POST /answer   {"text": ..., "pair": ...} gives every exit's answer, as JSON

Whatever is wrong gets JSON with `error`. A page of another site can make its own name point to this machine (DNS
rebinding); its requests then carry that name as their `Host`, and are refused.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import re
import reprlib
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastbert_jax import stopping
from fastbert_jax.config import ExploreConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.explain import ExitPath, exit_paths
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info, result
from fastbert_jax.report.tables import source_hash
from fastbert_jax.text.columns import NO_PAIR

MOST_BYTES = 64 * 1024
"""Of a request's body."""
READ_AWAY = 1024 * 1024
"""Of a body that is refused, so much is read before the answer, or the browser may never see it."""
SECONDS = 30
"""Seconds after which a request is refused that has not arrived, or still waits for the model."""
MOST_CONNECTIONS = 32
"""Answered at a time, each by a thread; one more is refused."""
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n" + (
    b'{"error": "expected fewer connections at a time; ask again"}'
)
EXAMPLE = "A slow start, but the last half hour is wonderful."
"""The text that the page opens with."""
PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")


def explore(config: ExploreConfig) -> None:
    """Load the model, print the URL, and serve until Ctrl-C.

    Raises:
      UserError: no model, a backbone without exits, or an address that cannot be listened on.
      KeyboardInterrupt: at Ctrl-C, when the port is free again.
    """
    predictor = load(config.model, exits=config.exits)
    predictor.require_exits()
    if config.speed is None:
        info(predictor.default_speed_note)
    with open_server(config, predictor) as server:
        result(f"{url_of(server)} shows {config.model}; Ctrl-C ends it")
        if not _is_loopback(config.host):
            info("the page is reachable from other machines, without a password")
        server.serve_forever()


def open_server(config: ExploreConfig, predictor: Predictor) -> ThreadingHTTPServer:
    """A server that listens; `serve_forever` answers.

    Raises:
      UserError: the address is not this machine's, or its port is taken.
    """

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        daemon_threads = True  # a slow reader does not keep the process from ending
        places = threading.BoundedSemaphore(MOST_CONNECTIONS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.places.acquire(blocking=False):
                super().process_request(request, client_address)
                return
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.sendall(BUSY)
            self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.places.release()

        def service_actions(self) -> None:  # called twice a second
            stopping.look()

    class Handler(PageHandler):
        settings, model, alone = config, predictor, threading.Lock()
        speed = predictor.default_speed if config.speed is None else config.speed

    try:
        return Server((config.host, config.port), Handler)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        found = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot listen on {config.host} port {config.port}: {found}; pass --port 0 for any free port"
        ) from None


def example_of(model: Predictor) -> tuple[str, str]:
    """A text that the page begins with, and the second one for a model of pairs: a label where no word is known."""
    is_known = not model.tokenizer.wholly_unknown(model.tokenizer.encode([EXAMPLE], max_length=model.max_length)).any()
    is_pair = model.reading is not None and model.reading.pair_column not in ("", NO_PAIR)
    text = EXAMPLE if is_known else model.labels[0]
    return text, text if is_pair else ""


def url_of(server: ThreadingHTTPServer) -> str:
    """Where a browser finds the page."""
    host, port = server.server_address[:2]
    name = str(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


class Refusal(UserError):
    """A request that is answered by an error."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class TimedReader(io.RawIOBase):
    """The bytes of a connection until a moment; then TimeoutError, also for bytes that drip in."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As every raw stream; raises `TimeoutError` after the moment."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class PageHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection; `open_server` sets what it answers with."""

    settings: ExploreConfig
    model: Predictor
    speed: float
    """The page's first."""
    alone: threading.Lock
    """Held while the model runs: several requests at a time would only share the same cores."""
    timeout = SECONDS
    server_version, sys_version = "fastbert_jax", ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(TimedReader(self.connection, self.timeout))

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the browser has gone, or does not read its answer
            super().handle()

    def do_GET(self) -> None:
        self._respond({"/": lambda: PAGE, "/model": self._facts})

    def do_POST(self) -> None:
        self._respond({"/answer": self._answer})

    def _respond(self, routes: dict[str, Callable[[], Any]]) -> None:
        try:
            host = self.settings.host
            if not is_allowed(self.headers.get("Host"), bound=host):
                raise Refusal(HTTPStatus.FORBIDDEN, f"Host: expected {host} or the loopback, found another name")
            path = self.path.partition("?")[0]
            if path not in routes:
                expected = f"{self.command} {' or '.join(routes)}"
                raise Refusal(HTTPStatus.NOT_FOUND, f"expected {expected}, found {path!r:.80}")
            self._send(HTTPStatus.OK, routes[path]())
        except UserError as error:
            status = error.status if isinstance(error, Refusal) else HTTPStatus.BAD_REQUEST
            self._send(status, {"error": str(error)})
        except TimeoutError:
            self._send(HTTPStatus.REQUEST_TIMEOUT, {"error": f"expected the whole request in {self.timeout:g} seconds"})
        except ConnectionError:
            raise
        except Exception as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"})

    def _facts(self) -> dict[str, Any]:
        """What the page shows before a text is typed."""
        return {
            "name": self.settings.model,
            "labels": list(self.model.labels),
            "layers": self.model.config.num_layers,
            "max_length": self.model.max_length,
            "speed": self.speed,
            "example": example_of(self.model),
        }

    def _answer(self) -> ExitPath:
        """Every exit's answer to the text, or pair of texts, in the body."""
        if self.headers.get_content_type() != "application/json":
            # A form of another site can send any text here, but not as JSON.
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json")
        try:
            question = json.loads(self._body())
        except (ValueError, RecursionError):
            raise UserError("expected a body of JSON in UTF-8") from None
        if not isinstance(question, dict) or not question.keys() <= {"text", "pair"}:
            raise UserError('expected {"text": "..."} or {"text": "...", "pair": "..."}, found something else')
        text = _checked("text", question.get("text"))
        pair = None if question.get("pair") is None else _checked("pair", question["pair"])
        if not self.alone.acquire(timeout=self.timeout):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the model is busy with other questions; ask again")
        try:
            (path,) = exit_paths(self.model, [text if pair is None else (text, pair)], self.speed)
        finally:
            self.alone.release()
        return path

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "Content-Length: expected the bytes of the body")
        if int(length) > MOST_BYTES:
            self.rfile.read(min(int(length), READ_AWAY))
            words = f"expected a body of {MOST_BYTES} bytes at most, found {length}"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
        return self.rfile.read(int(length))

    def _send(self, status: HTTPStatus, content: Any) -> None:
        """Send a page as it is, and other values as JSON."""
        is_page = isinstance(content, str)
        body = (content if is_page else json.dumps(content)).encode()
        kind = "text/html; charset=utf-8" if is_page else "application/json"
        self.connection.settimeout(self.timeout)  # the reader has left it what it had
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
        self._send(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""


def _checked(key: str, value: Any) -> str:
    try:
        value.encode()  # JSON can hold half a character
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{key}: expected a string of Unicode text, found {reprlib.repr(value)}") from None
    return str(value)


def is_allowed(header: str | None, *, bound: str) -> bool:
    """Whether a `Host` header names the loopback or the host that the server is bound to.

    A server bound to all addresses (`0.0.0.0`, `::`) may be called by any of them: no name can be made to be one.
    """
    try:
        name = urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return False
    if _is_loopback(name) or name == bound.lower():
        return True
    address, own = _address(name), _address(bound)
    return address is not None and own is not None and (address == own or own.is_unspecified)


def _is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own for itself."""
    address = _address(name)
    return name.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


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
"""Of every response."""

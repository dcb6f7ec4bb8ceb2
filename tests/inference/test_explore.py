"""The page of `infer.py explore`, asked over a real socket."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from fastbert_jax.config import ExploreConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.explain import exit_paths
from fastbert_jax.inference.explore import MOST_BYTES, PAGE, is_allowed, open_server, url_of
from fastbert_jax.inference.predictor import Predictor
from tests.inference.saved import LABELS

ROOT = Path(__file__).parent.parent.parent
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(predictor: Predictor) -> Iterator[ThreadingHTTPServer]:
    with open_server(ExploreConfig(model="<b>runs</b>", port=0, speed=0.3), predictor) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: ThreadingHTTPServer,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def test_one_question_gives_what_every_exit_says(server: ThreadingHTTPServer, predictor: Predictor) -> None:
    for question, text in (
        ({"text": "good <b>film</b> 好"}, "good <b>film</b> 好"),
        ({"text": "good", "pair": "bad"}, ("good", "bad")),
        ({"text": "", "pair": None}, ""),
    ):
        status, headers, content = ask(server, "POST", "/answer", json.dumps(question), JSON)
        (path,) = exit_paths(predictor, [text], 0.3)
        assert status == 200 and headers["Content-Type"] == "application/json"
        assert json.loads(content) == path
    status, _, content = ask(server, "GET", "/model")
    facts = {"name": "<b>runs</b>", "labels": list(LABELS), "layers": 5, "max_length": 16, "speed": 0.3}
    assert (status, json.loads(content)) == (200, facts)


def test_the_page_asks_nobody_else_and_makes_no_markup_of_texts(server: ThreadingHTTPServer) -> None:
    status, headers, content = ask(server, "GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and content.decode() == PAGE
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "connect-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"https?:|//[a-z]|@import|src=|innerHTML|insertAdjacent|document\.write|eval\(", PAGE)
    assert not re.search(r"<[^>]+ (style|on[a-z]+)=", PAGE)  # the policy would not let them be
    assert "prefers-color-scheme: dark" in PAGE and 'lang="en"' in PAGE and "width=device-width" in PAGE
    for field in re.findall(r'<(?:textarea|input) id="(\w+)"', PAGE):
        assert f'<label for="{field}">' in PAGE, field
    assert PAGE.count('fetched("/answer"') == 1 and 'addEventListener("input", show)' in PAGE


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "expected a body of JSON in UTF-8"),
        (b"{", 400, "expected a body of JSON"),
        (b"\xff", 400, "expected a body of JSON"),
        (b"[" * 60_000, 400, "expected a body of JSON"),
        (b"[]", 400, 'expected {"text": "..."} or {"text": "...", "pair": "..."}, found something else'),
        (b'{"text": "a", "speed": 1}', 400, "found something else"),
        (b"{}", 400, "text: expected a string of Unicode text, found None"),
        (b'{"text": 1}', 400, "text: expected a string of Unicode text, found 1"),
        (b'{"text": "a", "pair": ["b"]}', 400, "pair: expected a string of Unicode text, found ['b']"),
        (b'{"text": "\\ud800"}', 400, "text: expected a string of Unicode text, found '\\ud800'"),
        (b'"' + b"a" * MOST_BYTES, 413, f"expected a body of {MOST_BYTES} bytes at most, found {MOST_BYTES + 1}"),
    ],
)
def test_wrong_questions_are_told_why(
    server: ThreadingHTTPServer, capfd: pytest.CaptureFixture[str], body: bytes, status: int, message: str
) -> None:
    found, headers, content = ask(server, "POST", "/answer", body, JSON)
    assert found == status and headers["Content-Type"] == "application/json"
    assert message in json.loads(content)["error"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("GET", "/nothing", {}, 404, "expected GET / or /model, found '/nothing'"),
        ("GET", "/../explore.py", {}, 404, "expected GET / or /model"),
        ("POST", "/", JSON, 404, "expected POST /answer, found '/'"),
        ("PUT", "/answer", {}, 405, "expected GET or POST"),
        ("OPTIONS", "/answer", {"Provenance": "http://evil.example"}, 405, "expected GET or POST"),
        ("GET", "/", {"Host": "evil.example"}, 403, "Host: expected 127.0.0.1 or the loopback, found another name"),
        ("POST", "/answer", {"Host": "evil.example", **JSON}, 403, "Host: expected"),
        ("POST", "/answer", {"Content-Type": "text/plain"}, 415, "Content-Type: expected application/json"),
        ("POST", "/answer", {"Content-Length": "-5", **JSON}, 411, "Content-Length: expected the bytes of the body"),
    ],
)
def test_wrong_requests_are_refused(
    server: ThreadingHTTPServer, method: str, path: str, headers: dict[str, str], status: int, message: str
) -> None:
    found, told, content = ask(server, method, path, "{}" if method == "POST" else None, headers)
    assert found == status and message in json.loads(content)["error"]
    assert "Access-Control-Allow-Provenance" not in told


def test_what_is_no_http_gets_an_answer_and_the_server_goes_on(server: ThreadingHTTPServer) -> None:
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(b"nonsense with too many words\r\n\r\n")
        assert b'{"error": ' in connection.recv(4096)
    assert ask(server, "GET", "/model")[0] == 200


def test_a_fault_of_the_model_is_an_error_of_the_server(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("fastbert_jax.inference.explore.exit_paths", fail)
    status, _, content = ask(server, "POST", "/answer", '{"text": "a"}', JSON)
    assert (status, json.loads(content)) == (500, {"error": "RuntimeError: out of memory"})
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_refused(server: ThreadingHTTPServer, predictor: Predictor) -> None:
    port = server.server_address[1]
    with pytest.raises(
        UserError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use; pass --port 0"
    ):
        open_server(ExploreConfig(model="x", port=port), predictor)
    with open_server(ExploreConfig(model="x", port=0, host="localhost"), predictor) as other:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url_of(other))


def test_ctrl_c_ends_the_command_and_frees_the_port(directory: Path) -> None:
    command = [sys.executable, "-W", "error", ROOT / "infer.py", "explore", "--model", directory, "--port", "0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/ shows .*; Ctrl-C ends it", line)
        assert found, line
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=60):  # an idle reader holds nothing up
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (130, b"", b"stopped\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])), timeout=60)


@pytest.mark.parametrize(
    ("header", "bound", "allowed"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("box.lan:8000", "box.lan", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5:80", "0.0.0.0", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example", "0.0.0.0", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("evil.example@", "127.0.0.1", False),
        ("10.0.0.5", "127.0.0.1", False),
        ("10.0.0.6", "10.0.0.5", False),
        ("[::1", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        (None, "127.0.0.1", False),
    ],
)
def test_only_the_loopback_and_the_bound_host_are_allowed(header: str | None, bound: str, allowed: bool) -> None:
    assert is_allowed(header, bound=bound) is allowed

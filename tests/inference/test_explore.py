"""The page of `infer.py explore`, asked over a real socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from fastbert_jax.config import ExploreConfig, ReadingConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.explain import exit_paths
from fastbert_jax.inference.explore import (
    EXAMPLE,
    MOST_BYTES,
    MOST_CONNECTIONS,
    PAGE,
    PageHandler,
    example_of,
    is_allowed,
    open_server,
    url_of,
)
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.text.tokenizer import train_tokenizer
from tests.inference.saved import LABELS, save_tiny_model

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
    facts["example"] = [EXAMPLE, ""]
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
    assert PAGE.count('fetched("/answer"') == 1


def test_the_first_text_suits_the_model(predictor: Predictor, tmp_path: Path) -> None:
    pairs = save_tiny_model(tmp_path / "model", reading=ReadingConfig(text_column="a", pair_column="b"))
    assert example_of(predictor) == (EXAMPLE, "") and example_of(load(pairs)) == (EXAMPLE, EXAMPLE)
    train_tokenizer(["好 不 坏"] * 9, vocab_size=12).save(pairs)
    assert example_of(load(pairs)) == (LABELS[0], LABELS[0])


def test_the_page_begins_with_an_answer_and_shows_all_classes_of_any_layer(
    server: ThreadingHTTPServer, browser
) -> None:
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(url_of(server))
    page.wait_for_selector("#classes li")
    assert page.input_value("#text") == EXAMPLE and page.locator("#layers tr").count() == 5

    def leaves() -> str:
        return page.inner_text("#layers tr.here td:first-child")

    assert page.inner_text("#of") == f"All classes after layer {leaves()}"
    labels = page.locator("#classes li").all_inner_texts()
    assert sorted(label.split()[0] for label in labels) == sorted(LABELS)
    page.click("#layers tr:nth-child(2) button")
    assert page.inner_text("#of") == "All classes after layer 2"
    assert page.evaluate("document.activeElement.textContent") == "2"
    page.fill("#speed", "0")
    assert leaves() == "5" and page.inner_text("#of") == "All classes after layer 5"
    assert not complaints
    page.close()


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


@pytest.fixture
def hurried(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> ThreadingHTTPServer:
    """The server, which waits a short time for a request."""
    monkeypatch.setattr(PageHandler, "timeout", 0.3)
    return server


def test_a_body_that_stalls_or_drips_is_refused_as_late(hurried: ThreadingHTTPServer) -> None:
    head = b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    for length in (100, MOST_BYTES + 1):
        with socket.create_connection(hurried.server_address[:2], timeout=60) as connection:
            connection.sendall(head + f"{length}\r\n\r\n".encode())
            connection.settimeout(0.05)
            answer = b""
            while not answer:  # each byte comes in time, all of them do not
                connection.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(4096)
            with contextlib.suppress(ConnectionResetError, TimeoutError):
                answer += connection.recv(4096)  # the body may come after the head
            assert answer.startswith(b"HTTP/1.0 408 ") and b"expected the whole request in 0.3 seconds" in answer
    with socket.create_connection(hurried.server_address[:2], timeout=60) as connection:
        connection.sendall(b"GET / HT")
        assert connection.recv(4096) == b""  # closed
    assert ask(hurried, "GET", "/model")[0] == 200


def test_questions_do_not_wait_for_the_model_without_end(hurried: ThreadingHTTPServer) -> None:
    with hurried.RequestHandlerClass.alone:
        status, _, content = ask(hurried, "POST", "/answer", '{"text": "a"}', JSON)
    assert status == 503 and "busy" in json.loads(content)["error"]
    assert ask(hurried, "POST", "/answer", '{"text": "a"}', JSON)[0] == 200


def test_connections_beyond_the_cap_are_refused_at_once(server: ThreadingHTTPServer) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        address = server.server_address[:2]
        for _ in range(MOST_CONNECTIONS + 5):
            connection = stack.enter_context(socket.create_connection(address, timeout=60))
        refused = connection.recv(4096)
        assert refused.startswith(b"HTTP/1.0 503 ") and json.loads(refused.partition(b"\r\n\r\n")[2])["error"]
        assert threading.active_count() <= before + MOST_CONNECTIONS
    for _ in range(100):  # until the threads have seen that their readers are gone
        with contextlib.suppress(ConnectionError):
            if ask(server, "GET", "/model")[0] == 200:
                return
        time.sleep(0.05)
    pytest.fail("the places were not given back")


def request_of(random: random.Random) -> bytes:
    """A question, or a request that is wrong in one or two of its parts."""
    wrong = random.sample(("line", "version", "host", "kind", "length", "body", "more"), random.randrange(3))

    def pick(part: str, right: bytes, *others: bytes) -> bytes:
        return random.choice((*others, random.randbytes(random.randrange(40)))) if part in wrong else right

    values = ["good", "", "[red]", "</script>", "\ud800", "\0", "a" * 3000, "好 🙂", 1, None, [], {}, 1e999, [["b"]]]
    question = {random.choice(("text", "pair", "speed", "")): random.choice(values) for _ in range(3)}
    right = json.dumps({"text": random.choice(values[:4])}).encode()
    nested = b"[" * random.randrange(1, 900)
    body = pick(
        "body",
        right,
        json.dumps(question).encode(),
        b"",
        right[:-1],
        b"[" * random.randrange(60_000),
        b'{"text": ' + nested + b"]" * len(nested) + b"}",
    )
    line = pick("line", b"POST /answer", b"GET /", b"GET /model", b"HEAD /", b"PUT /answer", b"GET")
    version = pick("version", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"")
    length = pick("length", str(len(body)).encode(), b"-1", b"x", b"9" * 30, b"", str(len(body) // 2).encode())
    headers = [
        b"Host: " + pick("host", b"localhost", b"127.0.0.1:1", b"evil.example", b"[::1"),
        b"Content-Type: " + pick("kind", b"application/json", b"application/json; charset=x", b"text/plain"),
        b"Content-Length: " + length,
        pick("more", b"X: y", b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Connection: keep-alive"),
    ]
    random.shuffle(headers)
    return line + b" " + version + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_request_is_a_fault_of_the_server(
    server: ThreadingHTTPServer, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(count)
    statuses: Counter[bytes] = Counter()
    for _ in range(count):
        request = request_of(generator)
        with socket.create_connection(server.server_address[:2], timeout=20) as connection:
            with contextlib.suppress(OSError):  # an answer may come before all of the request is sent
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    answer += part
        found = re.match(rb"HTTP/1\.0 (\d+) ", answer)
        statuses[found[1] if found else answer[:12]] += 1
    assert not [status for status in statuses if status.startswith(b"5")], statuses
    assert statuses[b"200"] > count / 4 and statuses[b"400"] > count / 20, statuses
    assert capfd.readouterr() == ("", "")
    assert ask(server, "POST", "/answer", '{"text": "a"}', JSON)[0] == 200


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
            time.sleep(0.5)  # a thread has it by then; Python leaves a socket open that a signal meets in `accept`
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, b"")
    assert re.fullmatch(rb"speed 0.5: the model has no recommended speed; .*\nstopped\n", errors)
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

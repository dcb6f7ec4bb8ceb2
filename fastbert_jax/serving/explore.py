"""The explore command: a page on this machine that shows the way of a typed text through the layers."""

from __future__ import annotations

import socket
from http.server import ThreadingHTTPServer

from fastbert_jax.config import ExploreConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load
from fastbert_jax.log import info, result
from fastbert_jax.serving.answers import PageAnswers
from fastbert_jax.serving.hosts import is_loopback
from fastbert_jax.serving.requests import handler_of


def explore(config: ExploreConfig) -> None:
    """Load the model, say the URL, and serve until Ctrl-C.

    Raises:
      UserError: no model, a backbone without exits, or an address that cannot be listened on.
      KeyboardInterrupt: at Ctrl-C, when the port is free again.
    """
    predictor = load(config.model, exits=config.exits)
    with open_server(config, PageAnswers(predictor, name=config.model, speed=config.speed)) as server:
        result(f"{url_of(server)} shows {config.model}; Ctrl-C ends it")
        if not is_loopback(config.host):
            info("others can reach this page, and it asks nobody for a password")
        server.serve_forever()


def open_server(config: ExploreConfig, answers: PageAnswers) -> ThreadingHTTPServer:
    """A server that listens; `serve_forever` answers.

    Raises:
      UserError: the address is not this machine's, or its port is taken.
    """

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        daemon_threads = True  # a slow reader keeps nobody from ending

    try:
        return Server((config.host, config.port), handler_of(answers, host=config.host))
    except OSError as error:
        raise UserError(
            f"explore: expected an address and a port to listen on, found {config.host} port {config.port}: "
            f"{error.strerror}; pass --port 0 for any free one"
        ) from None


def url_of(server: ThreadingHTTPServer) -> str:
    """Where a browser finds the page."""
    host, port = server.server_address[:2]
    name = str(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

"""Which names a request may call this machine by."""

from __future__ import annotations

import pytest

from fastbert_jax.serving.hosts import is_allowed


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

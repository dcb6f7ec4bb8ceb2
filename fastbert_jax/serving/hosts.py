"""Which names a request may call this machine by.

A page of somebody else can make its own name point here (DNS rebinding); its requests then bear that name, and are
refused.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_allowed(header: str | None, *, bound: str) -> bool:
    """Whether a `Host` header names the loopback or the host that the server is bound to.

    A server bound to all addresses (`0.0.0.0`, `::`) may be called by any of them: no name can be made to be one.
    """
    try:
        name = urlsplit(f"//{header}").hostname if header else None
    except ValueError:
        return False
    if not name:
        return False
    address, own = _address(name), _address(bound)
    if is_loopback(name) or name == bound.lower() or (address is not None and address == own):
        return True
    return address is not None and own is not None and own.is_unspecified


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own for itself."""
    address = _address(name)
    return name.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None

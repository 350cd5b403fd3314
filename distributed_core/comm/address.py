"""HOST:PORT: parse and print."""

from __future__ import annotations

import socket
from typing import NamedTuple

from distributed_core.errors import AddressError

_SCHEMES = ("tcp://", "tls://")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Return the address in `text`: HOST:PORT, [V6]:PORT, or HOST alone where there is a default port.

    Raises
    ------
    AddressError
        It does not parse.
    """
    if not isinstance(text, str):
        raise AddressError(f"an address is text like HOST:PORT, not {type(text).__name__}")
    rest = text.strip()
    for scheme in _SCHEMES:
        rest = rest.removeprefix(scheme)
    if rest.startswith("["):
        host, closed, tail = rest[1:].partition("]")
        port_text = tail.removeprefix(":") if tail.startswith(":") or not tail else "?"
        if not closed:
            host = ""
    elif rest.count(":") > 1:
        host, port_text = "", ""
    else:
        host, _, port_text = rest.partition(":")
    if not host.isprintable() or not host or any(each.isspace() or each in "/@" for each in host):
        port_text = "?"
    elif not port_text and default_port is not None and not rest.endswith(":"):
        return Address(host, default_port)
    if not (port_text.isascii() and port_text.isdigit()):
        raise AddressError(f"{text!r:.80} is no address; write HOST:PORT, for example 192.168.0.1:8786")
    port = int(port_text)
    if not 0 < port < 65536:
        raise AddressError(f"{text!r:.80} has the port {port_text:.20}; ports go from 1 to 65535")
    return Address(host, port)


def format_address(address: Address) -> str:
    """Return HOST:PORT, with brackets around an IPv6 host."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def outgoing_host() -> str:
    """Return the address of the interface that leads outside; 127.0.0.1 where none does.

    Connecting a UDP socket sends nothing; it only asks the routing table. The target is a documentation address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"

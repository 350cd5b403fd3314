"""How a function's body is named by its content."""

from __future__ import annotations

from collections.abc import Container, Iterable
from hashlib import blake2b
from typing import Any

from distributed_core import messages


def function_digest(body: bytes) -> bytes:
    """Return the 16 bytes that name a function by its content."""
    return blake2b(body, digest_size=16).digest()


def forged_functions(batch: Iterable[Any], known: Container[bytes]) -> list[str]:
    """Return the names of functions in a client's messages that come under a digest which is not that of their body.

    Those that are `known` are passed over: their bodies are not taken from here. So each body is read once.
    """
    forged = []
    for message in batch:
        if type(message) is messages.Submission:
            for entry in message.functions:
                try:
                    digest, name, body = entry
                    if digest not in known and function_digest(body) != digest:
                        forged.append(f"{name:.100}")
                except (TypeError, ValueError):
                    pass  # No function at all: the machine has words for that.
    return forged

"""A scheduler that tells its clients of most of their results, and not of all."""

from __future__ import annotations

from typing import Any

from distributed_core.messages import Finished

FORGOTTEN_EVERY = 40


def setup(server: Any) -> None:
    send = server.send
    told = 0

    def forgetful(peer: int, message: Any) -> None:
        nonlocal told
        if type(message) is Finished:
            told += 1
            if told % FORGOTTEN_EVERY == 0:
                return
        send(peer, message)

    server.send = forgetful

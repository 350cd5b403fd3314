"""A scheduler that leaves a file open for each connection."""

from __future__ import annotations

import os
from typing import Any


def setup(server: Any) -> None:
    welcome = server.welcome

    def leaking(channel: Any, hello: Any) -> Any:
        os.open(os.devnull, os.O_RDONLY)
        return welcome(channel, hello)

    server.welcome = leaking

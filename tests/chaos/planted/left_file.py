"""A worker that leaves a temporary file."""

from __future__ import annotations

import tempfile
from typing import Any


def setup(server: Any) -> None:
    handle, _ = tempfile.mkstemp()
    open(handle, "wb").close()

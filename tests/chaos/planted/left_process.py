"""A worker that starts a process and forgets it."""

from __future__ import annotations

import subprocess
from typing import Any


def setup(server: Any) -> None:
    subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)

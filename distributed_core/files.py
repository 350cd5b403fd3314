"""Files that are written whole, files of people that are read with care, and what a scheduler file says."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from distributed_core.errors import UsageError

#: What people write by hand, and what a scheduler writes, is less.
SMALL_BYTES_MAX = 1 << 20


def read_small(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Return the text of a small file and its mode; never wait for a pipe, nor read a device without end.

    Raises
    ------
    OSError, ValueError
        It cannot be read, is no such file, or is no text.
    """
    # Opening a pipe would wait for who writes to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, encoding="utf-8") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no file but a folder, a pipe, a socket or a device")
        if about.st_size > SMALL_BYTES_MAX:
            raise ValueError(f"it has {about.st_size} bytes, {SMALL_BYTES_MAX} are allowed")
        return file.read(SMALL_BYTES_MAX), stat.S_IMODE(about.st_mode)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that nobody ever reads half of it.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    import tempfile

    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}); choose another place") from None


def scheduler_file_text(identity: dict[str, Any], credential: str | None) -> str:
    """Return what a scheduler file says: where the scheduler is, and which credential leads in."""
    named = {key: identity[key] for key in ("type", "id", "address", "pid")}
    named["credential"] = credential
    named["insecure"] = credential is None
    return json.dumps(named, indent=2) + "\n"

"""Files that are written whole, and what a scheduler file says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from distributed_core.errors import UsageError


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

"""How much memory there is, and how much a process takes: read from the files in which Linux says so.

Every function takes the root folder under which those files lie, so that tests can make up machines.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What control groups write where there is no limit: `max`, or in version 1 a number near 2**63.
UNLIMITED_BYTES = 1 << 60


def machine_memory_bytes(root: str | os.PathLike[str] = "/") -> int:
    """Return the bytes of memory that this process may take at most: the machine's, or a control group's if less."""
    limit = cgroup_limit_bytes(root)
    total = _total_bytes(Path(root))
    return min(total, limit) if limit is not None else total


def cgroup_limit_bytes(root: str | os.PathLike[str] = "/") -> int | None:
    """Return the smallest memory limit of this process's control groups and of all above them, or None.

    Version 2 says it in `memory.max` (and in `memory.high`, above which processes are held up), version 1 in
    `memory.limit_in_bytes`. In a container the path that the kernel tells may be one of the host's that is not there:
    then the nearest folder above it that is counts, at last the mount itself.
    """
    base = Path(root)
    found: list[int] = []
    for line in _text(base / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                found += _limits(base / mount, path, ("memory.max", "memory.high"))
        elif "memory" in controllers.split(","):
            found += _limits(base / "sys/fs/cgroup/memory", path, ("memory.limit_in_bytes",))
    return min(found, default=None)


def process_memory_bytes(pid: int | None = None, root: str | os.PathLike[str] = "/") -> int:
    """Return the bytes of memory that a process takes, this one by default; 0 if there is none.

    Pages of mapped files do not count: the system takes them back when it needs them. So results that were read back
    from disk by mapping do not count either.
    """
    here = os.getpid() if pid is None else pid
    kilobytes = 0
    for line in _text(Path(root) / "proc" / str(here) / "status").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            kilobytes += int(line.split()[1])
    if kilobytes:
        return kilobytes * 1024
    import psutil

    try:
        return int(psutil.Process(here).memory_info().rss)
    except psutil.Error:
        return 0


def _limits(mount: Path, path: str, names: tuple[str, ...]) -> list[int]:
    """Return the limits of the folder `path` under `mount` and of those above it."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    found = []
    for depth in range(len(parts), -1, -1):
        for name in names:
            text = _text(mount.joinpath(*parts[:depth]) / name).strip()
            if text.isdigit() and int(text) < UNLIMITED_BYTES:
                found.append(int(text))
    return found


def _total_bytes(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    import psutil

    return int(psutil.virtual_memory().total)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

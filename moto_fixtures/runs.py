"""The folders in which clouds keep the disks of their machines, and the removal of what killed clouds left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from moto_fixtures import cage, host
from moto_fixtures.region import run_tool


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for the disks of one cloud, locked as long as the cloud lives."""
    runs = host.cache_folder() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    if _file_system(runs) == "overlay":  # as in a container; an overlay cannot lie on another one
        run_tool("mount", "-t", "tmpfs", "tmpfs", str(runs))
    with open(runs / "lock", "w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        sweep(runs)
        folder = runs / secrets.token_hex(4)
        folder.mkdir()
        alive = os.open(folder / "alive", os.O_CREAT | os.O_WRONLY)
        fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        cage.sweep(cgroup_prefix(folder))
        os.close(alive)


def cgroup_prefix(folder: Path) -> str:
    """How the names of the cgroups of a cloud begin.  folder: the cloud's own."""
    return f"{cage.PREFIX}{folder.name}-"


def sweep(runs: Path) -> None:
    """Remove what killed clouds left: their disks and their empty cgroups.  runs: the folder of all clouds' folders."""
    for folder in runs.iterdir():
        if not folder.is_dir():
            continue
        try:
            with open(folder / "alive") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cage.sweep(cgroup_prefix(folder))
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # that cloud lives


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, found, *_ = line.split()
        inside = place == "/" or str(folder) == place or str(folder).startswith(place + "/")
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind

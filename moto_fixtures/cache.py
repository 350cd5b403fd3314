"""Folders that are made once and kept: whole or not at all, whoever makes them and however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """The folder `place`; if it is not there, `make` fills a working folder beside it, which is then renamed.

    One maker works at a time; others wait and find its result.  What a killed maker left is removed by the next one.
    Raises what `make` raises; there is no folder then.
    """
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with _only_maker(place.parent):
        if place.is_dir():  # another maker finished while this one waited
            return place
        for left in place.parent.glob("making-*"):  # whoever made them held the lock, and is gone
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
        try:
            make(work)
            work.chmod(0o755)
            os.rename(work, place)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return place


@contextlib.contextmanager
def _only_maker(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""A cgroup per machine: it keeps the machines apart, limits their memory and can freeze them.

The host may have cgroup v1 (one tree per controller), v2 (one tree), or both.  Each machine gets a group of its own
below the group of this process, in every tree.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

#: The trees of cgroup v1 that a machine needs a group of its own in.
CONTROLLERS = ("memory", "freezer", "cpu", "pids", "name=systemd")

#: How long the kernel may take to let go of the processes of a machine that is gone.
REMOVAL_TIMEOUT_S = 5.0

PREFIX = "tc-"


def trees() -> dict[str, Path]:
    """The group of this process in each tree, by controller; `unified` is cgroup v2."""
    mounts = _mounts()
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ["unified"]:
            base = mounts.get(name)
            if base is None or name not in (*CONTROLLERS, "unified"):
                continue
            place = base / path.lstrip("/")
            found[name] = place if place.is_dir() else base  # with a cgroup namespace the path may lead outside
    return found


def _mounts() -> dict[str, Path]:
    mounts: dict[str, Path] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts["unified"] = Path(place)
        elif kind == "cgroup":
            mounts.update({option: Path(place) for option in options.split(",")})
    return mounts


def sweep(prefix: str) -> None:
    """Remove the empty groups whose name begins with the prefix; groups in use stay."""
    for tree in trees().values():
        for group in tree.glob(f"{prefix}*"):
            _remove(group)


def _remove(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return not group.exists()
    return not group.exists()


class Cage:
    """The groups of one machine.

    name: unique on the host; begins with `tc-`.
    memory_bytes_max: beyond it the kernel kills processes of the machine, and the machine lives on.
    """

    def __init__(self, name: str, memory_bytes_max: int) -> None:
        places = trees()
        if "unified" in places and "memory" not in places:
            with contextlib.suppress(OSError):  # refused below the root if the group has processes: then no limit
                (places["unified"] / "cgroup.subtree_control").write_text("+memory")
        self._groups = {controller: tree / name for controller, tree in places.items()}
        for group in self._groups.values():
            group.mkdir(exist_ok=True)
        for controller, limit in (("memory", "memory.limit_in_bytes"), ("unified", "memory.max")):
            file = self._groups.get(controller, Path("/nonexistent")) / limit
            if file.exists():
                file.write_text(str(memory_bytes_max))

    def doors(self) -> list[str]:
        """The files into which a process writes 0 to enter."""
        return [str(group / "cgroup.procs") for group in self._groups.values()]

    def freeze(self) -> None:
        """Stop all processes of the machine where they are; its kernel side goes on taking connections."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let the processes of the machine go on."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        if "freezer" in self._groups:
            (self._groups["freezer"] / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        else:
            (self._groups["unified"] / "cgroup.freeze").write_text("1" if frozen else "0")

    def remove(self) -> None:
        """Remove the groups of a machine that is gone; what the kernel still holds on to is left to `sweep`."""
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        for group in self._groups.values():
            # There is no event for the moment at which the kernel has let go of the last process.
            while not _remove(group) and time.monotonic() < deadline:
                time.sleep(0.01)

"""Which versions a process has, and which differences between processes matter.

What is installed is read from the names of the folders that installers leave (`numpy-2.1.0.dist-info`): that takes a
millisecond, where importing `importlib.metadata` takes tens of them, and every connection needs it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

#: The distribution that brings this package.
OWN = "dec2"
#: What every process tells when it connects; between client and workers also what pickles depend on.
WIRE = ("distributed_core", "msgpack")
PICKLED = ("cloudpickle", "dask", "numpy", "pandas")
ADVICE = "install the same versions everywhere, or expect functions and data that cannot be opened"
_INSTALLED = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-[^-]+)*\.(?:dist|egg)-info")


class VersionMismatchWarning(UserWarning):
    """Client, scheduler and workers have different versions of Python or of a package that both use."""


@cache
def installed() -> dict[str, str]:
    """Return the version of each installed distribution by its normalized name, as `sys.path` finds it."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith("-info"):
                match = _INSTALLED.fullmatch(name)
                if match is not None:
                    found.setdefault(_normal(match["name"]), match["version"])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def own_versions() -> dict[str, str]:
    """Return what this process tells others when it connects: versions by name, without what is not installed."""
    known = installed()
    made = {"python": platform.python_version()}
    for name in (*WIRE, *PICKLED):
        version = known.get(_normal(OWN if name == "distributed_core" else name))
        if version is not None:
            made[name] = version
    return made


def report(packages: Iterable[str] | None = None) -> dict[str, Any]:
    """Return all that `Client.get_versions` shows of a process, as plain data; what is not installed is None."""
    installed.cache_clear()
    known = installed()
    own = own_versions()
    named: dict[str, str | None] = {name: own.get(name) for name in ("python", *WIRE, *PICKLED)}
    for name in ("tornado", *(packages or ())):
        named[name] = known.get(_normal(name)) or _imported(name)
    host = {
        "python": platform.python_version(),
        "python-bits": 64 if sys.maxsize > 1 << 32 else 32,
        "OS": platform.system(),
        "OS-release": platform.release(),
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
    }
    return {"host": host, "packages": named}


def _imported(name: str) -> str | None:
    version = getattr(sys.modules.get(name), "__version__", None)
    return version if isinstance(version, str) else None


def differences(own: dict[str, Any], others: list[tuple[str, dict[str, Any], bool]]) -> list[str]:
    """Return a sentence for each thing of which somebody else has another version.

    Parameters
    ----------
    own
        The versions of this process.
    others
        (who, versions, whether pickles travel between them and this process) each. What only one side has installed is
        no difference: functions that do not use it run all the same.
    """
    found = []
    for name in ("python", *WIRE, *PICKLED):
        mine = own.get(name)
        whose: dict[str, list[str]] = {}
        pickles = False
        for who, versions, opens in others:
            theirs = versions.get(name)
            if mine is None or theirs is None or (not opens and name in PICKLED):
                continue
            if _significant(name, str(mine)) != _significant(name, str(theirs)):
                whose.setdefault(str(theirs), []).append(who)
                pickles |= opens
        if whose:
            rest = ", ".join(f"{version} on {_some(names)}" for version, names in whose.items())
            text = f"{name} {mine} here, {rest}"
            if name == "python":
                text += (
                    " (pickled functions of one minor version of Python break on another)"
                    if pickles
                    else " (which does no harm: the scheduler opens no pickled function)"
                )
            found.append(text)
    return found


def warning_at_connect(welcome: dict[str, Any]) -> str | None:
    """Return what a client is to hear about versions, from the details of the scheduler's welcome, or None."""
    others = [("the scheduler", welcome.get("versions") or {}, False)]
    for versions, names, count in welcome.get("workers") or ():
        who = "1 worker" if count == 1 else f"{count} workers"
        others.append((f"{who} ({', '.join(names)}{', ...' * (count > len(names))})", versions, True))
    found = differences(own_versions(), others)
    return f"versions differ: {'; '.join(found)}; {ADVICE}" if found else None


def _significant(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "python" else version


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

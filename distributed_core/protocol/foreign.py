"""Modules that workers cannot be expected to have: what comes from them travels by value.

A module that lies neither in the standard library nor in a folder of installed packages is taken for one: a script's
neighbour, a test, a notebook's helper. It costs nothing where they have it after all.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from types import ModuleType

import cloudpickle

_OURS = ("distributed_core", "dec2")
_INSTALLED_FOLDERS = ("/site-packages/", "/dist-packages/")
#: Names that make a pickle one to be made by value, as they stand in it.
_names: dict[bytes, ModuleType | None] = {b"__main__": None}
_looked_at: dict[str, None] = {}
_registered: dict[bytes, None] = {b"__main__": None}


def travels_by_value(body: bytes) -> bool:
    """Tell whether a pickle mentions what workers cannot import, and let cloudpickle take that along."""
    if len(sys.modules) != len(_looked_at):
        _look()
    found = [name for name in _names if name in body]
    for name in found:
        if name not in _registered:
            _registered[name] = None
            cloudpickle.register_pickle_by_value(_names[name])
    return bool(found)


def _look() -> None:
    """Look at the modules that were imported since the last time."""
    modules = dict(sys.modules)
    for name, module in modules.items():
        if name not in _looked_at and _is_foreign(name, module):
            # The package stands for its modules: cloudpickle takes those along too.
            top = name.partition(".")[0]
            known = modules.get(top)
            _names.setdefault(top.encode() if known is not None else name.encode(), known or module)
    _looked_at.clear()
    _looked_at.update(dict.fromkeys(modules))


def _is_foreign(name: str, module: ModuleType | None) -> bool:
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or name == "__main__" or name.partition(".")[0] in _OURS:
        return False
    installed = path.startswith(_installed()) or any(folder in path for folder in _INSTALLED_FOLDERS)
    return not installed


@cache
def _installed() -> tuple[str, ...]:
    """Return the folders of the standard library and of installed packages."""
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

"""Which modules workers cannot import: scripts, what lies beside them, notebooks. What they define travels by value.

A module is taken for one that workers have if it belongs to Python, or is installed, an editable installation too.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

import cloudpickle

#: Top-level modules that workers cannot import, by their names as a pickle mentions them.
_absent: dict[bytes, ModuleType | None] = {b"__main__": None}
_registered: dict[bytes, None] = {b"__main__": None}
_OURS = ("distributed_core", "dec2")
_INSTALLED_FOLDERS = ("/site-packages/", "/dist-packages/")
_examined: dict[str, None] = dict.fromkeys(("__main__", "__mp_main__", *_OURS, *sys.builtin_module_names))
_loaded = 0


def travels_by_value(body: bytes) -> bool:
    """Tell whether a pickle mentions what workers cannot import; cloudpickle will then take that along."""
    _note_modules()
    mentioned = [name for name in _absent if name in body]
    for name in mentioned:
        module = _absent[name]
        if name not in _registered and module is not None:
            _registered[name] = None
            cloudpickle.register_pickle_by_value(module)
    return bool(mentioned)


def travels(module: str | None) -> bool:
    """Tell whether what the module of that name defines travels by value."""
    _note_modules()
    return module is None or module.partition(".")[0].encode() in _absent


def _note_modules() -> None:
    """Look at the modules that were loaded since the last time."""
    global _loaded
    if len(sys.modules) == _loaded:
        return
    _loaded = len(sys.modules)
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top not in _examined:
            _examined[top] = None
            module = sys.modules.get(top)
            if module is not None and _is_absent(top, module):
                _absent[top.encode()] = module


def _is_absent(name: str, module: ModuleType) -> bool:
    # It takes a while to load, and is needed only where something lies beside a script.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        path = getattr(module, "__file__", None)
        paths = [path] if path else list(getattr(module, "__path__", ()))
        if not paths or module.__name__ != name or name in sys.stdlib_module_names:
            return False
        if any(path.startswith(_standard()) or any(each in path for each in _INSTALLED_FOLDERS) for path in paths):
            return False
        distribution(name)
        return False
    except PackageNotFoundError:
        return True
    except Exception:
        return False  # a module that is no module: some packages put stand-ins there


@cache
def _standard() -> tuple[str, ...]:
    import sysconfig

    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

"""Modules that an operator names on the command line (`--preload`): imported at the start, with hooks of their own.

On the scheduler they are also the only code that a client can call by name, since the scheduler opens no pickles.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from distributed_core.errors import UsageError

logger = logging.getLogger(__name__)

HOW = "start it with: dscheduler --preload {module}"


class Preloads:
    """The modules that the operator allowed.

    Parameters
    ----------
    specs
        `MODULE`, `MODULE:FUNCTION` (of its names, clients may use this one only), or the path of a .py file.

    Raises
    ------
    UsageError
        One of them cannot be imported, or has no such function.
    """

    def __init__(self, specs: Iterable[str] = ()) -> None:
        #: By module: the names that clients may use, or None for all that the module defines.
        self.allowed: dict[str, dict[str, None] | None] = {}
        self.modules: dict[str, ModuleType] = {}
        self._set_up: list[ModuleType] = []
        for spec in [specs] if isinstance(specs, str) else specs:
            self._load(spec)

    def _load(self, spec: str) -> None:
        where, _, name = spec.partition(":")
        module = _import_file(where) if where.endswith(".py") else _import_name(where)
        self.modules[module.__name__] = module
        if not name:
            self.allowed[module.__name__] = None
        else:
            if not callable(getattr(module, name, None)):
                raise UsageError(f"--preload {spec}: the module {where} has no function {name}; check the name")
            known = self.allowed.setdefault(module.__name__, {})
            if known is not None:
                known[name] = None

    async def set_up(self, server: Any) -> None:
        """Call `setup(server)`, or `dask_setup(server)`, of each module that has it.

        Raises
        ------
        UsageError
            One of them raised.
        """
        for module in self.modules.values():
            await self._hook(module, ("setup", "dask_setup"), server)
            self._set_up.append(module)

    async def tear_down(self, server: Any) -> None:
        """Call `teardown(server)`, or `dask_teardown(server)`, of each module that was set up; a failure is logged."""
        while self._set_up:
            try:
                await self._hook(self._set_up.pop(), ("teardown", "dask_teardown"), server)
            except UsageError as error:
                logger.error("%s: %s", server.id, error)

    async def _hook(self, module: ModuleType, names: tuple[str, ...], server: Any) -> None:
        for name in names:
            hook = getattr(module, name, None)
            if callable(hook):
                try:
                    value = hook(server)
                    if inspect.isawaitable(value):
                        await value
                except Exception as error:
                    text = f"--preload {module.__name__}: its {name} raised {type(error).__name__}: {error}"
                    raise UsageError(text) from error
                return

    def find(self, path: str) -> Any:
        """Return what the import path `module:name` names.

        Raises
        ------
        UsageError
            The operator did not allow it, or it is not there.
        """
        module_name, colon, name = path.partition(":")
        if not colon or not module_name or not name:
            raise UsageError(f"{path!r:.80} is no import path; write it as module:function")
        module = self.modules.get(module_name)
        if module is None:
            known = ", ".join(self.modules) or "none"
            how = HOW.format(module=module_name)
            raise UsageError(f"the scheduler's operator did not allow the module {module_name} (but {known}); {how}")
        allowed = self.allowed[module_name]
        if allowed is not None and name not in allowed:
            known = ", ".join(f"{module_name}:{each}" for each in allowed)
            raise UsageError(f"of {module_name} the operator allowed {known} only; {HOW.format(module=path)}")
        found = getattr(module, name, None)
        own = getattr(found, "__module__", None) == module_name or name in getattr(module, "__all__", ())
        if found is None or (allowed is None and (name.startswith("_") or not own)):
            raise UsageError(f"the module {module_name} defines no public {name}; check the name")
        if not callable(found):
            raise UsageError(f"{path} is a {type(found).__name__} and cannot be called; name a function or a class")
        return found


def _import_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"--preload {name} cannot be imported ({type(error).__name__}: {error})") from error


def _import_file(path: str) -> ModuleType:
    file = os.path.abspath(path)
    name = os.path.basename(path).removesuffix(".py")
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == file:
            return known
        raise UsageError(f"--preload {path}: another module {name} is imported already; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not os.path.exists(file):
        raise UsageError(f"--preload {path} is not there; check the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"--preload {path} cannot be imported ({type(error).__name__}: {error})") from error
    return module

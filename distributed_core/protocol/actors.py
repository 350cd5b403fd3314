"""An actor where it lives: its object, and the one thread in which its methods are called."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from distributed_core.context import context


class ActorBox:
    """An actor in its worker's memory. Pickled, it becomes an `Actor`: a proxy that knows where it lives.

    Attributes
    ----------
    instance
        The object.
    key
        The name of the task that made it.
    methods, attributes
        What a proxy offers: the public ones that it had when it was made.
    """

    __slots__ = ("_thread", "address", "attributes", "instance", "key", "methods", "name", "task")

    def __init__(self, instance: Any, key: str) -> None:
        self.instance = instance
        self.key = key
        self.address: str = context.worker.address
        self.task = context.task
        kind = type(instance)
        names = [name for name in dir(instance) if not name.startswith("_")]
        self.methods = [name for name in names if callable(getattr(kind, name, None))]
        self.attributes = [name for name in names if name not in self.methods]
        self.name = kind.__name__
        self._thread: ThreadPoolExecutor | None = None

    @property
    def thread(self) -> ThreadPoolExecutor:
        """Where its methods are called, one after the other and beside the worker's tasks."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"actor-{self.name}")
        return self._thread

    def proxy(self) -> Any:
        """Return what others see of it."""
        return revive(*self._facts())

    def __reduce__(self) -> Any:
        return revive, self._facts()

    def _facts(self) -> tuple[str, int, str, str, list[str], list[str]]:
        return self.address, self.task, self.key, self.name, self.methods, self.attributes

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None:
            thread.shutdown(wait=False)


def make_actor(kind: Callable[..., Any], key: str, /, *args: Any, **kwargs: Any) -> ActorBox:
    """Make an actor; the function of the task that `submit(..., actor=True)` submits."""
    return ActorBox(kind(*args, **kwargs), key)


def revive(address: str, task: int, key: str, name: str, methods: list[str], attributes: list[str]) -> Any:
    """Return the proxy of an actor."""
    # The proxy lives on the client's floor, and what makes it on a lower one: the package's lazy door leads there.
    return import_module("distributed_core").Actor(address, task, key, name, methods, attributes)

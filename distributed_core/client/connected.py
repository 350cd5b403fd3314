"""What the parts of the client share: its session, its life, and the bridge from blocking calls to the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Self

from distributed_core.client.blocking import LoopThread
from distributed_core.client.locating import find_scheduler
from distributed_core.client.session import Session
from distributed_core.comm.address import format_address
from distributed_core.comm.sleeping import watch_for_sleep
from distributed_core.errors import ClientClosed, UsageError
from distributed_core.versions import VersionMismatchWarning, warning_at_connect

logger = logging.getLogger(__name__)

OWN_WORKERS_TIMEOUT_S = 60.0

_current: list[weakref.ref[Connected]] = []
#: The client of `Client.as_current()`, in its thread or asyncio task.
chosen: ContextVar[Any] = ContextVar("chosen", default=None)


class Connected:
    """A connection to a scheduler, blocking or asynchronous over the same session; see `Client` for the parameters."""

    def __init__(
        self,
        address: Any = None,
        *,
        scheduler_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        direct: bool | None = None,
        asynchronous: bool = False,
        set_as_default: bool = True,
        weight: float = 1.0,
        reconnect_timeout: float = 30.0,
        **cluster_options: Any,
    ) -> None:
        #: The cluster that this client started, or was given.
        self.cluster: Any = None
        self._owns_cluster = False
        if address is None and scheduler_file is None:
            address = self.cluster = _new_cluster(credential, insecure, cluster_options)
            self._owns_cluster = True
        elif cluster_options:
            raise UsageError(f"{', '.join(cluster_options)}: options of a new cluster; leave them or the address out")
        if address is not None and not isinstance(address, str):
            self.cluster = address
            address, credential, insecure = _entrance(address)
        where, holder = find_scheduler(address, scheduler_file, credential, insecure)
        self.asynchronous = asynchronous
        self._timeout_s = timeout
        self._set_as_default = set_as_default
        self._session = Session(where, holder, direct, weight, reconnect_timeout)
        self._session.listeners |= {"print": [_print_here], "warn": [_warn_here]}
        self.id = self._session.id
        self._digests: weakref.WeakKeyDictionary[Any, tuple[bytes, str, Any]] = weakref.WeakKeyDictionary()
        self._thread: LoopThread | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        if not asynchronous:
            try:
                self._thread = LoopThread("client")
                self._thread.run(self._enter())
            except BaseException:
                self._closed = True
                try:
                    if self._thread is not None:
                        self._thread.stop()
                finally:
                    self._end_cluster()
                raise
            self._compare_versions(3)
            self._remember()

    # --- life -------------------------------------------------------------------------------------

    def _remember(self) -> None:
        if self._set_as_default:
            _current.append(weakref.ref(self))

    @classmethod
    def current(cls, allow_global: bool = True) -> Self:
        """Return the client of `as_current()`, else the one that was opened last, of those that are not closed.

        Parameters
        ----------
        allow_global
            Accepted for the sake of dask's signature.

        Raises
        ------
        UsageError
            There is none.
        """
        around = chosen.get()
        if around is not None and not around._closed and isinstance(around, cls):
            return around
        while _current:
            client = _current[-1]()
            if client is not None and not client._closed and isinstance(client, cls):
                return client
            _current.pop()
        raise UsageError("there is no open client here; make one with Client(address)")

    async def _enter(self) -> None:
        await self._session.open(self._timeout_s)
        session = self._session  # a task that held the client itself would keep it from being collected
        self._watch = asyncio.ensure_future(watch_for_sleep(lambda: session._channel))
        if self._owns_cluster:
            # Where there are workers of our own, one may ask about them at once.
            wish = {"n": self.cluster.n_workers, "timeout": OWN_WORKERS_TIMEOUT_S}
            await self._session.call("wait_for_workers", wish)

    async def _open(self) -> Self:
        await self._enter()
        self._compare_versions(2)
        self._remember()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open() if self._session._channel is None else self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __enter__(self) -> Self:
        if self.asynchronous:
            raise UsageError("an asynchronous client is entered with `async with`")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> Any:
        """Leave the cluster. Futures of this client are released there; more calls raise `ClientClosed`.

        Parameters
        ----------
        timeout
            Seconds to wait for the scheduler to take what is queued for it; by default some.
        """
        if self.asynchronous:
            self._closed = True
            return self._close_all()
        if not self._closed and self._thread is not None:
            self._closed = True
            try:
                self._thread.run(self._leave(), timeout)
            except TimeoutError:
                logger.info("the scheduler did not take what was left for it")
            finally:
                # After Ctrl-C too.
                try:
                    self._thread.stop()
                finally:
                    self._end_cluster()
        return None

    async def _close_all(self) -> None:
        await self._leave()
        await asyncio.to_thread(self._end_cluster)

    async def _leave(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._session.close()

    def _end_cluster(self) -> None:
        """End the cluster that this client started, if it did."""
        if self._owns_cluster:
            self._owns_cluster = False
            self.cluster.close()

    def _compare_versions(self, depth: int) -> None:
        text = warning_at_connect(self._session.welcome_details)
        if text is not None:
            warnings.warn(text, VersionMismatchWarning, stacklevel=depth)

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and not self._closed:
            self._closed = True
            thread.loop.call_soon_threadsafe(thread.loop.stop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} of {format_address(self._session.address)}, {state}>"

    # --- the bridge -------------------------------------------------------------------------------

    def sync(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine, or a coroutine function with these arguments, on the client's loop; return its result.

        Raises
        ------
        ClientClosed
            The client was closed.
        UsageError
            The client is asynchronous: await the coroutine instead.
        """
        if self._thread is None:
            raise UsageError("an asynchronous client has no loop of its own; await the coroutine instead")
        work = func(*args, **kwargs) if callable(func) else func
        if self._closed:
            work.close()
            raise ClientClosed("this client is closed; make a new one")
        return self._thread.run(work)

    def _answer(self, work: Coroutine[Any, Any, Any]) -> Any:
        return work if self.asynchronous else self.sync(work)

    def _refuse_own_loop(self) -> None:
        if self._thread is not None and threading.current_thread() is self._thread._thread:
            raise UsageError("a callback on the client's own loop cannot wait; do it in another thread")

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this client is closed; make a new one")
        if self._session.closed:
            where = format_address(self._session.address)
            raise ClientClosed(f"the scheduler at {where} is gone; make a new Client when it is back")


def _new_cluster(credential: Any, insecure: bool, options: dict[str, Any]) -> Any:
    """Start a cluster on this machine, for a client that was given no address.

    `LocalCluster` is a floor higher and knows the client; the package's own door opens it when it is asked for.
    """
    return import_module("distributed_core").LocalCluster(credential=credential, insecure=insecure, **options)


def _entrance(cluster: Any) -> tuple[str, Any, bool]:
    """Return the address, credential and security of a cluster that is given in place of an address."""
    found = getattr(cluster, "entrance", None)
    if found is None:
        raise UsageError(f"a Client takes HOST:PORT or a LocalCluster, not {type(cluster).__name__}")
    address, credential, insecure = found
    return address, credential, insecure


def _print_here(notice: Any) -> None:
    from distributed_core.client.sharing import print_here

    print_here(notice)


def _warn_here(notice: Any) -> None:
    from distributed_core.client.sharing import warn_here

    warn_here(notice)

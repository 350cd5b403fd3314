"""What the parts of the client share: its session, its life, and the bridge from blocking calls to the loop."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Self

from distributed_core.client.blocking import LoopThread
from distributed_core.client.locating import find_scheduler
from distributed_core.client.session import Session
from distributed_core.comm.address import format_address
from distributed_core.errors import ClientClosed, UsageError

_current: list[weakref.ref[Connected]] = []
#: The client of `Client.as_current()`, in its thread or asyncio task.
chosen: ContextVar[Any] = ContextVar("chosen", default=None)


class Connected:
    """A connection to a scheduler, blocking or asynchronous over the same session; see `Client` for the parameters."""

    def __init__(
        self,
        address: str | None = None,
        *,
        scheduler_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        direct: bool | None = None,
        asynchronous: bool = False,
    ) -> None:
        where, holder = find_scheduler(address, scheduler_file, credential, insecure)
        self.asynchronous = asynchronous
        self._timeout_s = timeout
        self._session = Session(where, holder, direct)
        self.id = self._session.id
        self._digests: weakref.WeakKeyDictionary[Any, tuple[bytes, str]] = weakref.WeakKeyDictionary()
        self._thread: LoopThread | None = None
        self._closed = False
        if not asynchronous:
            self._thread = LoopThread("client")
            try:
                self._thread.run(self._session.open(timeout))
            except BaseException:
                self._closed = True
                self._thread.stop()
                raise
            _current.append(weakref.ref(self))

    # --- life -------------------------------------------------------------------------------------

    @classmethod
    def current(cls) -> Self:
        """Return the client of `as_current()`, else the one that was opened last, of those that are not closed.

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

    async def _open(self) -> Self:
        await self._session.open(self._timeout_s)
        _current.append(weakref.ref(self))
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

    def close(self) -> Any:
        """Leave the cluster. Futures of this client are released there; more calls raise `ClientClosed`."""
        if self.asynchronous:
            self._closed = True
            return self._session.close()
        if not self._closed and self._thread is not None:
            self._closed = True
            self._thread.run(self._session.close())
            self._thread.stop()
        return None

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and not self._closed:
            self._closed = True
            thread.loop.call_soon_threadsafe(thread.loop.stop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} of {format_address(self._session.address)}, {state}>"

    # --- the bridge -------------------------------------------------------------------------------

    def sync(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the session and return its result."""
        assert self._thread is not None
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

"""Actors as others see them: proxies whose methods are called where the actor lives."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from distributed_core.client.future import Future
from distributed_core.context import away
from distributed_core.errors import ActorLost, ConnectionLost, RemoteError
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.actors import revive

if TYPE_CHECKING:
    from distributed_core.client.client import Client


class ActorFuture:
    """The result of a call of an actor's method."""

    def __init__(self, client: Client, outcome: concurrent.futures.Future[Any]) -> None:
        self._client = client
        self._outcome = outcome

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it; with an asynchronous client, await this object instead.

        Raises
        ------
        TimeoutError
            It was not there within `timeout` seconds.
        ActorLost
            The worker of the actor is gone.
        Exception
            What the method raised.
        """
        with away():
            return self._outcome.result(timeout)

    def done(self) -> bool:
        """Tell whether the call has ended."""
        return self._outcome.done()

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self._outcome).__await__()

    def __repr__(self) -> str:
        return f"<ActorFuture, {'done' if self.done() else 'pending'}>"


class Actor:
    """An object that lives on a worker; `client.submit(Class, actor=True).result()` gives one.

    Its methods return an `ActorFuture`, and are called one after the other, in the order in which this client called
    them; its attributes are read directly. It lives while any proxy or future of it does, and dies with its worker: its
    state is nowhere else.
    """

    def __init__(self, address: str, task: int, key: str, name: str, methods: list[str], attributes: list[str]) -> None:
        self._address = address
        self._task = task
        self._key = key
        self._name = name
        self._methods = methods
        self._attributes = attributes
        # It keeps the actor alive, and knows through whom to reach it.
        self._future = Future(key)

    def __reduce__(self) -> Any:
        return revive, (self._address, self._task, self._key, self._name, self._methods, self._attributes)

    def __repr__(self) -> str:
        return f"<Actor: {self._name}, key: {self._key}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods, *self._attributes]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._methods:
            return self._method(name)
        if name not in self._attributes:
            # Others probe objects for names of their own: that must not cost a call.
            raise AttributeError(f"the actor {self._name} had no {name!r} when it was made")
        future = self._ask("actor_get", name, ((), {}))
        return future if self._future.client.asynchronous else future.result()

    def _method(self, name: str) -> Callable[..., ActorFuture]:
        def call(*args: Any, **kwargs: Any) -> ActorFuture:
            return self._ask("actor_call", name, (args, kwargs))

        call.__name__ = name
        return call

    def _ask(self, op: str, name: str, given: Any) -> ActorFuture:
        client: Any = self._future.client
        client._check_open()
        payload = payloads.dumps(given)
        work = self._call(client, op, {"task": self._task, "name": name, "payload": payload})
        # `_ask` may be called in any thread; the order of these hops is the order of the calls.
        outcome: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(work, client._session._loop)
        return ActorFuture(client, outcome)

    async def _call(self, client: Any, op: str, arguments: dict[str, Any]) -> Any:
        try:
            well, frames = await client._session.bulk.ask_worker(self._address, op, arguments)
        except (ConnectionLost, OSError) as error:
            text = f"the worker at {self._address} that had the actor {self._key} is gone ({error}); make a new actor"
            raise ActorLost(text) from None
        except RemoteError as error:
            raise ActorLost(f"the actor {self._key} is gone: {error}; make a new one") from None
        if well:
            return payloads.loads(frames)
        raise payloads.loads_exception(frames)

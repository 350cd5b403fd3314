"""Things with a name, by which tasks and clients coordinate themselves, wherever they run.

Each is known by its name on the whole cluster, can be an argument of tasks, and is released when its holder's
connection ends. Inside a task the client is the worker's own. With an asynchronous client, methods return coroutines.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distributed_core.client.asking import own_error
from distributed_core.client.future import Future
from distributed_core.errors import RemoteError, UsageError
from distributed_core.protocol import payload as payloads

if TYPE_CHECKING:
    from distributed_core.client.client import Client


class NamedThing:
    """What the named things have in common.

    Parameters
    ----------
    name
        Whoever uses the same name means the same thing; by default a new one.
    client
        By default `get_client()`, when it is first needed.
    """

    def __init__(self, name: str | None = None, client: Client | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise UsageError(f"the name of a {type(self).__name__} is text, not {type(name).__name__}")
        self.name = name or f"{type(self).__name__.lower()}-{uuid.uuid4().hex}"
        self._client = client

    @property
    def client(self) -> Client:
        """The client through which it is used."""
        if self._client is None or self._client._closed:
            from distributed_core.client.client import get_client

            self._client = get_client()
        return self._client

    def __reduce__(self) -> Any:
        return type(self), (self.name,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def _ask(
        self,
        operation: str,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
        value: list[Any] | None = None,
    ) -> tuple[bool, Any]:
        """Ask the scheduler; return whether the answer came in time, and it."""
        session = self.client._session
        asked = {
            "operation": operation,
            "name": self.name,
            "arguments": arguments or {},
            "timeout": timeout,
            "value": value,
        }
        try:
            well, answer = await session.call("coordinate", asked)
        except RemoteError as error:
            raise own_error(error) from None
        return well, answer

    async def _answer_of(self, operation: str, arguments: dict[str, Any] | None = None) -> Any:
        return (await self._ask(operation, arguments))[1]

    def _do(self, work: Any) -> Any:
        return self.client._answer(work)

    async def _open(self, handed: list[Any]) -> Any:
        return await open_kept(self.client, handed)


def dump_kept(value: Any) -> list[Any]:
    """Return a value as the scheduler keeps it: `[frames, names of the futures inside]`."""
    frames, references = payloads.dumps_call((value,), {})
    return [frames, [future.key for future in references]]


async def open_kept(client: Client, handed: list[Any]) -> Any:
    """Return the value that the scheduler handed over, with futures of this client inside."""
    frames, keys, receipt = handed
    args, _ = payloads.loads_call(frames, [Future(key, client) for key in keys])
    if receipt:
        # The wishes of the futures were queued before this call.
        await client._session.call("value_taken", {"receipts": [receipt]})
    return args[0]


class MultiLock:
    """Several locks, held together or not at all.

    Parameters
    ----------
    names
        The names of the locks.
    client
        As for every named thing.
    """

    def __init__(self, names: Sequence[str] = (), client: Client | None = None) -> None:
        self.names = list(names)
        if not self.names or not all(isinstance(name, str) for name in self.names):
            raise UsageError(f"a MultiLock has the names of its locks, not {names!r:.80}")
        self._lease = uuid.uuid4().hex
        self._thing = NamedThing(self.names[0], client)

    def __reduce__(self) -> Any:
        return type(self), (self.names,)

    def acquire(self, blocking: bool = True, timeout: float | None = None, num_locks: int | None = None) -> Any:
        """Wait until the locks are ours; return whether they are.

        Parameters
        ----------
        blocking
            Whether to wait at all.
        timeout
            Seconds to wait at most.
        num_locks
            So many of them are enough; by default all.
        """
        if not blocking:
            if timeout is not None:
                raise UsageError("a timeout says nothing where acquire is not to block")
            timeout = 0.0
        arguments = {"names": self.names, "count": num_locks or len(self.names), "lease": self._lease}
        return self._thing._do(self._acquire(arguments, timeout))

    async def _acquire(self, arguments: dict[str, Any], timeout: float | None) -> bool:
        return (await self._thing._ask("lock_acquire", arguments, timeout))[0]

    def release(self) -> Any:
        """Let go.

        Raises
        ------
        UsageError
            The locks are not held by this object.
        """
        return self._thing._do(self._release())

    async def _release(self) -> None:
        await self._thing._ask("lock_release", {"lease": self._lease})

    def __enter__(self) -> Any:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    async def __aenter__(self) -> Any:
        await self.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.release()


class Lock(MultiLock):
    """A lock on the whole cluster; first come, first served.

    Parameters
    ----------
    name
        Whoever uses the same name means the same lock; by default a new one.
    client
        By default `get_client()`.

    Examples
    --------
    >>> with Lock("printer"):
    ...     pass
    """

    def __init__(self, name: str | None = None, client: Client | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise UsageError(f"the name of a Lock is text, not {type(name).__name__}")
        self.name = name or f"lock-{uuid.uuid4().hex}"
        super().__init__([self.name], client)

    def __reduce__(self) -> Any:
        return Lock, (self.name,)

    def locked(self) -> Any:
        """Tell whether anybody holds it."""
        return self._thing._do(self._thing._answer_of("lock_locked"))


class Semaphore(NamedThing):
    """At most `max_leases` holders at a time, on the whole cluster.

    Parameters
    ----------
    max_leases
        The same for all that use the name; another number is an error when it is used.
    name, client
        As for every named thing.
    """

    def __init__(self, max_leases: int = 1, name: str | None = None, client: Client | None = None) -> None:
        super().__init__(name, client)
        if not isinstance(max_leases, int) or max_leases < 1:
            raise UsageError(f"max_leases is a whole number from 1 on, not {max_leases!r:.60}")
        self.max_leases = max_leases
        self._leases: list[str] = []

    def __reduce__(self) -> Any:
        return Semaphore, (self.max_leases, self.name)

    def acquire(self, timeout: float | None = None) -> Any:
        """Wait for a lease, for at most `timeout` seconds; return whether there is one."""
        return self._do(self._acquire(timeout))

    async def _acquire(self, timeout: float | None) -> bool:
        lease = uuid.uuid4().hex
        well, _ = await self._ask("semaphore_acquire", {"most": self.max_leases, "lease": lease}, timeout)
        if well:
            self._leases.append(lease)
        return well

    def release(self) -> Any:
        """Give the lease back that was acquired last by this object.

        Raises
        ------
        UsageError
            It has none.
        """
        if not self._leases:
            raise UsageError(f"this object holds no lease of the semaphore {self.name}")
        return self._do(self._release(self._leases.pop()))

    async def _release(self, lease: str) -> None:
        await self._ask("semaphore_release", {"most": self.max_leases, "lease": lease})

    def get_value(self) -> Any:
        """Return how many leases are held, by whomever."""
        return self._do(self._answer_of("semaphore_value", {"most": self.max_leases}))

    def close(self) -> Any:
        """Take it away; whoever waits for it gets an error."""
        return self._do(self._answer_of("semaphore_close"))

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    async def __aenter__(self) -> Semaphore:
        await self.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.release()


class Event(NamedThing):
    """A flag on the whole cluster, that can be waited for."""

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is set, for at most `timeout` seconds; return whether it is."""
        return self._do(self._wait(timeout))

    async def _wait(self, timeout: float | None) -> bool:
        return (await self._ask("event_wait", timeout=timeout))[0]

    def set(self) -> Any:
        """Set it; all who wait go on."""
        return self._do(self._nothing("event_set"))

    def clear(self) -> Any:
        """Take it back."""
        return self._do(self._nothing("event_clear"))

    def is_set(self) -> Any:
        """Tell whether it is set."""
        return self._do(self._answer_of("event_is_set"))

    async def _nothing(self, operation: str) -> None:
        await self._ask(operation)


class Queue(NamedThing):
    """A queue on the whole cluster, of futures or anything else that can be sent. Futures in it are kept alive.

    It is there while any client that used it is.

    Parameters
    ----------
    maxsize
        How many values it takes before `put` waits; 0 is any number.
    """

    def __init__(self, name: str | None = None, client: Client | None = None, maxsize: int = 0) -> None:
        super().__init__(name, client)
        self.maxsize = maxsize

    def __reduce__(self) -> Any:
        return Queue, (self.name, None, self.maxsize)

    def put(self, value: Any, timeout: float | None = None) -> Any:
        """Add a value.

        Raises
        ------
        TimeoutError
            There was no room within `timeout` seconds.
        """
        return self._do(self._put(dump_kept(value), timeout))

    async def _put(self, value: list[Any], timeout: float | None) -> None:
        well, _ = await self._ask("queue_put", {"most": self.maxsize}, timeout, value)
        if not well:
            raise TimeoutError(f"the queue {self.name} had no room within {timeout:g} s")

    def get(self, timeout: float | None = None, batch: bool | int = False) -> Any:
        """Take the oldest value out, or with `batch` a list: all that there are (True), or so many.

        Raises
        ------
        TimeoutError
            There was nothing within `timeout` seconds.
        """
        return self._do(self._get(timeout, batch))

    async def _get(self, timeout: float | None, batch: bool | int) -> Any:
        count = -1 if batch is True else int(batch)
        well, handed = await self._ask("queue_get", {"most": self.maxsize, "batch": count}, timeout)
        if not well:
            raise TimeoutError(f"the queue {self.name} had not enough within {timeout:g} s")
        values = [await self._open(each) for each in handed]
        return values if batch else values[0]

    def qsize(self) -> Any:
        """Return how many values are in it."""
        return self._do(self._answer_of("queue_qsize", {"most": self.maxsize}))

    def close(self) -> Any:
        """Take it away, with what is in it."""
        return self._do(self._answer_of("queue_close"))


class Variable(NamedThing):
    """A value on the whole cluster, a future or anything else that can be sent. It stays until it is deleted."""

    def set(self, value: Any, timeout: float | None = None) -> Any:
        """Give it a value, in place of the one that it had."""
        return self._do(self._set(dump_kept(value)))

    async def _set(self, value: list[Any]) -> None:
        await self._ask("variable_set", value=value)

    def get(self, timeout: float | None = None) -> Any:
        """Return its value, once it has one.

        Raises
        ------
        TimeoutError
            It had none within `timeout` seconds.
        """
        return self._do(self._get(timeout))

    async def _get(self, timeout: float | None) -> Any:
        well, handed = await self._ask("variable_get", timeout=timeout)
        if not well:
            raise TimeoutError(f"the variable {self.name} had no value within {timeout:g} s")
        return await self._open(handed)

    def delete(self) -> Any:
        """Take its value away."""
        return self._do(self._delete())

    async def _delete(self) -> None:
        await self._ask("variable_delete")

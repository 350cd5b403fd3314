"""Questions of a client to the scheduler and, through it, to workers and nannies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed_core import errors
from distributed_core.client.connected import Connected
from distributed_core.client.options import worker_names
from distributed_core.errors import EngineError, RemoteError, UsageError
from distributed_core.protocol import payload as payloads

ON_ERROR = ("raise", "return", "ignore")


class Asking(Connected):
    """What the parts of the client that ask have in common."""

    async def _ask(self, op: str, /, **arguments: Any) -> Any:
        """Call a handler of the scheduler; what fails there raises here as what it is."""
        try:
            return await self._session.call(op, arguments)
        except RemoteError as error:
            raise own_error(error) from None

    async def _ask_each(
        self, op: str, arguments: dict[str, Any], workers: Any = None, *, nanny: bool = False
    ) -> dict[str, Any]:
        """Call a handler of workers or nannies; return `[True, value]` or `[False, sentence]` by worker address."""
        chosen = None if workers is None else names_of(workers)
        found: dict[str, Any] = await self._ask("broadcast", op=op, arguments=arguments, workers=chosen, nanny=nanny)
        return found

    async def _values(self, op: str, arguments: dict[str, Any], workers: Any, *, nanny: bool = False) -> dict[str, Any]:
        """Call a handler of workers or nannies and return the values; one that did not answer is an error."""
        values = {}
        for address, (well, value) in (await self._ask_each(op, arguments, workers, nanny=nanny)).items():
            if not well:
                raise RemoteError(str(value))
            values[address] = value
        return values


def names_of(workers: Any) -> list[str]:
    """Return names or addresses of workers as a list.

    Raises
    ------
    UsageError
        There are none, or they are no such thing.
    """
    if not isinstance(workers, str | int) and isinstance(workers, Iterable) and not list(workers):
        raise UsageError("workers is empty; name at least one, or leave it out for all")
    return worker_names(workers)


def own_error(error: RemoteError) -> Exception:
    """Return what a handler raised, where it is an error of this package; else the error as it came."""
    name, _, text = str(error).partition(": ")
    made = getattr(errors, name, None)
    if isinstance(made, type) and issubclass(made, EngineError):
        return made(text)
    return TimeoutError(text or "it took too long") if name == "TimeoutError" else error


def outcome_of(answer: list[Any]) -> tuple[bool, Any]:
    """Return whether a function that ran elsewhere returned, and its value or its exception."""
    reached, said = answer
    if not reached:
        return False, RemoteError(str(said))
    well, frames, _ = said
    if well:
        return True, payloads.loads(frames) if frames else None
    return False, payloads.loads_exception(frames)

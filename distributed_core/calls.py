"""Calls of a server's handlers by hand: `rpc`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from distributed_core.comm import loops
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import open_channel
from distributed_core.comm.credential import load_or_create
from distributed_core.settings import DEFAULT_PORT


class rpc:
    """The handlers of a remote scheduler, worker or nanny, as methods.

    Inside a running event loop a call returns a coroutine; elsewhere it blocks and returns the value.

    Parameters
    ----------
    address
        HOST:PORT.
    credential
        The path of the cluster's credential; by default the user's own.
    insecure
        The server runs without security.
    timeout_s
        Seconds to wait for the connection and for each reply.

    Raises
    ------
    ConnectError, CredentialRefused
        From a call: the server cannot be reached, or does not accept the credential.
    RemoteError
        From a call: the handler failed, or there is none of that name.

    Examples
    --------
    >>> rpc("127.0.0.1:8786").identity()["type"]
    'Scheduler'
    >>> await rpc("127.0.0.1:8786").terminate()
    'OK'
    """

    def __init__(
        self,
        address: str,
        *,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        timeout_s: float = 10.0,
    ) -> None:
        self._address = parse_address(address, DEFAULT_PORT)
        self._credential = None if insecure else load_or_create(credential)
        self._timeout_s = timeout_s

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op.startswith("_"):
            raise AttributeError(op)

        def call(**arguments: Any) -> Any:
            work = self._call(op, arguments)
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return loops.run(work)
            return work

        call.__name__ = op
        return call

    async def _call(self, op: str, arguments: dict[str, Any]) -> Any:
        channel, _ = await open_channel(self._address, self._credential, "rpc", timeout_s=self._timeout_s)
        channel.read_replies()
        try:
            return await channel.call(op, arguments, self._timeout_s)
        finally:
            await channel.close()

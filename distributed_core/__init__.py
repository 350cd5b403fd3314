"""A distributed task engine: one scheduler, many workers, each under a nanny, and a client with futures.

The floors; a file imports only lower floors and its own folder:

    0  errors ids settings      one error tree; frozen limits
    1  messages                 every word on the wire, by direction
    2  machines/                pure: events in, instructions out
    2  protocol/                framing, msgpack codec, user payloads; sans-IO
    3  comm/                    addresses, Tornado TCP, TLS credential
    3  sim/                     the whole cluster on virtual time
    4  servers/                 Scheduler, Worker, Nanny: thin shells around the machines
    4  client/                  Client, Future, as_completed, wait
    5  calls local ssh cli      rpc by hand, LocalCluster, the commands

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed_core.calls import rpc
    from distributed_core.client.client import Client, get_client
    from distributed_core.client.future import Future
    from distributed_core.client.graphs import futures_of
    from distributed_core.client.waiting import as_completed, wait
    from distributed_core.local import LocalCluster
    from distributed_core.servers.nanny import Nanny
    from distributed_core.servers.scheduler import Scheduler
    from distributed_core.servers.worker import Worker

__all__ = [
    "Client",
    "Future",
    "LocalCluster",
    "Nanny",
    "Scheduler",
    "Worker",
    "as_completed",
    "futures_of",
    "get_client",
    "rpc",
    "wait",
]

_HOMES = {
    "Client": "client.client",
    "Future": "client.future",
    "LocalCluster": "local",
    "Nanny": "servers.nanny",
    "Scheduler": "servers.scheduler",
    "Worker": "servers.worker",
    "as_completed": "client.waiting",
    "futures_of": "client.graphs",
    "get_client": "client.client",
    "rpc": "calls",
    "wait": "client.waiting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value

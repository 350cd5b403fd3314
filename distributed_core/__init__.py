"""A distributed task engine: one scheduler, many workers, each under a nanny, and a client with futures.

The floors; a file imports only lower floors and its own folder:

    0  errors ids settings      one error tree; frozen limits
    0  quantities versions      text to quantities; versions and what differs; files written whole; plugins
       files plugins
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
    from distributed_core.client.actors import Actor, ActorFuture
    from distributed_core.client.client import Client, get_client
    from distributed_core.client.coordination import Event, Lock, MultiLock, Queue, Semaphore, Variable
    from distributed_core.client.future import Future
    from distributed_core.client.graphs import futures_of
    from distributed_core.client.waiting import as_completed, fire_and_forget, wait
    from distributed_core.errors import Reschedule
    from distributed_core.inside import get_worker, print, rejoin, secede, warn, worker_client
    from distributed_core.local import LocalCluster
    from distributed_core.plugins import (
        Environ,
        NannyPlugin,
        PipInstall,
        SchedulerPlugin,
        UploadDirectory,
        UploadFile,
        WorkerPlugin,
    )
    from distributed_core.servers.nanny import Nanny
    from distributed_core.servers.scheduler import Scheduler
    from distributed_core.servers.worker import Worker
    from distributed_core.ssh import SSHCluster
    from distributed_core.versions import VersionMismatchWarning

__all__ = [
    "Actor",
    "ActorFuture",
    "Client",
    "Environ",
    "Event",
    "Future",
    "LocalCluster",
    "Lock",
    "MultiLock",
    "Nanny",
    "NannyPlugin",
    "PipInstall",
    "Queue",
    "Reschedule",
    "SSHCluster",
    "Scheduler",
    "SchedulerPlugin",
    "Semaphore",
    "UploadDirectory",
    "UploadFile",
    "Variable",
    "VersionMismatchWarning",
    "Worker",
    "WorkerPlugin",
    "as_completed",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_worker",
    "print",
    "rejoin",
    "rpc",
    "secede",
    "wait",
    "warn",
    "worker_client",
]

_HOMES = {
    "Actor": "client.actors",
    "ActorFuture": "client.actors",
    "warn": "inside",
    "print": "inside",
    "Variable": "client.coordination",
    "Semaphore": "client.coordination",
    "Queue": "client.coordination",
    "MultiLock": "client.coordination",
    "Lock": "client.coordination",
    "Event": "client.coordination",
    "Client": "client.client",
    "Environ": "plugins",
    "Future": "client.future",
    "LocalCluster": "local",
    "Nanny": "servers.nanny",
    "NannyPlugin": "plugins",
    "PipInstall": "plugins",
    "Reschedule": "errors",
    "SSHCluster": "ssh",
    "Scheduler": "servers.scheduler",
    "SchedulerPlugin": "plugins",
    "UploadDirectory": "plugins",
    "UploadFile": "plugins",
    "VersionMismatchWarning": "versions",
    "Worker": "servers.worker",
    "WorkerPlugin": "plugins",
    "as_completed": "client.waiting",
    "fire_and_forget": "client.waiting",
    "futures_of": "client.graphs",
    "get_client": "client.client",
    "get_worker": "inside",
    "rejoin": "inside",
    "rpc": "calls",
    "secede": "inside",
    "worker_client": "inside",
    "wait": "client.waiting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value

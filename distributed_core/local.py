"""A cluster on this machine: the scheduler and the nannies in this process, the workers in their own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from distributed_core.client.blocking import LoopThread
from distributed_core.client.client import Client
from distributed_core.comm.address import parse_address


class LocalCluster:
    """A scheduler and workers on loopback, as a context manager.

    Parameters
    ----------
    n_workers
        Worker processes; by default one per core.
    threads_per_worker
        Tasks that run at once in each.
    credential, insecure
        As for `Scheduler`.
    memory_limit_bytes
        A worker process that takes more is started anew; 0 is no limit.

    Examples
    --------
    >>> with LocalCluster(n_workers=2) as cluster, cluster.client() as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    """

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int = 1,
        *,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        memory_limit_bytes: int = 0,
    ) -> None:
        self.n_workers = n_workers if n_workers is not None else os.cpu_count() or 1
        self._thread = LoopThread("cluster")
        self._servers: list[Any] = []
        self._credential = credential
        self._insecure = insecure
        self._closed = False
        options: dict[str, Any] = {"credential": credential, "insecure": insecure, "host": "127.0.0.1"}
        try:
            self.address = self._thread.run(self._start(options, threads_per_worker, memory_limit_bytes))
        except BaseException:
            self.close()
            raise

    async def _start(self, options: dict[str, Any], nthreads: int, memory_limit_bytes: int) -> str:
        from distributed_core.servers.nanny import Nanny
        from distributed_core.servers.scheduler import Scheduler

        scheduler = Scheduler(**options)
        scheduler.start(0)
        self._servers.append(scheduler)
        for _ in range(self.n_workers):
            host, port = parse_address(scheduler.address)
            nanny = Nanny(host, port, nthreads=nthreads, memory_limit_bytes=memory_limit_bytes, **options)
            nanny.start(0)
            self._servers.append(nanny)
        return str(scheduler.address)

    def client(self, **options: Any) -> Client:
        """Return a client of this cluster, once all its workers have registered."""
        client = Client(self.address, credential=self._credential, insecure=self._insecure, **options)
        if not client.asynchronous:
            client.wait_for_workers(self.n_workers, timeout=60)
        return client

    def close(self) -> None:
        """End the workers and the scheduler."""
        if not self._closed:
            self._closed = True
            self._thread.run(self._stop())
            self._thread.stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(server.close() for server in reversed(self._servers)))

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

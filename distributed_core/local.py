"""A cluster on this machine: the scheduler and the nannies in this process, the workers in their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from distributed_core.client.blocking import LoopThread
from distributed_core.client.client import Client
from distributed_core.comm.address import parse_address
from distributed_core.errors import UsageError
from distributed_core.quantities import checked_resources, memory_share_bytes


class LocalCluster:
    """A scheduler and workers on loopback, as a context manager. Workers are named 0, 1, ...

    Parameters
    ----------
    n_workers
        Worker processes; by default one per core, or with threads one.
    threads_per_worker
        Tasks that run at once in each; by default one, or with threads one per core.
    credential, insecure
        As for `Scheduler`.
    memory_limit
        What each worker process may take: `4GB`, a fraction of what there is, `auto` for an equal share, None or
        0 for no limit. Before it is reached, results go to disk and tasks wait; a process that reaches it
        nevertheless is started anew.
    processes
        If false, workers are threads of this process: no start-up and no copies, but one interpreter for all.
    resources
        Amounts of abstract resources of each worker, by name.
    name
        A name for people.
    env
        Environment variables of the worker processes.
    local_directory
        The working folder of the worker processes, in which they also keep results beyond their memory.
    scheduler_port
        Where the scheduler listens; 0 is any free port.
    preload
        Modules that clients may use on the scheduler, as for `Scheduler`.

    Raises
    ------
    UsageError
        An option makes no sense.

    Examples
    --------
    >>> with LocalCluster(n_workers=2) as cluster, cluster.client() as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    """

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        *,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        memory_limit: str | float | None = None,
        processes: bool = True,
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        local_directory: str | None = None,
        scheduler_port: int = 0,
        preload: Any = (),
    ) -> None:
        cores = os.cpu_count() or 1
        self.n_workers = n_workers if n_workers is not None else cores if processes else 1
        threads = threads_per_worker if threads_per_worker is not None else 1 if processes else cores
        if type(self.n_workers) is not int or self.n_workers < 0 or type(threads) is not int or threads < 1:
            raise UsageError("n_workers is a number from 0 on, and threads_per_worker one from 1 on")
        if (env or local_directory) and not processes:
            raise UsageError("env and local_directory are for worker processes; leave them or processes=False out")
        self.name = name or f"local-{os.urandom(3).hex()}"
        limit = memory_share_bytes(memory_limit, max(1, self.n_workers))
        own: dict[str, Any] = {"nthreads": threads, "resources": checked_resources(resources or {})}
        if processes:
            own |= {"memory_limit_bytes": limit, "env": env, "local_directory": local_directory}
        self._thread = LoopThread("cluster")
        self._servers: list[Any] = []
        self._credential = credential
        self._insecure = insecure
        self._closed = False
        options: dict[str, Any] = {"credential": credential, "insecure": insecure, "host": "127.0.0.1"}
        try:
            self.address = self._thread.run(self._start(options, own, processes, scheduler_port, preload))
        except BaseException:
            self.close()
            raise

    async def _start(
        self, options: dict[str, Any], own: dict[str, Any], processes: bool, port: int, preload: Any
    ) -> str:
        from distributed_core.servers.nanny import Nanny
        from distributed_core.servers.scheduler import Scheduler
        from distributed_core.servers.worker import Worker

        scheduler = Scheduler(**options, preload=preload)
        scheduler.start(port)
        self._servers.append(scheduler)
        host, port = parse_address(scheduler.address)
        for number in range(self.n_workers):
            make: Any = Nanny if processes else Worker
            worker = make(host, port, name=str(number), **own, **options)
            worker.start(0)
            self._servers.append(worker)
        return str(scheduler.address)

    @property
    def scheduler_address(self) -> str:
        """HOST:PORT of the scheduler."""
        return str(self.address)

    @property
    def entrance(self) -> tuple[str, Any, bool]:
        """The address, the credential's path and whether there is no security: what a client needs."""
        return str(self.address), self._credential, self._insecure

    def client(self, **options: Any) -> Client:
        """Return a client of this cluster, once all its workers have registered."""
        client = Client(self, **options)
        if not client.asynchronous:
            client.wait_for_workers(self.n_workers, timeout=60)
        return client

    def close(self) -> None:
        """End the workers and the scheduler."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.run(self._stop())
            except BaseException:
                # Ctrl-C: whoever cannot wait for an orderly end gets another one.
                self._thread.run(self._stop_now())
                raise
            finally:
                self._thread.stop()

    async def _stop(self) -> None:
        # First the workers: they would miss the scheduler, and say so.
        await asyncio.gather(*(worker.close() for worker in self._servers[1:]))
        for scheduler in self._servers[:1]:
            await scheduler.close()

    async def _stop_now(self) -> None:
        for worker in self._servers[1:]:
            if getattr(worker, "process", None) is not None:
                worker.process.kill()
        for server in self._servers:
            server.stop()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalCluster {self.name} at {getattr(self, 'address', '?')}, {self.n_workers} workers>"

"""A nanny: a tornado TCPServer that keeps one worker process alive.

The process and its nanny share a socket pair. Over it the nanny tells what to run and hears what becomes of it; and
when either end dies, by whatever signal, the other sees the end of file. So a worker never outlives its nanny.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

from distributed_core.comm.address import Address
from distributed_core.machines import nanny as words
from distributed_core.servers.shell import Server
from distributed_core.settings import DEFAULT_PORT, NannySettings

logger = logging.getLogger(__name__)


class Nanny(Server):
    """Runs a `Worker` in a process of its own, and another one when that dies.

    Parameters
    ----------
    scheduler_host, scheduler_port, loop, host, credential, insecure, nthreads, name, death_timeout_s, local_directory
        As for `Worker`.
    worker_port
        The port of the worker; 0 is any free one.
    memory_limit_bytes
        The process is killed and started again when it takes more than 95 % of this; 0 is no limit.

    Examples
    --------
    >>> w = Nanny('192.168.0.1', 8786, loop=loop)
    >>> w.start(0)
    """

    kind = "Nanny"

    def __init__(
        self,
        scheduler_host: str = "127.0.0.1",
        scheduler_port: int = DEFAULT_PORT,
        *,
        loop: IOLoop | None = None,
        host: str | None = None,
        credential: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        nthreads: int | None = None,
        name: str | None = None,
        death_timeout_s: float = 60.0,
        local_directory: str | None = None,
        worker_port: int = 0,
        memory_limit_bytes: int = 0,
        settings: NannySettings | None = None,
    ) -> None:
        super().__init__(loop=loop, host=host or None, credential=credential, insecure=insecure)
        self.scheduler_address = Address(scheduler_host or "127.0.0.1", scheduler_port)
        self.settings = settings or NannySettings()
        self.machine = words.NannyMachine(self.settings)
        self.memory_limit_bytes = memory_limit_bytes
        self.worker_address: str | None = None
        self.failure: Exception | None = None
        self.process: subprocess.Popen[bytes] | None = None
        #: Called with the nanny when its worker has registered, each time.
        self.on_registered: Callable[[Nanny], None] | None = None
        self._line: socket.socket | None = None
        self._options = {
            "scheduler_host": self.scheduler_address.host,
            "scheduler_port": self.scheduler_address.port,
            "host": host,
            "credential": str(self.credential.path) if self.credential else None,
            "insecure": insecure,
            "nthreads": nthreads,
            "name": name,
            "death_timeout_s": death_timeout_s,
            "local_directory": local_directory,
            "port": worker_port,
        }
        self.handlers["kill"] = self._handle_kill

    # --- life -------------------------------------------------------------------------------------

    def started(self) -> None:
        self.feed(words.StartWanted())
        self._measure_memory()

    def feed(self, event: words.NannyEvent) -> None:
        """Give the machine an event and carry out what it asks for."""
        for asked in self.machine.handle(event, self.loop.time()):
            if isinstance(asked, words.StartProcess):
                self._start_process()
            elif isinstance(asked, words.AskToStop):
                self._signal(signal.SIGTERM)
                self.loop.call_later(asked.grace_s, self.feed, words.GraceEnded())
            elif isinstance(asked, words.KillProcess):
                logger.warning("%s kills the worker process: %s", self.id, asked.reason)
                self._signal(signal.SIGKILL)
            elif isinstance(asked, words.WaitBackoff):
                self.loop.call_later(asked.delay_s, self.feed, words.BackoffEnded())
            elif isinstance(asked, words.CloseNanny):
                self.background(self._close_now(asked.exit_code))

    def _start_process(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        argv = [sys.executable, "-m", "distributed_core.servers.child", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._line = ours
        self.background(self._listen(self.process, ours))

    async def _listen(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        """Tell the process what to run, hear what it says, and see it end."""
        reader, writer = await asyncio.open_connection(sock=line)
        writer.write(json.dumps(self._options).encode() + b"\n")
        try:
            while text := await reader.readline():
                self._hear(json.loads(text))
        except (ConnectionError, ValueError) as error:
            logger.debug("%s: %s", self.id, error)
        finally:
            writer.close()
            if sys.exc_info()[0] is asyncio.CancelledError:
                process.kill()
        code = await asyncio.to_thread(process.wait)
        if self.exit_code is None:
            if code not in (0, 1) and self.machine.state != "stopping":
                logger.warning("%s: the worker process %d ended with %d", self.id, process.pid, code)
            self.worker_address = None
            self.feed(words.ProcessEnded(code))

    def _hear(self, said: dict[str, Any]) -> None:
        if said["status"] == "registered":
            self.worker_address = said["address"]
            self.feed(words.ProcessRegistered())
            if self.on_registered is not None:
                self.on_registered(self)
        elif said["status"] == "leaving":
            if said["reason"]:
                self.failure = RuntimeError(said["reason"])
            self.feed(words.ProcessLeft(said["exit_code"]))

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _measure_memory(self) -> None:
        if self.exit_code is not None or not self.memory_limit_bytes:
            return
        import psutil

        process = self.process
        if process is not None and process.poll() is None:
            try:
                nbytes = psutil.Process(process.pid).memory_info().rss
            except psutil.Error:
                nbytes = 0
            self.feed(words.MemoryMeasured(nbytes, self.memory_limit_bytes))
        self.loop.call_later(self.settings.memory_interval_s, self._measure_memory)

    async def close(self, exit_code: int = 0) -> None:
        """End the worker process, then close."""
        if self.exit_code is not None:
            return
        self.feed(words.StopWanted())
        await self.finished()

    async def _close_now(self, exit_code: int) -> None:
        await super().close(exit_code)

    # --- handlers ---------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """Return what this nanny is, as plain data."""
        return {
            **super().identity(),
            "worker": self.worker_address,
            "worker_pid": self.process.pid if self.process else None,
            "restarts": self.machine.restarts,
            "state": self.machine.state,
        }

    async def _handle_kill(self, **context: Any) -> str:
        """Kill the worker process; the nanny starts another one."""
        self._signal(signal.SIGKILL)
        return "OK"

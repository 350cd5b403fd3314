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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tornado.ioloop import IOLoop

from distributed_core.comm.address import Address
from distributed_core.comm.channel import open_channel
from distributed_core.errors import EngineError, UsageError
from distributed_core.machines import nanny as words
from distributed_core.measuring import process_memory_bytes
from distributed_core.messages import Payload
from distributed_core.quantities import checked_resources
from distributed_core.servers.errands import Guests, Outcome, run_errand
from distributed_core.servers.preloads import Preloads
from distributed_core.servers.shell import Server
from distributed_core.servers.spilling import remove_leftovers, spill_base
from distributed_core.settings import DEFAULT_PORT, NannySettings

logger = logging.getLogger(__name__)

#: Seconds for the first question to the scheduler, which may not be there yet, and for later ones.
FIRST_ASK_S = 2.0
REPORT_TIMEOUT_S = 10.0
ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Nanny(Server):
    """Runs a `Worker` in a process of its own, and another one when that dies.

    Parameters
    ----------
    scheduler_host, scheduler_port, loop, host, credential, insecure, nthreads, name, death_timeout_s,
    reconnect_timeout_s, local_directory
        As for `Worker`.
    resources, preload, lifetime_s, lifetime_stagger_s, lifetime_restart
        As for `Worker`.
    worker_port
        The port of the worker; 0 is any free one.
    memory_limit_bytes
        As for `Worker`; the process is killed and started again when it takes more than this, or for longer than a
        moment more than 95 % of it.
    env
        Environment variables of the process, beside the nanny's own. Where neither says so, libraries of linear algebra
        get one thread each (`OMP_NUM_THREADS=1`): the worker's threads are what runs in parallel.
    preload_nanny
        Modules that the nanny imports at the start; their `setup(nanny)` is called before the process starts.

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
        reconnect_timeout_s: float = 30.0,
        local_directory: str | None = None,
        worker_port: int = 0,
        memory_limit_bytes: int = 0,
        resources: Mapping[str, float] | None = None,
        preload: Iterable[str] = (),
        preload_nanny: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        lifetime_s: float = 0.0,
        lifetime_stagger_s: float = 0.0,
        lifetime_restart: bool = False,
        settings: NannySettings | None = None,
    ) -> None:
        super().__init__(loop=loop, host=host or None, credential=credential, insecure=insecure)
        self.scheduler_address = Address(scheduler_host or "127.0.0.1", scheduler_port)
        self.settings = settings or NannySettings()
        self.machine = words.NannyMachine(self.settings)
        self.memory_limit_bytes = memory_limit_bytes
        self.local_directory = local_directory
        #: What the environment of the next process has beside the nanny's own.
        self.env = {name: value for name, value in ONE_THREAD_EACH.items() if name not in os.environ} | dict(env or {})
        self.guests = Guests(self)
        self.preloads = Preloads(preload_nanny)
        self._restarts: list[asyncio.Future[None]] = []
        self._memory_bytes = 0
        self._kill_reason = ""
        self._leaving = False
        self.worker_address: str | None = None
        self.failure: Exception | None = None
        self.process: subprocess.Popen[bytes] | None = None
        #: Called with the nanny when its worker has registered, each time.
        self.on_registered: Callable[[Nanny], None] | None = None
        self._line: socket.socket | None = None
        self._options = {
            "memory_limit_bytes": memory_limit_bytes,
            "scheduler_host": self.scheduler_address.host,
            "scheduler_port": self.scheduler_address.port,
            "host": host,
            "credential": str(self.credential.path) if self.credential else None,
            "insecure": insecure,
            "nthreads": nthreads,
            "name": name,
            "death_timeout_s": death_timeout_s,
            "reconnect_timeout_s": reconnect_timeout_s,
            "local_directory": local_directory,
            "port": worker_port,
            "resources": checked_resources(resources or {}),
            "preload": list(preload),
            "lifetime_s": lifetime_s,
            "lifetime_stagger_s": lifetime_stagger_s,
            "lifetime_restart": lifetime_restart,
        }
        self.handlers |= {
            "kill": self._handle_kill,
            "restart": self._handle_restart,
            "run": self._handle_run,
            "plugin_add": self._handle_plugin_add,
            "plugin_remove": self._handle_plugin_remove,
        }

    # --- life -------------------------------------------------------------------------------------

    def started(self) -> None:
        self.background(self._begin())
        self._measure_memory()

    async def _begin(self) -> None:
        """Have what must be there before the process starts: preloaded modules, and plugins of the cluster."""
        try:
            await self.preloads.set_up(self)
        except UsageError as error:
            self.failure = error
            await self._close_now(1)
            return
        try:
            await self.guests.take(await self._ask_scheduler("plugins", {"kind": "nanny"}, FIRST_ASK_S))
        except (EngineError, TimeoutError) as error:
            # Not there yet, perhaps: the process looks for it, and brings the news when it found it.
            logger.debug("%s: %s", self.id, error)
        self.feed(words.StartWanted())

    async def _ask_scheduler(self, op: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        channel, _ = await open_channel(self.scheduler_address, self.credential, "rpc", timeout_s=timeout_s)
        channel.read_replies()
        try:
            return await channel.call(op, arguments, timeout_s)
        finally:
            channel.abort()

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
                self._kill_reason = asked.reason
                self._signal(signal.SIGKILL)
            elif isinstance(asked, words.WaitBackoff):
                self.loop.call_later(asked.delay_s, self.feed, words.BackoffEnded())
            elif isinstance(asked, words.CloseNanny):
                self.background(self._close_now(asked.exit_code))

    def _start_process(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        argv = [sys.executable, "-m", "distributed_core.servers.child", str(theirs.fileno())]
        environment = {**os.environ, **self.env}
        # A Ctrl-C at the terminal reaches every process of the group: also one that does not ignore it yet.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with theirs:
                self.process = subprocess.Popen(
                    argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._line = ours
        self._memory_bytes, self._kill_reason, self._leaving = 0, "", False
        self._options["nanny_port"] = self.port
        self.background(self._listen(self.process, ours))

    async def _listen(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        """Tell the process what to run, hear what it says, and see it end."""
        reader, writer = await asyncio.open_connection(sock=line)
        writer.write(json.dumps(self._options).encode() + b"\n")
        try:
            while text := await reader.readline():
                self._hear(json.loads(text))
        except (ConnectionError, ValueError, TypeError, LookupError, AttributeError) as error:
            # User code in the process can write there too.
            logger.debug("%s: %s", self.id, error)
        finally:
            writer.close()
            if sys.exc_info()[0] is asyncio.CancelledError:
                process.kill()
        code = await asyncio.to_thread(process.wait)
        if self.memory_limit_bytes:
            await asyncio.to_thread(remove_leftovers, spill_base(self.local_directory))
        if self.exit_code is None:
            if code not in (0, 1, 2) and self.machine.state != "stopping":
                logger.warning("%s: the worker process %d ended with %d", self.id, process.pid, code)
            address, self.worker_address = self.worker_address, None
            if address is not None and not self._leaving and self.machine.state == "up":
                self.background(self._report_death(address, process.pid, code))
            self.feed(words.ProcessEnded(code))

    async def _report_death(self, address: str, pid: int, exit_code: int) -> None:
        """Tell the scheduler how the process ended, so that it can tell whose tasks died with it."""
        death = {
            "address": address,
            "pid": pid,
            "exit_code": exit_code,
            "memory_bytes": self._memory_bytes,
            "reason": self._kill_reason,
        }
        try:
            await self._ask_scheduler("worker_died", death, REPORT_TIMEOUT_S)
        except (EngineError, TimeoutError) as error:
            logger.info("%s could not tell the scheduler of a death: %s", self.id, error)

    def _hear(self, said: dict[str, Any]) -> None:
        if said["status"] == "registered":
            fresh = self.machine.state == "starting"
            self.worker_address = said["address"]
            self.feed(words.ProcessRegistered())
            if fresh:
                waiting, self._restarts = self._restarts, []
                for waiter in waiting:
                    if not waiter.done():
                        waiter.set_result(None)
            missing = self.guests.missing(said["plugins"])
            if missing:
                self.background(self._catch_up(said["scheduler"], missing))
            if self.on_registered is not None:
                self.on_registered(self)
        elif said["status"] == "leaving":
            self._leaving = True
            if said["reason"]:
                self.failure = RuntimeError(said["reason"])
            self.feed(words.ProcessLeft(said["exit_code"], said["restart"]))

    async def _catch_up(self, scheduler_id: str, names: list[str]) -> None:
        """The process registered at a scheduler that has plugins which are not here yet."""
        await self.guests.forget_others(scheduler_id)
        fetched = await self._ask_scheduler("plugins", {"kind": "nanny", "names": names}, REPORT_TIMEOUT_S)
        if any(getattr(plugin, "restart", False) for plugin in await self.guests.take(fetched)):
            await self.restart_process()

    async def restart_process(self, timeout_s: float | None = None) -> None:
        """End the process, gracefully and then by force, and return when another one has registered.

        Raises
        ------
        TimeoutError
            It had not within `timeout_s` seconds.
        UsageError
            This nanny is closing.
        """
        if self.machine.state in ("stopping", "closed"):
            raise UsageError("this nanny is closing; start another one")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._restarts.append(waiter)
        self.feed(words.RestartWanted())
        await asyncio.wait_for(waiter, timeout_s)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _measure_memory(self) -> None:
        if self.exit_code is not None:
            return
        process = self.process
        if process is not None and process.poll() is None:
            nbytes = process_memory_bytes(process.pid)
            self._memory_bytes = nbytes or self._memory_bytes
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

    async def closing(self) -> None:
        for waiter in self._restarts:
            waiter.cancel()
        await self.guests.close()
        await self.preloads.tear_down(self)

    def uploads_folder(self) -> str:
        """Return a folder for files that clients upload; it goes with the nanny."""
        return self.guests.folder()

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

    async def _handle_restart(self, timeout: float | None = None, wait: bool = True, **context: Any) -> str:
        """Start the worker process anew; reply when it has registered."""
        if wait:
            await self.restart_process(timeout)
        else:
            self.feed(words.RestartWanted())
        return "OK"

    async def _handle_run(self, body: bytes, payload: Payload, wait: bool = True, **context: Any) -> Outcome:
        return await run_errand(self, body, payload, wait)

    async def _handle_plugin_add(self, name: str, stamp: str, payload: Payload, **context: Any) -> Outcome:
        if not self.guests.missing({name: stamp}):
            return [True, [], ""]
        outcome = await self.guests.add(name, stamp, payload)
        if outcome[0] and getattr(self.guests.plugins.get(name), "restart", False):
            await self.restart_process()
        return outcome

    async def _handle_plugin_remove(self, name: str, **context: Any) -> Outcome:
        return await self.guests.remove(name)

"""A worker: a tornado TCPServer around `WorkerMachine`, its threads, and the data that they left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from tornado.ioloop import IOLoop

from distributed_core import messages
from distributed_core.comm.address import Address, format_address, parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.comm.sleeping import watch_for_sleep
from distributed_core.errors import (
    ConnectError,
    ConnectionLost,
    CredentialRefused,
    Deferred,
    EngineError,
    ProtocolError,
    Refused,
    UsageError,
)
from distributed_core.machines.worker import WorkerMachine, events, instructions
from distributed_core.protocol import payload as payloads
from distributed_core.quantities import checked_resources
from distributed_core.servers.actors import Stage
from distributed_core.servers.attendance import Attendance
from distributed_core.servers.executor import Body, Threads, Work
from distributed_core.servers.memory import MemoryWatch
from distributed_core.servers.shell import Server
from distributed_core.servers.transfers import Transfers
from distributed_core.settings import DEFAULT_PORT, WorkerSettings
from distributed_core.versions import own_versions

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.02
#: How long one try to connect may take. Where nothing answers, the system asks less and less often, every 8 s after a
#: cut of 7 s: a new try asks at once. A scheduler that is slow gets more time with each.
FIRST_TRY_S = 2.0
TRY_MAX_S = 10.0
#: A worker that the scheduler refuses tries again for so long.
REFUSED_RETRY_S = 3.0
RETRY_MAX_S = 1.0
EXIT_NO_SCHEDULER = 1
EXIT_USAGE = 2


class Worker(Server):
    """Runs tasks in threads and keeps their results.

    Parameters
    ----------
    scheduler_host, scheduler_port
        Where the scheduler listens.
    loop, host, credential, insecure
        As for every `Server`. Without `host`, the worker listens on all interfaces and tells others the address from
        which it reaches the scheduler.
    nthreads
        Tasks that run at once; by default one per core.
    name
        For people; by default the address.
    death_timeout_s, reconnect_timeout_s
        How long to look for the scheduler at first, and when it is lost; then the worker closes with exit code 1. What
        it holds and runs outlives the connection, and the scheduler.
    local_directory
        Where tasks find themselves: the process's working folder, made if it is not there. None leaves it as it is.
        Results that go to disk go into a folder in it.
    resources
        Amounts of abstract resources that tasks may ask for, by name.
    nanny_port
        Where its nanny listens, if it has one.
    memory_limit_bytes
        What the process may take; 0 is no limit. Results go to disk before, tasks are paused, and where nothing helps a
        nanny ends it; a result that takes more by itself is an error, which says so.
    preload
        Modules that are imported at the start, by name or as paths of .py files; their `setup(worker)` is called before
        it registers, their `teardown(worker)` when it closes.
    lifetime_s, lifetime_stagger_s
        It retires and closes after so long, more or less at random by up to the stagger; 0 is never.
    lifetime_restart
        Its nanny then starts another one.

    Examples
    --------
    >>> w = Worker('192.168.0.1', 8786, loop=loop)
    >>> w.start(0)
    """

    kind = "Worker"

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
        resources: Mapping[str, float] | None = None,
        nanny_port: int = 0,
        memory_limit_bytes: int = 0,
        preload: Iterable[str] = (),
        lifetime_s: float = 0.0,
        lifetime_stagger_s: float = 0.0,
        lifetime_restart: bool = False,
        settings: WorkerSettings | None = None,
    ) -> None:
        super().__init__(loop=loop, host=host, credential=credential, insecure=insecure)
        self.scheduler_address = Address(scheduler_host or "127.0.0.1", scheduler_port)
        self.nthreads = nthreads or os.cpu_count() or 1
        self.name = name
        self.death_timeout_s = death_timeout_s
        self.reconnect_timeout_s = reconnect_timeout_s
        self.local_directory = local_directory
        self.resources = checked_resources(resources or {})
        self.nanny_port = nanny_port
        self.memory_limit_bytes = memory_limit_bytes
        #: Whether its nanny is to start another one when this one closes.
        self.restart_wanted = False
        self.welcome_details: dict[str, Any] = {}
        self.scheduler_id = ""
        self.settings = settings or WorkerSettings()
        self.failure: EngineError | None = None
        #: Called with the worker when it has registered, each time.
        self.on_registered: Callable[[Worker], None] | None = None
        self.machine = WorkerMachine(self.settings, replaceable=nanny_port > 0, memory_limit_bytes=memory_limit_bytes)
        self.memory = MemoryWatch(self, memory_limit_bytes, local_directory)
        self.data = self.memory.store
        self.scheduler: Channel | None = None
        #: The client of its tasks, once one asked for it.
        self.client: Any = None
        self._bodies: dict[int, Body] = {}
        self._threads: Threads | None = None
        self._transfers = Transfers(self)
        self.registration = 0
        self._held_back: list[Any] | None = None
        self.handlers |= {
            **self._transfers.handlers,
            **Stage(self).handlers,
            "whole_state": self._handle_whole_state,
        }
        self.attendance = Attendance(self, preload, lifetime_s, lifetime_stagger_s, lifetime_restart)
        self.handlers |= self.attendance.handlers

    # --- life -------------------------------------------------------------------------------------

    def started(self) -> None:
        if self.local_directory is not None:
            try:
                os.makedirs(self.local_directory, exist_ok=True)
                os.chdir(self.local_directory)
            except OSError as error:
                self.failure = UsageError(f"--local-directory {self.local_directory} cannot be used ({error.strerror})")
                self.background(self.close(EXIT_USAGE))
                return
        self.memory.start()
        self.background(self._live())
        self.background(watch_for_sleep(lambda: self.scheduler))

    async def _live(self) -> None:
        try:
            await self.attendance.begin()
            self._begin_anew()
            timeout_s = self.death_timeout_s
            while True:
                channel, welcome = await self._register(timeout_s)
                timeout_s = self.reconnect_timeout_s
                try:
                    await self._obey(channel, welcome)
                except (ConnectionLost, ProtocolError) as error:
                    if self.exit_code is None:
                        logger.warning("%s lost the scheduler: %s", self.id, error)
                finally:
                    self._let_go_of_scheduler(channel)
        except EngineError as error:
            self.failure = error
            await self.close(EXIT_USAGE if isinstance(error, UsageError) else EXIT_NO_SCHEDULER)

    async def _register(self, timeout_s: float) -> tuple[Channel, messages.Welcome]:
        """Find the scheduler, for at most `timeout_s`, and register there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        retry_s, try_s = FIRST_RETRY_S, FIRST_TRY_S
        refused_until = 0.0
        while True:
            left_s = deadline - loop.time()
            try:
                return await self._try_to_register(max(0.1, min(try_s, left_s)))
            except CredentialRefused:
                raise
            except Refused as error:
                # Its predecessor of the same name or port may be about to leave; what is wrong for good is not.
                refused_until = refused_until or loop.time() + min(REFUSED_RETRY_S, timeout_s)
                if loop.time() >= refused_until:
                    raise
                logger.debug("%s: %s", self.id, error)
            except Deferred as error:
                if left_s <= 0:
                    raise
                logger.debug("%s: %s", self.id, error)
            except (ConnectError, ConnectionLost) as error:
                where = format_address(self.scheduler_address)
                if left_s <= retry_s:
                    text = f"no scheduler at {where} within {timeout_s:g} s ({error}); start dscheduler there"
                    raise ConnectError(text) from error
                logger.debug("%s: %s", self.id, error)
            await asyncio.sleep(retry_s)
            retry_s, try_s = min(RETRY_MAX_S, retry_s * 1.6), min(TRY_MAX_S, try_s * 1.6)

    async def _try_to_register(self, timeout_s: float) -> tuple[Channel, messages.Welcome]:
        if self.host is None:
            # What others reach is the address that leads to the scheduler.
            probe, _ = await open_channel(self.scheduler_address, self.credential, "rpc", timeout_s=timeout_s)
            self.host = probe.stream.local.host
            await probe.close()
        details = {
            "address": self.address,
            "name": self.name or self.address,
            "nthreads": self.nthreads,
            "pid": os.getpid(),
            "id": self.id,
            "resources": self.resources,
            "memory_limit_bytes": self.memory_limit_bytes,
            "versions": own_versions(),
            "returns": self.machine.returns,
        }
        if self.nanny_port:
            details["nanny"] = format_address(Address(parse_address(self.address).host, self.nanny_port))
        return await open_channel(self.scheduler_address, self.credential, "worker", details, timeout_s)

    async def _obey(self, channel: Channel, welcome: messages.Welcome) -> None:
        """Do what the scheduler says until the connection ends.

        Raises
        ------
        ConnectionLost, ProtocolError
            It ended, or the scheduler said what makes no sense; then the worker begins with new books.
        """
        try:
            await self._obey_well(channel, welcome)
        except (EngineError, OSError):
            raise
        except Exception as error:
            logger.debug("%s: what the scheduler sent makes no sense", self.id, exc_info=True)
            self._begin_anew()
            await asyncio.sleep(RETRY_MAX_S)
            raise ProtocolError(f"it sent what makes no sense ({type(error).__name__}: {error})") from error

    def _begin_anew(self) -> None:
        """Forget everything: nobody knows what the books are worth."""
        self.registration += 1
        self._heartbeat(self.registration)
        self.machine = WorkerMachine(
            self.settings, replaceable=self.nanny_port > 0, memory_limit_bytes=self.memory_limit_bytes
        )
        self.data.clear()
        if self._threads is not None:
            self._threads.close()
        self._threads = Threads(
            self,
            self.nthreads,
            self._take_reports,
            self._moved,
            self.settings.inline_result_bytes_max,
            self.memory_limit_bytes,
            asyncio.get_running_loop(),
        )

    async def _obey_well(self, channel: Channel, welcome: messages.Welcome) -> None:
        self.scheduler = channel
        channel.stream.place_large(self.memory.place)
        self._channels[channel] = None
        self.feed(events.Registered())
        channel.send(messages.Heartbeat(self.memory.metrics()))
        self.scheduler_id, self.welcome_details = welcome.id, welcome.details
        self.attendance.compare_versions(welcome)
        if self.attendance.must_catch_up(welcome):
            self._held_back = []
            self.background(self._catch_up(channel, welcome))
        if self.on_registered is not None:
            self.on_registered(self)
        while True:
            batch = await channel.read()
            if batch and self._held_back is not None:
                self._held_back += batch
            elif batch:
                self.feed(events.Instructed(batch))

    async def _catch_up(self, channel: Channel, welcome: messages.Welcome) -> None:
        """Set up the plugins that others have; what the scheduler sends meanwhile is done afterwards."""
        try:
            await self.attendance.catch_up(welcome)
        except (EngineError, TimeoutError) as error:
            logger.error("%s could not get its plugins: %s", self.id, error)
        if self.scheduler is channel:
            held_back, self._held_back = self._held_back, None
            if held_back:
                self.feed(events.Instructed(held_back))

    def _let_go_of_scheduler(self, channel: Channel) -> None:
        """Stop what did not start; keep the data, and what threads are at, for whoever is the scheduler next."""
        self.scheduler = None
        self._held_back = None
        self._channels.pop(channel, None)
        channel.abort()
        if self.exit_code is None:
            self.feed(events.SchedulerGone())
        # The next scheduler counts functions anew.
        self._bodies = {}

    def _heartbeat(self, registration: int) -> None:
        if registration != self.registration:
            return
        if self.scheduler is not None:
            self.scheduler.send(messages.Heartbeat(self.memory.metrics()))
            self.feed(events.HeartbeatDue())
        self.loop.call_later(self.settings.heartbeat_interval_s, self._heartbeat, registration)

    async def closing(self) -> None:
        await self.attendance.close()
        self.registration += 1
        if self._threads is not None:
            self._threads.close()
        self._transfers.close()
        await asyncio.to_thread(self.data.close)
        if self.client is not None:
            await asyncio.to_thread(self.client.close)

    def welcome(self, channel: Channel, hello: messages.Hello) -> tuple[int, Callable[[], Awaitable[None]]]:
        channel.stream.place_large(self.memory.place)
        return super().welcome(channel, hello)

    # --- the loop around the machine --------------------------------------------------------------

    def feed(self, event: events.WorkerEvent) -> None:
        """Give the machine an event and carry out what it asks for."""
        for asked in self.machine.handle(event, self.loop.time()):
            self._PERFORM[type(asked)](self, asked)

    def _report(self, asked: instructions.Report) -> None:
        channel = self.scheduler
        if channel is not None:
            for message in asked.messages:
                channel.send(message)

    def _execute(self, asked: instructions.Execute) -> None:
        data = self.data
        inputs = [data[task] for task in asked.inputs] if asked.inputs else []
        if data.large:
            data.used(asked.inputs)
        assert self._threads is not None
        body = self._bodies[asked.function]
        if self.attendance.watchers:
            self.attendance.moved(asked.task, body.name, "ready", "executing")
        self._threads.submit(Work(asked.run, asked.task, body, asked.payload, inputs, asked.timeout_s > 0))

    def _take_back(self, asked: instructions.TakeBack) -> None:
        assert self._threads is not None
        self.feed(events.RunTaken(asked.run, self._threads.abandon(asked.run)))

    def _interrupt(self, asked: instructions.Interrupt) -> None:
        assert self._threads is not None
        self._threads.interrupt(asked.run)

    def _moved(self, event: events.WorkerEvent) -> None:
        if self._threads is not None:
            self.feed(event)

    def _set_timer(self, asked: instructions.SetTimer) -> None:
        self.loop.call_later(asked.delay_s, self._end_timer, asked, self.registration)

    def _end_timer(self, asked: instructions.SetTimer, registration: int) -> None:
        if registration == self.registration:
            self.feed(events.TimerEnded(asked.run, asked.purpose))

    def _end_process(self, asked: instructions.EndProcess) -> None:
        logger.warning("%s ends its process: %s", self.id, asked.reason)
        self.background(self._end_after_reports())

    async def _end_after_reports(self) -> None:
        if self.scheduler is not None:
            await self.scheduler.close()
        os.kill(os.getpid(), signal.SIGKILL)

    def _leave(self, asked: instructions.Leave) -> None:
        logger.info("%s leaves: %s", self.id, asked.reason)
        self.background(self.close())

    def _discard(self, asked: instructions.Discard) -> None:
        self.data.discard(asked.tasks)

    def _keep_function(self, asked: instructions.KeepFunction) -> None:
        self._bodies[asked.function] = Body(asked.name, asked.body)

    def _drop_functions(self, asked: instructions.DropFunctions) -> None:
        for function in asked.functions:
            self._bodies.pop(function, None)

    def _take_reports(self, batch: list[tuple[Any, Any]]) -> None:
        """Keep the results of the runs that still count, then let the machine report them."""
        runs, lingering, data = self.machine.runs, self.machine.lingering, self.data
        reports = []
        for report, value in batch:
            run = runs.get(report.run)
            if run is not None:
                reports.append(report)
                if type(report) is events.RunFinished:
                    if report.nbytes >= data.bytes_min or run.task in data:
                        data.keep(run.task, value, report.nbytes)
                    else:
                        data[run.task] = value
                if self.attendance.watchers:
                    finish = "memory" if type(report) is events.RunFinished else "error"
                    body = self._bodies.get(run.function)
                    self.attendance.moved(run.task, body.name if body else "?", "executing", finish)
            elif report.run in lingering:
                reports.append(report)
        if reports:
            self.feed(events.Executed(reports))
            self.memory.noted()

    # --- for what accompanies the tasks -----------------------------------------------------------

    def running(self) -> dict[int, Work]:
        """Return what each thread is at, by the thread's id."""
        return dict(self._threads.running) if self._threads is not None else {}

    def forget_opened_functions(self) -> None:
        """Open functions anew at their next use: a module that they come from was replaced."""
        for body in self._bodies.values():
            body.function = None

    def uploads_folder(self) -> str:
        """Return a folder for files that clients upload; it goes with the worker."""
        return self.attendance.guests.folder()

    def _spill(self, asked: instructions.Spill) -> None:
        self.memory.spill(asked)

    def _fetch(self, asked: instructions.Fetch) -> None:
        self.background(self._transfers.fetch(asked, self.registration))

    # --- questions and news -----------------------------------------------------------------------

    async def _handle_whole_state(self) -> dict[str, Any]:
        return {**self.identity(), **self.machine.whole_state(), "data": list(self.data)}

    def log_event(self, topic: str | list[str], msg: Any) -> None:
        """Log something under a topic, or several; from any thread. Clients get it by `get_events`, or subscribe."""
        topics = [topic] if isinstance(topic, str) else list(topic)
        arguments = {"topics": topics, "payload": payloads.dumps(msg), "nbytes": payloads.sizeof(msg)}
        self.loop.add_callback(self._log_event, arguments)

    def _log_event(self, arguments: dict[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.send(messages.Request(0, "log_event", arguments))

    def identity(self) -> dict[str, Any]:
        """Return what this worker is, as plain data."""
        return {
            **super().identity(),
            "name": self.name or self.address,
            "nthreads": self.nthreads,
            "center": format_address(self.scheduler_address),
            "scheduler": format_address(self.scheduler_address),
        }

    _PERFORM: dict[type, Callable[..., None]] = {
        instructions.Report: _report,
        instructions.Execute: _execute,
        instructions.TakeBack: _take_back,
        instructions.Interrupt: _interrupt,
        instructions.SetTimer: _set_timer,
        instructions.EndProcess: _end_process,
        instructions.Leave: _leave,
        instructions.Fetch: _fetch,
        instructions.Discard: _discard,
        instructions.Spill: _spill,
        instructions.KeepFunction: _keep_function,
        instructions.DropFunctions: _drop_functions,
    }

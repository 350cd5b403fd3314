"""A nanny's machine: one worker process, kept alive.

Resting -> Starting -> Up -> (it died) BackingOff -> Starting ...
Starting, Up -> Restarting -> Starting     asked to, or the process ended on purpose and wants another one after it
any -> Stopping -> Closed                  asked to, or the process ended on purpose
"""

from __future__ import annotations

from dataclasses import dataclass

from distributed_core.settings import NannySettings


@dataclass(frozen=True, slots=True)
class StartWanted:
    """The nanny may begin."""


@dataclass(frozen=True, slots=True)
class ProcessRegistered:
    """The worker in the process registered at the scheduler."""


@dataclass(frozen=True, slots=True)
class ProcessLeft:
    """The worker said that it ends on purpose, with this exit code: it was told to, or found no scheduler."""

    exit_code: int
    restart: bool = False
    """It wants another one after it."""


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """The process is gone; a negative code is the signal that killed it."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """The process takes `nbytes`; `limit_bytes` is 0 for no limit."""

    nbytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class BackoffEnded:
    """The timer of `WaitBackoff` fired."""


@dataclass(frozen=True, slots=True)
class StopWanted:
    """The nanny is to end its process and close."""


@dataclass(frozen=True, slots=True)
class RestartWanted:
    """The nanny is to end its process and start another one."""


@dataclass(frozen=True, slots=True)
class GraceEnded:
    """The timer of `AskToStop` fired."""


@dataclass(frozen=True, slots=True)
class StartProcess:
    pass


@dataclass(frozen=True, slots=True)
class AskToStop:
    """SIGTERM; feed `GraceEnded` after `grace_s`."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class KillProcess:
    """SIGKILL."""

    reason: str


@dataclass(frozen=True, slots=True)
class WaitBackoff:
    delay_s: float


@dataclass(frozen=True, slots=True)
class CloseNanny:
    exit_code: int


NannyEvent = (
    StartWanted
    | ProcessRegistered
    | ProcessLeft
    | ProcessEnded
    | MemoryMeasured
    | BackoffEnded
    | StopWanted
    | RestartWanted
    | GraceEnded
)
NannyInstruction = StartProcess | AskToStop | KillProcess | WaitBackoff | CloseNanny


class NannyMachine:
    """Keeps one process alive until it is told not to.

    A process that dies is started again at once the first time, and ever later if it keeps dying young.
    """

    def __init__(self, settings: NannySettings | None = None) -> None:
        self.settings = settings or NannySettings()
        self.state = "resting"
        self.restarts = 0
        self._started_at = 0.0
        self._backoff_s = 0.0
        self._parting_code: int | None = None
        #: Whether it took nearly its limit when it was last measured.
        self._much = False

    def handle(self, event: NannyEvent, now: float) -> list[NannyInstruction]:
        """Apply what happened at `now` seconds; return what is to be done."""
        if isinstance(event, StartWanted) and self.state == "resting":
            return self._start(now)
        if isinstance(event, ProcessRegistered) and self.state == "starting":
            self.state = "up"
        elif isinstance(event, ProcessLeft):
            if event.restart and self.state in ("starting", "up"):
                self.state = "restarting"
            elif self.state != "restarting":
                self._parting_code = event.exit_code
        elif isinstance(event, ProcessEnded):
            return self._ended(now)
        elif isinstance(event, MemoryMeasured) and self.state == "up":
            return self._judge_memory(event)
        elif isinstance(event, BackoffEnded) and self.state == "backing off":
            self.restarts += 1
            return self._start(now)
        elif isinstance(event, StopWanted):
            return self._stop()
        elif isinstance(event, RestartWanted) and self.state in ("starting", "up"):
            self.state = "restarting"
            return [AskToStop(self.settings.stop_grace_s)]
        elif isinstance(event, GraceEnded) and self.state in ("stopping", "restarting"):
            return [KillProcess("it did not end when it was asked to")]
        return []

    def _judge_memory(self, event: MemoryMeasured) -> list[NannyInstruction]:
        """End a process that takes more than its limit, or nearly as much twice in a row.

        Once may be a result between two hands, and spilling brings relief: that is not worth a process.
        """
        much = bool(event.limit_bytes) and event.nbytes > event.limit_bytes * self.settings.memory_restart_fraction
        twice, self._much = much and self._much, much
        if twice or (much and event.nbytes > event.limit_bytes):
            return [KillProcess(f"it takes {event.nbytes} bytes of memory, its limit is {event.limit_bytes}")]
        return []

    def _start(self, now: float) -> list[NannyInstruction]:
        self.state = "starting"
        self._much = False
        self._started_at = now
        return [StartProcess()]

    def _ended(self, now: float) -> list[NannyInstruction]:
        if self.state == "stopping" or self._parting_code is not None:
            code = self._parting_code or 0
            self.state = "closed"
            return [CloseNanny(code)]
        if self.state == "restarting":
            self.restarts += 1
            return self._start(now)
        if self.state not in ("starting", "up"):
            return []
        if now - self._started_at >= self.settings.healthy_after_s:
            self._backoff_s = 0.0
        delay_s = self._backoff_s
        self._backoff_s = min(self.settings.backoff_max_s, max(self.settings.first_backoff_s, 2 * self._backoff_s))
        self.state = "backing off"
        return [WaitBackoff(delay_s)]

    def _stop(self) -> list[NannyInstruction]:
        if self.state in ("starting", "up", "restarting"):
            self.state = "stopping"
            return [AskToStop(self.settings.stop_grace_s)]
        if self.state in ("resting", "backing off"):
            self.state = "closed"
            return [CloseNanny(0)]
        return []

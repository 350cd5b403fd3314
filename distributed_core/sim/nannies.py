"""Who keeps the simulated worker processes alive: the real nanny's machine, or an operator who starts another one."""

from __future__ import annotations

from collections.abc import Callable

from distributed_core.errors import InvariantBroken
from distributed_core.machines import nanny as words
from distributed_core.settings import NannySettings
from distributed_core.sim.scenario import WorkerShape
from distributed_core.sim.workers import SimulatedWorker
from distributed_core.sim.world import World

SETTINGS = NannySettings(backoff_max_s=1.0, healthy_after_s=1.0, stop_grace_s=0.3)
OPERATOR_MAX_S = 1.0
"""Within so long somebody replaces a worker that has ended and has no nanny that would."""
LIMIT_BYTES = 1 << 30


class Keeper:
    """Keeps one name alive: a worker process, and where the shape says so its nanny.

    Parameters
    ----------
    start
        Start a process of this shape.
    """

    def __init__(self, world: World, shape: WorkerShape, start: Callable[[WorkerShape], SimulatedWorker]) -> None:
        self.world = world
        self.shape = shape
        self.process: SimulatedWorker | None = None
        self._start = start
        self._source = world.stream("keeper", shape.name)
        self.machine = words.NannyMachine(SETTINGS)

    @property
    def _now(self) -> float:
        return self.shape.offset_s + self.shape.rate * self.world.now

    def begin(self) -> None:
        """Start a process, under a new nanny if there is one at all."""
        if self.shape.nanny:
            self.machine = words.NannyMachine(SETTINGS)
            self.feed(words.StartWanted())
        else:
            self.process = self._start(self.shape)

    def feed(self, event: words.NannyEvent) -> None:
        """Give the nanny's machine an event and do what it asks for."""
        machine = self.machine
        asked = machine.handle(event, self._now)
        self.world.note(self.shape.name, type(event).__name__, [type(each).__name__ for each in asked])
        for each in asked:
            if isinstance(each, words.StartProcess):
                if self.process is not None and self.process.alive:
                    raise InvariantBroken(f"the nanny of {self.shape.name} starts a second process beside the first")
                self.process = self._start(self.shape)
            elif isinstance(each, words.AskToStop):
                self._after(each.grace_s, words.GraceEnded())
                self._ask_to_stop(self.process)
            elif isinstance(each, words.KillProcess):
                if self.process is not None:
                    self.process.end(-9)
            elif isinstance(each, words.WaitBackoff):
                self._after(each.delay_s, words.BackoffEnded())
            elif isinstance(each, words.CloseNanny):
                self._replace()

    def _after(self, delay_s: float, event: words.NannyEvent) -> None:
        machine = self.machine

        def act() -> None:
            if machine is self.machine:
                self.feed(event)

        self.world.later(delay_s / self.shape.rate, act)

    def _ask_to_stop(self, process: SimulatedWorker | None) -> None:
        if process is not None and self._source.random() < 0.8:
            process.after(self._source.uniform(0.0, 0.1), lambda: process.end(0, gently=True))

    def _replace(self) -> None:
        self.world.later(self._source.uniform(0.0, OPERATOR_MAX_S), self.begin)

    # --- what it hears of its process -------------------------------------------------------------

    def hear_registered(self) -> None:
        if self.shape.nanny:
            self.feed(words.ProcessRegistered())

    def hear_end(self, exit_code: int, *, left: bool) -> None:
        """The process ended; `left` where it had said that it would."""
        if not self.shape.nanny:
            self._replace()
            return
        machine = self.machine

        def act() -> None:
            if machine is self.machine:
                if left:
                    self.feed(words.ProcessLeft(exit_code))
                self.feed(words.ProcessEnded(exit_code))

        self.world.later(0.001, act)

    # --- what is done to it -----------------------------------------------------------------------

    def measure(self, nbytes: int) -> None:
        self.feed(words.MemoryMeasured(nbytes, LIMIT_BYTES))

    def restart(self) -> None:
        self.feed(words.RestartWanted())

    def stop(self) -> None:
        self.feed(words.StopWanted())

    def judge(self) -> None:
        """All is at rest: whoever keeps a process alive has one that is registered.

        Raises
        ------
        InvariantBroken
            It has none, or is not where it should be.
        """
        process = self.process
        if process is None or not process.alive or process.connection is None:
            raise InvariantBroken(f"nobody started another process for {self.shape.name} ({self.machine.state})")
        if self.shape.nanny and self.machine.state != "up":
            raise InvariantBroken(f"the nanny of {self.shape.name} is {self.machine.state}, and its process is up")

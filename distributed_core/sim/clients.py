"""A client of the simulation: futures by number, as the scheduler told, and what it does with them."""

from __future__ import annotations

from typing import Any

from distributed_core import messages
from distributed_core.sim.scenario import Act, ClientShape
from distributed_core.sim.workload import Job
from distributed_core.sim.world import Pipe, World

DIGEST = b"f"


class SimulatedClient:
    """A client's side of the wire.

    Attributes
    ----------
    status, values, reasons
        Of each future: `pending`, `finished`, `error` or `cancelled`; the value that came along; why it failed.
    gone
        Futures that it let go of.
    retried
        It asked for failed futures again, so that tasks may run more often than once.
    """

    def __init__(self, world: World, place: int, shape: ClientShape) -> None:
        self.world = world
        self.name = f"c{place}"
        self.shape = shape
        self.jobs: dict[int, Job] = {job.number: job for job in shape.jobs}
        self.status: dict[int, str] = dict.fromkeys(self.jobs, "pending")
        self.values: dict[int, int] = {}
        self.gone: dict[int, None] = {}
        self.reasons: dict[int, str] = {}
        self.retried = False
        self.left = False
        self.connection: Pipe | None = None
        self._told = False

    def begin(self, connection: Pipe) -> None:
        """It is connected: submit chunk by chunk, and act when its shape says so."""
        self.connection = connection
        for at_s, numbers in self.shape.chunks:
            self.world.later(at_s, lambda numbers=numbers: self._submit(numbers))  # type: ignore[misc]
        for act in self.shape.acts:
            self.world.later(act.at_s, lambda act=act: self._act(act))  # type: ignore[misc]

    def _send(self, batch: list[Any]) -> None:
        if not self.left and batch:
            assert self.connection is not None
            self.connection.up.send(batch)

    def _submit(self, numbers: list[int]) -> None:
        batch: list[Any] = []
        for number in numbers:
            job = self.jobs[number]
            if job.adopted:
                batch.append(messages.Wish([[number, job.key]]))
            elif job.scattered:
                batch.append(messages.Scattering([[number, None, 8]], None))
            else:
                functions = [] if self._told else [[DIGEST, "f", b"body"]]
                self._told = True
                batch.append(messages.Submission(functions, [self._task(job)]))
        self._send(batch)

    @staticmethod
    def _task(job: Job) -> list[Any]:
        demand = (job.options or {}).get("resources", {}).get("R", 0.0)
        payload = [job.label, job.kind, job.flakes, demand]
        return [job.number, job.key, DIGEST, payload, job.inputs, job.priority, job.options]

    def _act(self, act: Act) -> None:
        numbers = [number for number in act.numbers if number not in self.gone]
        if not numbers:
            return
        if act.word == "retry":
            failed = [number for number in numbers if self.status[number] == "error"]
            self.retried = True
            self._send([messages.Retrial(failed)])
            return
        self.gone.update(dict.fromkeys(numbers))
        if act.word == "cancel":
            self._send([messages.Cancellation(numbers, False, "")])
        elif act.word == "vow":
            self._send([messages.Vow(numbers), messages.Release(numbers)])
        else:
            self._send([messages.Release(numbers)])

    def hear(self, message: Any) -> None:
        """Take in what the scheduler said of a future."""
        number = message.number
        if type(message) is messages.Finished:
            self.status[number] = "finished"
            if message.payload is not None:
                self.values[number] = message.payload[0]
        elif type(message) is messages.Failed:
            self.status[number] = "error"
            self.reasons[number] = message.kind
        elif type(message) is messages.Pending:
            self.status[number] = "pending"
        elif type(message) is messages.Cancelled:
            self.status[number] = "cancelled"

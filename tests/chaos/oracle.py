"""What may come of a job, by what was done to the cluster while it was open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distributed_core.settings import SchedulerSettings
from tests.chaos.schedule import Fault
from tests.chaos.work import JOBS

#: A task is blamed when it ran alone while this many workers died, or ran at all while so many more did.
DEATHS_TO_BLAME = SchedulerSettings().allowed_failures + 1
#: How a scatter may fail when the worker, or the way to it, is gone before it answered; the caller sends again.
SCATTER_ERRORS = {"DataLost", "ConnectionLost", "ConnectError", "RemoteError"}


@dataclass
class Happened:
    """A fault that was done."""

    fault: Fault
    at_s: float
    healed_at_s: float
    deaths: int = 0


@dataclass
class Job:
    """One job of a client."""

    name: str
    kind: str
    client: str
    begun_at_s: float
    ended_at_s: float = 0.0
    tasks: int = 0
    verdict: str = ""
    error: str = ""
    text: str = ""
    #: Its client was killed.
    dropped: bool = False

    @property
    def open(self) -> bool:
        return not self.ended_at_s and not self.dropped


@dataclass
class Oracle:
    """Hears of jobs and faults, and judges at the end of each round."""

    jobs: dict[str, Job] = field(default_factory=dict)
    happened: list[Happened] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hear(self, client: str, said: dict[str, Any]) -> None:
        """Note what a client says of a job."""
        if said["event"] == "begun":
            self.jobs[said["job"]] = Job(said["job"], said["kind"], client, said["at_s"])
        elif said["event"] == "ended":
            job = self.jobs[said["job"]]
            job.ended_at_s, job.tasks = said["at_s"], said["tasks"]
            job.verdict, job.error, job.text = said["verdict"], said["error"], said["text"]

    def drop(self, client: str) -> None:
        """A client was killed, and its jobs with it."""
        for job in self.jobs.values():
            if job.client == client and job.open:
                job.dropped = True

    def open_jobs(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.open]

    def judge(self, since_s: float) -> None:
        """Look at the jobs that ended since then, when all that was done is known."""
        for job in self.jobs.values():
            if job.ended_at_s > since_s and job.verdict != "right" and not self._justified(job):
                self.complaints.append(f"job {job.name} ({job.kind}) ended with {job.error}: {job.text}")

    def _justified(self, job: Job) -> bool:
        if job.verdict != "error":
            return False
        during = [
            each for each in self.happened if each.at_s < job.ended_at_s and job.begun_at_s < each.healed_at_s + 1
        ]
        deaths = sum(each.deaths for each in during)
        for other in self.jobs.values():
            if other.begun_at_s < job.ended_at_s and (not other.ended_at_s or other.ended_at_s > job.begun_at_s):
                deaths += JOBS[other.kind][2] if other is not job else 0
        if job.error == "KilledWorker":
            return deaths >= DEATHS_TO_BLAME
        if job.kind == "scattered":
            return job.error in SCATTER_ERRORS and (deaths > 0 or bool(during))
        return False

    def recoveries(self) -> dict[str, list[float]]:
        """Return, by kind of fault, how many seconds passed until what was open had its right result.

        Jobs that end workers by design do not count: their length is their own matter.
        """
        found: dict[str, list[float]] = {}
        ended = [job for job in self.jobs.values() if job.ended_at_s and not JOBS[job.kind][2]]
        for each in self.happened:
            moment = each.healed_at_s
            last = max((job.ended_at_s for job in ended if job.begun_at_s <= moment < job.ended_at_s), default=moment)
            found.setdefault(each.fault.kind, []).append(last - moment)
        return found

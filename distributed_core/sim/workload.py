"""Random graphs, and what each of their tasks must give."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

#: What every run of such a task does beside giving its value; "" is nothing.
KINDS = ("", "bad", "poison", "stuck", "stubborn")


@dataclass(slots=True)
class Job:
    """One future of the simulated client.

    `label` stands for the function's own arguments. `kind` is `bad` (raises), `poison` (kills its worker), `stuck`
    (goes on until it is interrupted), `stubborn` (goes on for ever). `scattered` is data from the client, `adopted` a
    task of another client.
    """

    number: int
    label: int
    inputs: list[int]
    kind: str = ""
    key: str | None = None
    scattered: bool = False
    adopted: bool = False
    flakes: int = 0
    """It raises so often before it gives its value; its `retries` are as many."""
    priority: int = 0
    options: dict[str, Any] | None = None
    # What follows is derived from the above.
    expected: int = 0
    reasons: frozenset[str] = frozenset()
    """Why it may fail: by its own doing, or by that of its inputs. With any, it cannot succeed."""
    hopeless: bool = False
    """It is endless, or waits for one that is."""
    fragile: bool = False
    """It is scattered data, or made from such: it may be lost for good."""

    @property
    def endless(self) -> bool:
        """Whether it goes on until somebody cancels it."""
        return self.kind in ("stuck", "stubborn") and not (self.options or {}).get("timeout_s")


def value_of(label: int, inputs: list[int]) -> int:
    """Return what a task computes: a number that depends on every input and on their order."""
    result = label
    for each in inputs:
        result = (result * 1_000_003 + each) % 2_147_483_647
    return result


class Plan(NamedTuple):
    """What a run of a job does, as its payload says; `demand` is the amount of R that it takes."""

    label: int
    kind: str
    flakes: int
    demand: float

    def packed(self) -> bytes:
        """Return it as a payload."""
        return " ".join(map(str, self)).encode()

    @classmethod
    def opened(cls, payload: Any) -> Plan:
        """Return what a payload says."""
        label, kind, flakes, demand = payload.decode().split(" ")
        return cls(int(label), kind, int(flakes), float(demand))


def derive(clients: Iterable[list[Job]]) -> None:
    """Work out what each job must give, or may fail by. A job comes after its inputs and its maker."""
    by_key: dict[str, Job] = {}
    for jobs in clients:
        by_number: dict[int, Job] = {}
        for job in jobs:
            by_number[job.number] = job
            if job.adopted:
                maker = by_key[job.key or ""]
                job.expected, job.reasons = maker.expected, maker.reasons
                job.hopeless, job.fragile = maker.hopeless, maker.fragile
                continue
            parents = [by_number[each] for each in job.inputs]
            job.expected = value_of(job.label, [parent.expected for parent in parents])
            job.reasons = _own_reasons(job).union(*(parent.reasons for parent in parents))
            job.hopeless = job.endless or any(parent.hopeless for parent in parents)
            job.fragile = job.scattered or any(parent.fragile for parent in parents)
            if job.key is not None:
                by_key[job.key] = job


def _own_reasons(job: Job) -> frozenset[str]:
    if job.kind == "bad":
        return frozenset(["exception"])
    if job.kind == "poison":
        return frozenset(["KilledWorker"])
    return frozenset(["TaskTimeout"]) if job.kind and not job.endless else frozenset()


def random_jobs(source: random.Random, count: int, names: list[str], *, stubborn: bool) -> list[Job]:
    """Return `count` jobs, each built on earlier ones: chains, trees, fans and all-to-all by chance.

    `names` are the workers', for those that are to run on certain ones; the first has 2 of the resource R. `stubborn`
    allows jobs that can be ended only with their process.
    """
    jobs: list[Job] = []
    width = source.choice([1, 2, 3, 8, 30])
    scatters = source.random() < 0.4
    badness = source.choice([0.0, 0.0, 0.02, 0.1])
    oddness = source.choice([0.0, 0.0, 0.05])
    demanding = source.choice([0.0, 0.1, 0.5])
    for number in range(1, count + 1):
        label = source.randrange(1, 1_000_000) * 128 + number  # no two alike
        if scatters and source.random() < 0.1:
            jobs.append(Job(number, label, [], scattered=True))
            continue
        fan = min(len(jobs), source.choice([0, 0, 1, 1, 2, 2, 3, width]))
        recent = jobs[-3 * width :] if source.random() < 0.7 else jobs
        inputs = [job.number for job in source.sample(recent, min(fan, len(recent)))]
        job = Job(number, label, inputs, priority=source.randint(0, 1))
        _give_character(source, job, badness, oddness, demanding, names)
        if job.kind == "stubborn" and not stubborn:
            job.kind = "stuck"
        jobs.append(job)
    return jobs


def _give_character(
    source: random.Random, job: Job, badness: float, oddness: float, demanding: float, names: list[str]
) -> None:
    options: dict[str, Any] = {}
    if source.random() < badness:
        job.kind = "bad"
    elif source.random() < oddness:
        job.kind = source.choice(["poison", "stuck", "stubborn"])
        if job.kind != "poison" and source.random() < 0.7:
            options["timeout_s"] = source.choice([0.01, 0.2])
    elif source.random() < badness:
        job.flakes = options["retries"] = source.randint(1, 3)
    if source.random() < demanding:
        if source.random() < 0.5:
            options["resources"] = {"R": float(source.randint(1, 2))}
        else:
            options["workers"] = source.sample(names, source.randint(1, len(names)))
            options["loose"] = source.random() < 0.3
    if source.random() < 0.3:
        job.key = f"key-{job.label}"
    job.options = options or None

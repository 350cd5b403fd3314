"""Random graphs, and what each of their tasks must give."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Job:
    """One future of the simulated client.

    `label` stands for the function's own arguments; a bad one raises. `scattered` is data from the client.
    """

    number: int
    label: int
    inputs: list[int]
    bad: bool = False
    scattered: bool = False
    expected: int = 0
    doomed: bool = False
    """It fails, or an input of it does."""
    fragile: bool = False
    """It is scattered data, or made from such: it may be lost for good."""
    users: list[int] = field(default_factory=list)


def value_of(label: int, inputs: list[int]) -> int:
    """Return what a task computes: a number that depends on every input and on their order."""
    result = label
    for each in inputs:
        result = (result * 1_000_003 + each) % 2_147_483_647
    return result


def random_jobs(source: random.Random, count: int) -> list[Job]:
    """Return `count` jobs, each built on earlier ones: chains, trees, fans and all-to-all by chance."""
    jobs: list[Job] = []
    width = source.choice([1, 2, 3, 8, 30])
    scatters = source.random() < 0.4
    badness = source.choice([0.0, 0.0, 0.02, 0.1])
    for number in range(1, count + 1):
        label = source.randrange(1, 1_000_000)
        if scatters and source.random() < 0.1:
            jobs.append(Job(number, label, [], scattered=True, expected=value_of(label, []), fragile=True))
            continue
        fan = min(len(jobs), source.choice([0, 0, 1, 1, 2, 2, 3, width]))
        recent = jobs[-3 * width :] if source.random() < 0.7 else jobs
        inputs = [job.number for job in source.sample(recent, min(fan, len(recent)))]
        job = Job(number, label, inputs, bad=source.random() < badness)
        parents = [jobs[each - 1] for each in inputs]
        job.expected = value_of(label, [parent.expected for parent in parents])
        job.doomed = job.bad or any(parent.doomed for parent in parents)
        job.fragile = any(parent.fragile for parent in parents)
        for parent in parents:
            parent.users.append(number)
        jobs.append(job)
    return jobs

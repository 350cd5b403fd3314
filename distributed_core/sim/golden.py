"""Scenarios as readable lines: one for each worker, client, job, chunk, act and fault.

    seed 17
    scheduler offset_s=0.0 rate=1.0
    worker n0 nthreads=2 nanny=yes joins_s=0.0 resources=2.0 delay_s=0.001 jitter=3.0 offset_s=0.0 rate=1.0
    client weight=1.0 delay_s=0.001 jitter=3.0 leaves_s=0.0
      job 1 label=128 inputs=- priority=0 key=key-128
      job 2 label=256 inputs=1 priority=0 kind=bad options={"retries":1}
      chunk 0.0 1,2
      act 0.5 release 1
    fault 0.7 kill n0 for_s=0.0

What follows a `#` is for people.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from distributed_core.errors import UsageError
from distributed_core.sim.scenario import Act, ClientShape, Mishap, Scenario, WorkerShape
from distributed_core.sim.workload import Job

_FLAGS = ("scattered", "adopted")


def to_text(scenario: Scenario, remark: str = "") -> str:
    """Return a scenario as lines; `remark` comes first, as a comment."""
    lines = [f"# {line}" for line in remark.splitlines()]
    lines.append(f"seed {scenario.seed}")
    lines.append(f"scheduler offset_s={scenario.scheduler_offset_s} rate={scenario.scheduler_rate}")
    for worker in scenario.workers:
        facts = {each.name: getattr(worker, each.name) for each in fields(worker) if each.name != "name"}
        facts["nanny"] = "yes" if worker.nanny else "no"
        lines.append(f"worker {worker.name} {_pairs(facts)}")
    for client in scenario.clients:
        names = ("weight", "delay_s", "jitter", "leaves_s", "offset_s", "rate")
        lines.append(f"client {_pairs({name: getattr(client, name) for name in names})}")
        lines += [f"  {_job_line(job)}" for job in client.jobs]
        lines += [f"  chunk {at_s} {_listed(numbers)}" for at_s, numbers in client.chunks]
        lines += [f"  act {act.at_s} {act.word} {_listed(act.numbers)}" for act in client.acts]
    for fault in scenario.faults:
        lines.append(f"fault {fault.at_s} {fault.kind} {_listed(fault.names)} for_s={fault.for_s}")
    return "\n".join(lines) + "\n"


def _job_line(job: Job) -> str:
    facts: dict[str, Any] = {"label": job.label, "inputs": _listed(job.inputs), "priority": job.priority}
    if job.kind:
        facts["kind"] = job.kind
    if job.key is not None:
        facts["key"] = job.key
    if job.flakes:
        facts["flakes"] = job.flakes
    facts |= {flag: "yes" for flag in _FLAGS if getattr(job, flag)}
    if job.options:
        facts["options"] = json.dumps(job.options, separators=(",", ":"))
    return f"job {job.number} {_pairs(facts)}"


def _pairs(facts: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in facts.items())


def _listed(items: list[Any]) -> str:
    return ",".join(map(str, items)) or "-"


def from_text(text: str) -> Scenario:
    """Return the scenario that the lines say.

    Raises
    ------
    UsageError
        A line makes no sense.
    """
    scenario = Scenario(0, [], [], [])
    for place, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                _take(scenario, words[0], words[1:])
            except (KeyError, ValueError, IndexError, TypeError) as error:
                raise UsageError(f"line {place} of the scenario makes no sense ({error}): {line.strip():.80}") from None
    return scenario


def _take(scenario: Scenario, what: str, words: list[str]) -> None:
    plain = [word for word in words if "=" not in word]
    facts = dict(word.split("=", 1) for word in words if "=" in word)
    if what == "seed":
        scenario.seed = int(plain[0])
    elif what == "scheduler":
        scenario.scheduler_offset_s, scenario.scheduler_rate = float(facts["offset_s"]), float(facts["rate"])
    elif what == "worker":
        nanny, nthreads = facts.pop("nanny", "yes") == "yes", int(facts.pop("nthreads"))
        scenario.workers.append(WorkerShape(plain[0], nthreads, nanny, **_floats(facts)))
    elif what == "client":
        scenario.clients.append(ClientShape([], [], **_floats(facts)))  # type: ignore[arg-type]
    elif what == "job":
        scenario.clients[-1].jobs.append(_job(int(plain[0]), facts))
    elif what == "chunk":
        scenario.clients[-1].chunks.append((float(plain[0]), _numbers(plain[1])))
    elif what == "act":
        scenario.clients[-1].acts.append(Act(float(plain[0]), plain[1], _numbers(plain[2])))
    elif what == "fault":
        scenario.faults.append(Mishap(float(plain[0]), plain[1], plain[2].split(","), float(facts.get("for_s", 0.0))))
    else:
        raise ValueError(f"nothing is called {what}")


def _floats(facts: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in facts.items()}


def _numbers(text: str) -> list[int]:
    return [] if text == "-" else [int(each) for each in text.split(",")]


def _job(number: int, facts: dict[str, str]) -> Job:
    return Job(
        number,
        int(facts["label"]),
        _numbers(facts["inputs"]),
        kind=facts.get("kind", ""),
        key=facts.get("key"),
        scattered="scattered" in facts,
        adopted="adopted" in facts,
        flakes=int(facts.get("flakes", "0")),
        priority=int(facts.get("priority", "0")),
        options=json.loads(facts["options"]) if "options" in facts else None,
    )

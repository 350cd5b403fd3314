"""What a scheduler recorded (`dscheduler --record FILE`), done again: where its tasks stand, and what they wait for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distributed_core.errors import UsageError
from distributed_core.machines.scheduler import SchedulerMachine, invariants
from distributed_core.machines.scheduler.journal import digest, restored
from distributed_core.machines.scheduler.reasons import explain_task
from distributed_core.machines.scheduler.tasks import Erred, Held, Released
from distributed_core.settings import SchedulerSettings

FORMAT = 1
#: An event is a part of a packet: some hundred tasks.
LINE_LENGTH_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a recording ends: the machine, how many events it took, from when to when, and what ended it early."""

    machine: SchedulerMachine
    events: int
    span_s: float
    broken: str
    ended: str

    @property
    def digest(self) -> str:
        """The digest of its state, as the live scheduler tells it in a dump of its state."""
        return digest(self.machine.ledger)


def replay(path: Path, *, events_max: int | None = None, check_every: int = 1) -> Replayed:
    """Feed the events of a recording to a new machine.

    Parameters
    ----------
    events_max
        Stop after so many.
    check_every
        Check the invariants after each so many events, and at the end; with many tasks each check takes its time.

    Raises
    ------
    UsageError
        The file cannot be read, or is no recording.
    """
    lines = _lines(path)
    first = next(lines, None)
    told = first.get("settings") if isinstance(first, dict) and first.get("format") == FORMAT else None
    if not isinstance(told, dict):
        raise UsageError(f"{path} is no recording of this version's dscheduler; record it anew")
    known = {field.name for field in fields(SchedulerSettings)}
    settings = {name: value for name, value in told.items() if name in known}
    if not all(type(value) in (int, float) for value in settings.values()):
        raise UsageError(f"{path} has settings that are no numbers; it was not written by dscheduler")
    machine = SchedulerMachine(SchedulerSettings(**settings))
    count, begin, now, ended = 0, None, 0.0, ""
    for line in lines:
        if isinstance(line, dict):
            ended = str(line.get("ended", ""))
            break
        if count == events_max:
            break
        if not (isinstance(line, list) and len(line) > 1 and type(line[0]) in (int, float) and type(line[1]) is str):
            raise UsageError(f"{path} holds something else than events; it was not written by dscheduler")
        now, *plain = line
        begin = now if begin is None else begin
        count += 1
        try:
            machine.handle(restored(plain), now)
            if count % check_every == 0:
                invariants.check(machine)
        except Exception as error:
            # Whatever it is: what made the scheduler fail is what one looks for here.
            text = f"event {count} ({plain[0]}): {type(error).__name__}: {error}"
            return Replayed(machine, count, now - begin, text, ended)
    broken = ""
    try:
        invariants.check(machine)
    except Exception as error:
        broken = f"after event {count}: {error}"
    return Replayed(machine, count, now - (begin or 0.0), broken, ended)


def _lines(path: Path) -> Iterator[Any]:
    number = 0
    try:
        if not (path.is_file() or path.is_dir() or not path.exists()):
            raise UsageError(f"{path} is no file, and would never end; name a recording")
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(LINE_LENGTH_MAX):
                number += 1
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError):
                    if line.endswith("\n") or len(line) == LINE_LENGTH_MAX:
                        raise UsageError(
                            f"line {number} of {path} is broken; it was not written by dscheduler"
                        ) from None
                    return  # cut off in the middle of a line: the scheduler was killed
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def report(done: Replayed, *, tasks_max: int = 20) -> str:
    """Return in lines where a replay stands: tasks by state, what each unfinished one waits for, the digest."""
    ledger = done.machine.ledger
    lines = [f"{done.events} events over {done.span_s:.1f} s"]
    if done.ended:
        lines.append(done.ended)
    lines.append(f"{len(ledger.workers)} workers, {len(ledger.clients) - 2} clients, {len(ledger.tasks)} tasks")
    states = Counter(type(task.state).__name__ for task in ledger.tasks.values())
    lines += [f"  {count} {state}" for state, count in sorted(states.items())]
    unfinished = [task for task in ledger.tasks.values() if type(task.state) not in (Held, Erred, Released)]
    lines += [f"  {explain_task(ledger, task)}" for task in unfinished[:tasks_max]]
    if len(unfinished) > tasks_max:
        lines.append(f"  and {len(unfinished) - tasks_max} more that are not done")
    lines.append(f"digest {done.digest}")
    lines.append(f"BROKEN {done.broken}" if done.broken else "all invariants hold")
    return "\n".join(lines)

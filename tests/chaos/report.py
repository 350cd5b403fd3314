"""What a run tells: the table of recoveries, the page of a failure, the last line."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.hosts import WORLD
from tests.chaos.oracle import Happened, Oracle

LOG_LINES = 12
FAULT_LINES = 40
COMPLAINTS_MAX = 15


def recovery_table(oracle: Oracle) -> list[dict[str, Any]]:
    """Return a row for each kind of fault, most frequent first."""
    rows = [
        {
            "kind": kind,
            "count": len(times),
            "median_s": round(statistics.median(times), 2),
            "worst_s": round(max(times), 2),
        }
        for kind, times in oracle.recoveries().items()
    ]
    return sorted(rows, key=lambda row: -row["count"])


def print_table(rows: list[dict[str, Any]]) -> None:
    print("until what was open at a fault, or at its end, had its right result:")
    print(f"  {'fault':<22}{'times':>6}{'median':>10}{'worst':>10}")
    for row in rows:
        print(f"  {row['kind']:<22}{row['count']:>6}{row['median_s']:>8.2f} s{row['worst_s']:>8.2f} s")


def print_failure(seed: int, command: str, complaints: list[str], happened: list[Happened], start_s: float) -> None:
    """Print the page of a failed run."""
    print(f"\nchaos: FAILED, seed {seed}; the same faults again: {command}")
    for text in complaints[:COMPLAINTS_MAX]:
        print(f"  - {text[:600]}")
    if len(complaints) > COMPLAINTS_MAX:
        print(f"  - and {len(complaints) - COMPLAINTS_MAX} more")
    print(f"the last faults (seconds since the start; {len(happened)} in all):")
    for each in happened[-FAULT_LINES:]:
        healed = f", healed at {each.healed_at_s - start_s:.1f}" if each.fault.lasts_s else ""
        print(f"  {each.at_s - start_s:7.1f}  {each.fault}{healed}")
    for log in sorted((WORLD / "logs").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            print(f"the end of {log.name} ({len(lines)} lines):")
            for line in lines[-LOG_LINES:]:
                print(f"  {line[:240]}")


def summary(oracle: Oracle, seed: int, took_s: float) -> str:
    """Return the last line of a run that went well."""
    jobs = Counter(job.verdict for job in oracle.jobs.values() if job.ended_at_s)
    tasks = sum(job.tasks for job in oracle.jobs.values())
    kinds = Counter(each.fault.kind for each in oracle.happened)
    faults = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    errors = f", {jobs['error']} ended with the error that was due" if jobs["error"] else ""
    return (
        f"chaos: {tasks:,} tasks in {sum(jobs.values()):,} jobs under {len(oracle.happened)} faults ({faults}) in"
        f" {took_s:.0f} s, seed {seed}: all results were right{errors}, and nothing was left"
    )


def write(path: Path, oracle: Oracle, seed: int, took_s: float, complaints: list[str], start_s: float) -> None:
    """Write all that was measured as JSON."""
    content = {
        "seed": seed,
        "took_s": round(took_s, 1),
        "tasks": sum(job.tasks for job in oracle.jobs.values()),
        "jobs": Counter(f"{job.kind} {job.verdict or 'dropped'}" for job in oracle.jobs.values()),
        "recovery": recovery_table(oracle),
        "faults": [
            {"at_s": round(each.at_s - start_s, 2), "what": str(each.fault), "deaths": each.deaths}
            for each in oracle.happened
        ],
        "complaints": complaints,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

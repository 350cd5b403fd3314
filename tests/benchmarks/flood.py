"""Millions of submits, released as they finish, against a scheduler that may not grow."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from distributed_core import Client
from tests.benchmarks.workloads import increment

TASKS = 5_000_000
SCHEDULER_BYTES_MAX = 300 << 20
#: No more is submitted after so long; what was submitted is still waited for.
SUBMIT_S_MAX = float(os.environ.get("FLOOD_S_MAX", "240"))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (SCHEDULER_BYTES_MAX, SCHEDULER_BYTES_MAX))


def peak_mib(pid: int) -> float:
    """Return the most memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def flood(scale: float) -> dict[str, float]:
    """Submit without waiting, let go of what is finished, and count: nothing may be lost, nor the scheduler die."""
    folder = Path(sys.executable).parent
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    start = [str(folder / "dscheduler"), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(start, preexec_fn=_limit, **options) as scheduler:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().split()[-1]
        with subprocess.Popen([str(folder / "dworker"), address, "--nthreads", "1", "--no-nanny"], **options) as worker:
            try:
                with Client(address, timeout=20) as client:
                    client.wait_for_workers(1, timeout=30)
                    figures = _flood(client, max(1, int(TASKS * scale)))
                    figures["scheduler peak MiB"] = peak_mib(scheduler.pid)
                    figures["worker peak MiB"] = peak_mib(worker.pid)
                    figures["client peak MiB"] = peak_mib(os.getpid())
                    if scheduler.poll() is not None:
                        raise RuntimeError("the scheduler died")
            finally:
                worker.terminate()
                scheduler.terminate()
    return figures


def _flood(client: Client, count: int) -> dict[str, float]:
    held: deque[Any] = deque()
    begin = time.perf_counter()
    good = submitted = 0
    while submitted < count and time.perf_counter() - begin < SUBMIT_S_MAX:
        held.append(client.submit(increment, submitted))
        submitted += 1
        while held and held[0].done():
            good += held.popleft().status == "finished"
    while held:
        first = held.popleft()
        first.exception(timeout=120)
        good += first.status == "finished"
    took_s = time.perf_counter() - begin
    if good != submitted:
        raise RuntimeError(f"{submitted - good} of {submitted} tasks were lost")
    window = client._session.window
    return {"tasks": submitted, "tasks/s": submitted / took_s, "most at the scheduler": window.peak}

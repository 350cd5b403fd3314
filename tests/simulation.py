"""Many worlds on all cores, one world again, and the smallest world that fails as one does."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from pathlib import Path

from distributed_core.sim import expand, simulate
from distributed_core.sim.golden import from_text, to_text
from distributed_core.sim.reduce import failure_of, measure, reduced
from distributed_core.sim.run import run
from distributed_core.sim.scenario import Scenario

CHUNK_SEEDS = 20
FAILURES_MAX = 20


def try_seed(seed: int) -> str:
    """Return how the world of a seed fails, as text; "" if it ends well."""
    try:
        simulate(seed)
    except Exception:
        return traceback.format_exc()
    return ""


def run_seeds(first: int, count: int, processes: int | None) -> bool:
    """Run the worlds of these seeds; print each failure with the line that replays it. Return whether all are well."""
    processes = min(processes or os.cpu_count() or 1, max(1, count // CHUNK_SEEDS))
    seeds = range(first, first + count)
    failed = 0
    start_s = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for seed, text in zip(seeds, pool.imap(try_seed, seeds, chunksize=CHUNK_SEEDS), strict=True):
            if text:
                failed += 1
                if failed <= FAILURES_MAX:
                    print(f"{text}replay: python -m tests sim --seed {seed}", flush=True)
    took_s = time.perf_counter() - start_s
    rate = f"{took_s:.0f} s, {count / took_s:.0f} seeds per second in {processes} processes"
    print(f"sim: {count - failed} passed, {failed} failed; {rate}")
    return not failed


def show(seed: int) -> bool:
    """Run one world and print its scenario and how it ends."""
    print(to_text(expand(seed)), end="")
    text = try_seed(seed)
    print(text or simulate(seed))
    return not text


def replay(path: Path) -> bool:
    """Run the scenario in a file; print how it ends."""
    try:
        print(run(from_text(path.read_text(encoding="utf-8"))))
    except Exception:
        traceback.print_exc()
        return False
    return True


def reduce_seed(seed: int, out: Path | None) -> bool:
    """Write the smallest scenario that fails as that of the seed does, as lines."""
    scenario = expand(seed)
    return reduce_scenario(scenario, out or Path(f"seed-{seed}.txt"))


def reduce_scenario(scenario: Scenario, out: Path) -> bool:
    how = failure_of(scenario)
    if how is None:
        print(f"the world of seed {scenario.seed} ends well: there is nothing to reduce")
        return False
    print(f"{how}\n{measure(scenario)} parts")
    small = reduced(scenario, tell=print)
    out.write_text(to_text(small, f"found by seed {scenario.seed}: {how}"), encoding="utf-8")
    print(f"{out}: {measure(small)} parts; replay: python -m tests sim --scenario {out}")
    return True

"""What a task costs in packets, messages, bytes, instructions and calls: counts that no busy computer changes.

The bounds are a little above what was measured. Whoever makes something dearer finds out here, and either mends it or
says in the commit why it is worth it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import model

#: For each shape, at most so many per 1,000 tasks.
BOUNDS = {
    "independent": {
        "packets": 100,
        "messages": 3_100,
        "bytes": 145_000,
        "scheduler instructions": 60,
        "worker instructions": 1_120,
        "scheduler calls": 66_000,
        "fetches": 0,
    },
    "chain": {
        "packets": 3_100,
        "messages": 3_100,
        "bytes": 205_000,
        "scheduler instructions": 2_100,
        "worker instructions": 2_100,
        "scheduler calls": 97_000,
        "fetches": 0,
    },
    "tree": {
        "packets": 260,
        "messages": 3_150,
        "bytes": 172_000,
        "scheduler instructions": 140,
        "worker instructions": 1_230,
        "scheduler calls": 85_000,
        "fetches": 60,
    },
    "all-to-all": {
        "packets": 90,
        "messages": 3_100,
        "bytes": 195_000,
        "scheduler instructions": 48,
        "worker instructions": 1_120,
        "scheduler calls": 104_000,
        "fetches": 20,
    },
}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What others hang on the collector, as hypothesis does, is called at any time, and must not be counted."""
    gc.disable()
    yield
    gc.enable()


def exceeded(shape: str) -> dict[str, float]:
    """Return the counts of a shape that are above their bounds."""
    found = model.counted(shape)
    bounds = {f"{what} per 1,000 tasks": bound for what, bound in BOUNDS[shape].items()}
    assert found.keys() == bounds.keys()
    return {what: count for what, count in found.items() if count > bounds[what]}


@pytest.mark.parametrize("shape", BOUNDS)
def test_a_task_costs_no_more_than_it_did(shape: str) -> None:
    assert exceeded(shape) == {}


def test_counts_are_the_same_each_time() -> None:
    assert model.counted("tree") == model.counted("tree")


def test_a_flush_per_result_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "TURN_S", 0.0)
    assert "packets per 1,000 tasks" in exceeded("independent")


def test_what_is_held_takes_few_records() -> None:
    found = model.held_by_scheduler()
    assert found["allocations per held task"] < 2.1
    assert found["bytes per held task"] < 380


@pytest.mark.process
def test_the_benchmarks_run(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    parts = ["noop", "latency", "chain", "tree", "all_to_all", "fan_in", "mixed", "move", "held", "socket_tls"]
    argv = [sys.executable, "-m", "tests.benchmarks", *parts, "--scale", "0.02", "--json", str(written)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["part"] for row in json.loads(written.read_text())} == set(parts)
    assert "noop tasks/s" in done.stdout

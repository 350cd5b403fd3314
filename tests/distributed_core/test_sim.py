"""The cluster on virtual time: many worlds, the same seed gives the same one, and planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from distributed_core.errors import InvariantBroken, UsageError
from distributed_core.sim import expand, simulate
from distributed_core.sim.faults import FAULTS
from distributed_core.sim.golden import from_text, to_text
from distributed_core.sim.reduce import failure_of, measure, reduced
from distributed_core.sim.run import run
from distributed_core.sim.world import World
from tests.distributed_core.planted import PLANTED, SEEDS_MAX, found_by, scenario_of

SEEDS = int(os.environ.get("SIM_SEEDS", "200"))
SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


def test_every_world_ends_well() -> None:
    outcomes = [simulate(seed) for seed in range(SEEDS)]
    # The worlds are not empty: workers die in them, and work is done.
    assert sum(outcome.kills for outcome in outcomes) > SEEDS / 2
    assert sum(outcome.futures for outcome in outcomes) > 20 * SEEDS


def test_the_seeds_have_all_faults() -> None:
    scenarios = [expand(seed) for seed in range(300)]
    kinds = {fault.kind for scenario in scenarios for fault in scenario.faults}
    assert kinds == set(FAULTS)
    words = {act.word for scenario in scenarios for client in scenario.clients for act in client.acts}
    assert words == {"cancel", "release", "retry", "vow"}
    assert any(worker.joins_s for scenario in scenarios for worker in scenario.workers)
    assert any(not worker.nanny for scenario in scenarios for worker in scenario.workers)
    assert any(scenario.scheduler_rate != 1.0 for scenario in scenarios)
    assert all(scenario.sensible() for scenario in scenarios)


def test_same_seed_same_trace_under_two_hash_seeds() -> None:
    code = "from distributed_core.sim import simulate; print([simulate(seed).trace for seed in range(30)])"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": each}, stdout=subprocess.PIPE, text=True
        )
        for each in ("1", "2")
    ]
    traces = {process.communicate(timeout=60)[0] for process in running}
    assert len(traces) == 1
    assert "['" in traces.pop()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_that_failed_once_ends_well(path: Path) -> None:
    run(from_text(path.read_text(encoding="utf-8")))


def test_scenarios_go_through_text_and_back() -> None:
    for seed in range(60):
        scenario = expand(seed)
        again = from_text(to_text(scenario, "a remark\nof two lines"))
        assert again.derived() == scenario.derived()
    assert run(from_text(to_text(expand(3)))).trace == simulate(3).trace
    with pytest.raises(UsageError, match=r"line 2 .* makes no sense"):
        from_text("seed 1\nworker n0 nthreads=many\n")


def test_leaving_out_a_fault_does_not_disturb_the_others() -> None:
    world, again = World(5), World(5)
    first = world.stream("link", "n0").random()
    world.stream("link", "n1").random()
    assert again.stream("link", "n0").random() == first
    assert again.draw("run", 1, 1) == world.draw("run", 1, 1) != world.draw("run", 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, seeds = PLANTED[name]
    plant(monkeypatch)
    kept = scenario_of(name)
    if kept.exists():
        with pytest.raises(InvariantBroken):
            run(from_text(kept.read_text(encoding="utf-8")))
        return
    assert found_by(chain(seeds, range(SEEDS_MAX))) is not None


def test_a_failing_scenario_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    plant, (seed, *_) = PLANTED["a_nanny_that_does_not_restart"]
    plant(monkeypatch)
    scenario = expand(seed)
    how = failure_of(scenario)
    small = reduced(scenario, runs_max=300)
    # A worker, what kills it, and a client because there is always one.
    assert measure(small) < 8 < measure(scenario)
    assert failure_of(from_text(to_text(small))) == how is not None
    with pytest.raises(InvariantBroken, match="nobody started another process"):
        run(small)
    monkeypatch.undo()
    run(small)
    with pytest.raises(ValueError, match="does not fail"):
        reduced(small)

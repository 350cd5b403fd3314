"""Deaths, restarts, lifetimes, names, environments, and the end of a cluster."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from distributed_core import Client, rpc
from distributed_core.errors import ClientClosed, EngineError, NotEnoughWorkers, TaskCancelled, UsageError
from distributed_core.machines import nanny as words
from tests.distributed_core.launching import Launcher
from tests.distributed_core.test_operations import hold, until

process = pytest.mark.process

DEATHS = "def deaths(scheduler):\n    return scheduler.deaths\n"


# --- the nanny's machine --------------------------------------------------------------------------


def test_a_restart_asks_then_kills_then_starts() -> None:
    machine = words.NannyMachine()
    assert machine.handle(words.RestartWanted(), 0.0) == []
    assert machine.handle(words.StartWanted(), 0.0) == [words.StartProcess()]
    machine.handle(words.ProcessRegistered(), 1.0)
    (asked,) = machine.handle(words.RestartWanted(), 2.0)
    assert asked == words.AskToStop(machine.settings.stop_grace_s)
    assert machine.handle(words.RestartWanted(), 2.0) == []
    assert isinstance(machine.handle(words.GraceEnded(), 5.0)[0], words.KillProcess)
    assert machine.handle(words.ProcessLeft(0), 5.1) == []
    assert machine.handle(words.ProcessEnded(-9), 5.1) == [words.StartProcess()]
    assert (machine.state, machine.restarts) == ("starting", 1)
    machine.handle(words.ProcessRegistered(), 6.0)
    assert machine.handle(words.ProcessEnded(-9), 7.0) == [words.WaitBackoff(0.0)]


def test_a_process_that_wants_another_one_after_it() -> None:
    machine = words.NannyMachine()
    machine.handle(words.StartWanted(), 0.0)
    machine.handle(words.ProcessRegistered(), 1.0)
    machine.handle(words.ProcessLeft(0, restart=True), 2.0)
    assert machine.handle(words.ProcessEnded(0), 2.0) == [words.StartProcess()]
    machine.handle(words.ProcessLeft(0), 3.0)
    assert machine.handle(words.ProcessEnded(0), 3.0) == [words.CloseNanny(0)]


def test_a_stop_during_a_restart() -> None:
    machine = words.NannyMachine()
    machine.handle(words.StartWanted(), 0.0)
    machine.handle(words.RestartWanted(), 1.0)
    assert machine.handle(words.StopWanted(), 1.0) == [words.AskToStop(machine.settings.stop_grace_s)]
    assert machine.handle(words.ProcessEnded(0), 1.0) == [words.CloseNanny(0)]


# --- restarts -------------------------------------------------------------------------------------


@process
def test_restart(launch: Launcher, tmp_path: Path) -> None:
    _, address = launch.scheduler()
    for name in ("a", "b"):
        launch.worker(address, "--nthreads", "1", "--name", name)
    gate = tmp_path / "gate"
    with Client(address) as client, Client(address) as other:
        before = client.run(os.getpid)
        assert len(before) == 2
        done, theirs = client.submit(abs, -1), other.submit(abs, -2)
        assert (done.result(), theirs.result()) == (1, 2)
        held = client.submit(hold, str(gate))
        until(gate.exists)
        assert client.restart(timeout=60) is None
        for future in (held, done, theirs):
            with pytest.raises(TaskCancelled):
                future.result(timeout=20)
        after = client.run(os.getpid)
        assert len(after) == 2
        assert not set(after.values()) & set(before.values())
        assert not any(psutil.pid_exists(pid) for pid in before.values())
        assert client.submit(abs, -3).result() == 3
        assert sorted(worker["name"] for worker in client.scheduler_info()["workers"].values()) == ["a", "b"]
        with pytest.raises(UsageError, match="number of seconds"):
            client.restart(timeout=-1)


@process
def test_restart_closes_workers_without_a_nanny_and_says_so(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1")
    alone = launch.worker(address, "--nthreads", "1", "--no-nanny", "--name", "alone")
    with Client(address) as client:
        with pytest.raises(UsageError, match="without a nanny cannot be restarted: alone"):
            client.restart_workers("alone")
        with pytest.warns(UserWarning, match="1 workers have no nanny and were closed"):
            client.restart(timeout=60)
        assert alone.wait() == 0
        assert len(client.nthreads()) == 1


@process
def test_restart_workers(launch: Launcher) -> None:
    _, address = launch.scheduler()
    nannies = [launch.worker(address, "--nthreads", "1", "--name", name) for name in ("a", "b")]
    with Client(address) as client:
        (a,), (b,) = (client.run(os.getpid, workers=name).values() for name in ("a", "b"))
        (where,) = client.nthreads(workers="a")
        kept = client.submit(abs, -5, workers="b")
        assert kept.result() == 5
        assert client.restart_workers(["a"], timeout=60) == {where: "OK"}
        assert client.run(os.getpid, workers="a").popitem()[1] != a
        assert client.run(os.getpid, workers="b").popitem()[1] == b
        assert kept.result() == 5
        with pytest.raises(UsageError, match="no worker is named c"):
            client.restart_workers(["a", "c"])
        with pytest.raises(UsageError, match="workers is empty"):
            client.restart_workers([])
        # A nanny that stands still brings nobody back.
        nannies[0].process.send_signal(signal.SIGSTOP)
        (where,) = client.nthreads(workers="a")
        assert client.restart_workers(["a"], timeout=0.3, raise_for_error=False) == {where: "timed out"}
        with pytest.raises(NotEnoughWorkers, match="1 of 1 workers did not come back"):
            client.restart_workers(["a"], timeout=0.3)
        nannies[0].process.send_signal(signal.SIGCONT)


@process
def test_a_nannys_own_handlers(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1")
    (worker,) = rpc(address).identity()["workers"].values()
    before = rpc(worker["nanny"]).identity()
    assert before["worker"] == worker["address"]
    assert rpc(worker["nanny"], timeout_s=30).restart(timeout=30) == "OK"
    after = rpc(worker["nanny"]).identity()
    assert after["worker_pid"] != before["worker_pid"]
    assert after["restarts"] == 1


# --- deaths ---------------------------------------------------------------------------------------


@process
def test_a_nanny_reports_how_its_process_died(launch: Launcher, tmp_path: Path) -> None:
    module = tmp_path / "coroner.py"
    module.write_text(DEATHS)
    _, address = launch.scheduler("--preload", str(module))
    launch.worker(address, "--nthreads", "1", "--memory-limit", "300MB")

    def deaths() -> Any:
        return client.run_on_scheduler("coroner:deaths")

    with Client(address) as client:
        ((where, pid),) = client.run(os.getpid).items()
        until(lambda: psutil.Process(pid).memory_info().rss > 10_000_000)
        os.kill(pid, signal.SIGKILL)
        death = until(deaths)[where]
        assert (death["pid"], death["exit_code"], death["reason"]) == (pid, -9, "")
        until(lambda: (now := client.nthreads()) and where not in now)
        ((second, _),) = client.run(os.getpid).items()
        client.restart_workers([second])
        assert set(deaths()) == {where}
        (third,) = client.nthreads()

        def hoard() -> int:
            kept = bytearray(400_000_000)
            while len(kept):
                time.sleep(0.05)
            return 0

        hoarding = client.submit(hoard)
        death = until(lambda: deaths().get(third))
        assert death["exit_code"] == -9
        assert death["memory_bytes"] > 285_000_000
        assert "its limit is 300000000" in death["reason"]
        hoarding.cancel()


# --- lifetimes ------------------------------------------------------------------------------------


@process
@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_lifetime_ends_the_worker(launch: Launcher, nanny: str) -> None:
    _, address = launch.scheduler()
    # On a busy machine it may be over before it is registered.
    options = ("--nthreads", "1", "--lifetime", "200ms", "--lifetime-stagger", "100ms", nanny)
    worker = launch.start("dworker", address, *options)
    assert worker.wait() == 0
    assert "lifetime" in worker.errors()
    with Client(address) as client:
        assert client.nthreads() == {}


@process
def test_a_lifetime_with_restart_starts_another_one(launch: Launcher) -> None:
    _, address = launch.scheduler()
    worker = launch.worker(address, "--nthreads", "1", "--name", "phoenix", "--lifetime", "1s", "--lifetime-restart")
    with Client(address) as client:
        # Between two lives there is none.
        first = until(lambda: list(client.nthreads()))[0]

        def followed() -> bool:
            # One look for all: its successor soon makes room for the next one.
            workers = client.scheduler_info()["workers"]
            return [(name != first, each["name"]) for name, each in workers.items()] == [(True, "phoenix")]

        until(followed)
    assert worker.process.poll() is None
    assert worker.end() == 0


@process
def test_an_idle_cluster_ends(launch: Launcher) -> None:
    scheduler, address = launch.scheduler("--idle-timeout", "3s")
    workers = [launch.worker(address, "--nthreads", "1", nanny) for nanny in ("--nanny", "--no-nanny")]
    client = Client(address)
    assert client.submit(lambda: time.sleep(1) or 5).result(timeout=20) == 5
    assert scheduler.wait() == 0
    assert "no task and no client's call for 3 s" in scheduler.errors()
    assert [worker.wait() for worker in workers] == [0, 0]
    client.close()


@process
def test_shutdown(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    workers = [launch.worker(address, "--nthreads", "1", nanny) for nanny in ("--nanny", "--no-nanny")]
    client = Client(address)
    client.shutdown()
    assert scheduler.wait() == 0
    assert [worker.wait() for worker in workers] == [0, 0]
    with pytest.raises(ClientClosed):
        client.submit(abs, -1)


# --- names, resources, environments ---------------------------------------------------------------


@process
def test_a_name_belongs_to_one_worker(launch: Launcher) -> None:
    _, address = launch.scheduler()
    first = launch.worker(address, "--nthreads", "1", "--name", "alice")
    for nanny in ("--nanny", "--no-nanny"):
        second = launch.start("dworker", address, "--name", "alice", "--death-timeout", "0.2", nanny)
        assert second.wait() == 1
        assert "a worker named alice is registered already" in second.errors()
    assert first.end() == 0
    launch.worker(address, "--nthreads", "1", "--name", "alice")


@process
def test_resources_and_nannies_are_shown(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--resources", "GPU=2 MEM=100e9", "--env", "MINE=a b")
    with Client(address) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["resources"] == {"GPU": 2.0, "MEM": 100e9}
        assert rpc(worker["nanny"]).identity()["type"] == "Nanny"
        assert client.submit(os.getenv, "MINE").result() == "a b"


@process
def test_libraries_of_linear_algebra_get_one_thread(launch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--env", "OPENBLAS_NUM_THREADS=2")
    with Client(address) as client:
        names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
        assert client.gather(client.map(os.getenv, names)) == ["1", "3", "2"]


@process
def test_what_workers_may_not_bring(launch: Launcher) -> None:
    from distributed_core import Nanny, Worker

    with pytest.raises(UsageError, match="resources are names"):
        Worker(resources={"GPU": -1})
    with pytest.raises(UsageError, match="resources are names"):
        Nanny(resources={"GPU": "two"})  # type: ignore[dict-item]
    with pytest.raises(EngineError, match="stagger"):
        Worker(lifetime_s=1, lifetime_stagger_s=2)

"""`dscheduler` and `dworker` as commands: their lines, their files, their exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from distributed_core import Client, rpc
from tests.distributed_core.launching import BIN, Launcher

pytestmark = pytest.mark.process


BAD_OPTIONS = [
    ["--resources", "GPU"],
    ["--resources", "GPU=two"],
    ["--resources", "GPU=1 GPU=2"],
    ["--resources", ""],
    ["--lifetime", "soon"],
    ["--lifetime", "1m", "--lifetime-stagger", "2m"],
    ["--lifetime-restart"],
    ["--env", "NAME"],
    ["--no-nanny", "--env", "NAME=VALUE"],
    ["--name", ""],
]


def run(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / command), *options], capture_output=True, text=True, timeout=60)


def test_the_setup_pages_lines(launch: Launcher) -> None:
    _, address = launch.scheduler()
    worker = launch.start("dworker", address, "--nthreads", "1")
    host, _, port = worker.line().removeprefix("Start worker at: ").rpartition(":")
    assert host == "127.0.0.1"
    assert 0 < int(port) < 65536
    assert worker.line() == f"Registered with center at: {address}"


def test_scheduler_and_pid_files(launch: Launcher, tmp_path: Path) -> None:
    file, pid = tmp_path / "scheduler.json", tmp_path / "pid"
    scheduler, address = launch.scheduler("--scheduler-file", str(file), "--pid-file", str(pid))
    named = json.loads(file.read_text())
    assert named["address"] == address
    assert named["type"] == "Scheduler"
    assert pid.read_text() == f"{scheduler.process.pid}\n"
    assert os.stat(named["credential"]).st_mode & 0o077 == 0
    with Client(scheduler_file=file) as client:
        assert client.scheduler_info()["address"] == address
    assert scheduler.end() == 0
    assert not file.exists()
    assert not pid.exists()


def test_a_worker_waits_for_the_scheduler_file(launch: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    worker = launch.start("dworker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny")
    launch.scheduler("--scheduler-file", str(file))
    assert worker.line().startswith("Start worker at: ")


def test_a_worker_waits_for_the_scheduler(launch: Launcher) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    worker = launch.start("dworker", f"127.0.0.1:{port}", "--nthreads", "1")
    launch.scheduler("--port", str(port))
    assert worker.line().startswith("Start worker at: ")


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_death_timeout(nanny: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        done = run("dworker", address, "--death-timeout", "0.3", nanny)
    assert done.returncode == 1
    assert f"no scheduler at {address} within 0.3 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_death_timeout_for_the_file(tmp_path: Path) -> None:
    done = run("dworker", "--scheduler-file", str(tmp_path / "never"), "--death-timeout", "0.1")
    assert done.returncode == 1
    assert "no scheduler file" in done.stderr


@pytest.mark.parametrize(
    "options",
    [[], ["nonsense:port"], ["127.0.0.1:99999"], ["a:1", "--nprocs", "0"], ["a:1", "--memory-limit", "much"]]
    + [["a:1", *each] for each in BAD_OPTIONS],
)
def test_wrong_usage_of_dworker(options: list[str]) -> None:
    done = run("dworker", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")
    assert "Traceback" not in done.stderr


def test_a_port_in_use(launch: Launcher) -> None:
    _, address = launch.scheduler()
    port = address.rpartition(":")[2]
    done = run("dscheduler", "--host", "127.0.0.1", "--port", port)
    assert done.returncode == 1
    assert "is in use by another process" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_usage_of_dscheduler(tmp_path: Path) -> None:
    assert run("dscheduler", "--port", "x").returncode == 2
    done = run("dscheduler", "--port", "0", "--scheduler-file", str(tmp_path / "no" / "such" / "folder"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_everything_cleanly(launch: Launcher, number: int) -> None:
    scheduler, address = launch.scheduler()
    workers = [launch.worker(address, "--nthreads", "1"), launch.worker(address, "--nthreads", "1", "--no-nanny")]
    children = psutil.Process(workers[0].process.pid).children()
    assert len(children) == 1
    for launched in (*workers, scheduler):
        assert launched.end(number) == 0
    assert not any(child.is_running() for child in children)


def test_kill_9_of_a_nanny_takes_its_worker_along(launch: Launcher) -> None:
    _, address = launch.scheduler()
    worker = launch.worker(address, "--nthreads", "1")
    (child,) = psutil.Process(worker.process.pid).children()
    worker.process.kill()
    child.wait(20)


def test_a_killed_worker_process_comes_back(launch: Launcher) -> None:
    _, address = launch.scheduler()
    worker = launch.worker(address, "--nthreads", "1")
    with Client(address) as client:
        before = client.submit(os.getpid).result()
        os.kill(before, signal.SIGKILL)
        after = client.submit(os.getpid, key="again").result(timeout=30)
        assert after != before
        assert psutil.Process(after).ppid() == worker.process.pid


def test_several_processes_have_names_of_their_own(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.start("dworker", address, "--nprocs", "2", "--nthreads", "3", "--name", "alice")
    with Client(address) as client:
        client.wait_for_workers(2, timeout=30)
        workers = client.scheduler_info()["workers"].values()
        assert sorted(worker["name"] for worker in workers) == ["alice-0", "alice-1"]
        assert {worker["nthreads"] for worker in workers} == {3}


def test_terminate_by_rpc(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    with_nanny = launch.worker(address, "--nthreads", "1")
    alone = launch.start("dworker", address, "--nthreads", "1", "--no-nanny", "--name", "alone")
    alone_address = alone.line().removeprefix("Start worker at: ")
    workers = rpc(address).identity()["workers"]
    (nannied_address,) = [where for where in workers if where != alone_address]
    for where in (nannied_address, alone_address):
        assert rpc(where).ping() == "pong"
        assert rpc(where).terminate() == "OK"
    assert with_nanny.wait() == 0
    assert alone.wait() == 0
    assert rpc(address).terminate() == "OK"
    assert scheduler.wait() == 0


def test_a_memory_limit_restarts_the_worker(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--memory-limit", "300MB")

    def hoard() -> int:
        import time

        kept = bytearray(400_000_000)
        while len(kept):
            time.sleep(0.05)
        return 0

    with Client(address) as client:
        before = client.submit(os.getpid).result()
        hoarding = client.submit(hoard)
        psutil.Process(before).wait(30)
        hoarding.cancel()
        assert client.submit(os.getpid, key="afterwards").result(timeout=30) != before


def test_identity_from_the_command_line(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "2", "--name", "bob")
    ask = [sys.executable, "-m", "distributed_core", "identity"]
    done = subprocess.run([*ask, address], capture_output=True, text=True, timeout=60)
    (worker,) = json.loads(done.stdout)["workers"].values()
    assert (worker["name"], worker["nthreads"]) == ("bob", 2)
    done = subprocess.run([*ask, "127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1

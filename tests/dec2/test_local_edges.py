"""The local provider where things go wrong: races, losses, leftovers, names that are paths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import dec2
from dec2 import apply
from dec2.errors import WrongUsage
from dec2.providers.local import LocalProvider

pytestmark = pytest.mark.process

DEC2 = str(Path(sys.executable).parent / "dec2")
UP = ("up", "--provider", "local", "--name", "c")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the clusters' folders; whatever runs for it is ended."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    provider = LocalProvider()
    yield provider.home
    for inventory in provider.clusters():
        apply.tear_down(inventory.name, provider, lambda text: None)


def run(*options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [DEC2, *options], capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def nodes_of(name: str = "c") -> dict[int, dict[str, str]]:
    status = subprocess.run([DEC2, "status", name, "--provider", "local", "--json"], capture_output=True, check=False)
    return {node["index"]: node for node in json.loads(status.stdout)["nodes"]}


def kill(pid: str) -> None:
    process = psutil.Process(int(pid))
    process.kill()
    # In a container whose process 1 collects nobody it stays as a zombie, which is as dead.
    psutil.wait_procs([process], timeout=2)


def test_what_a_task_started_is_no_node_and_ends_with_the_cluster(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import subprocess\n"
        "from distributed_core import get_client\n"
        "def start(own):\n"
        "    return subprocess.Popen(['sleep', '600'], start_new_session=own).pid\n"
        "client = get_client()\n"
        "print(*client.gather([client.submit(start, own) for own in (False, True)]))\n"
    )
    run(*UP, "--count", "2")
    before = nodes_of()
    started = [psutil.Process(int(pid)) for pid in run("run", "--name", "c", str(script)).stdout.split()]
    assert nodes_of() == before
    run("destroy", "c", "-y")
    assert [process for process in started if process.is_running() and process.status() != "zombie"] == []


def test_several_ups_at_once_make_one_cluster(home: Path) -> None:
    racing = [subprocess.Popen([DEC2, *UP, "--count", "3"], stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(timeout=60) for process in racing] == [0, 0, 0, 0]
    assert len(list(LocalProvider()._units("c"))) == 3


def test_a_worker_that_ends_is_named_at_once_with_its_log(home: Path) -> None:
    failed = run(*UP, "--count", "2", "--memory-limit", "rubbish", "--timeout", "80", "--json", code=1)
    told = json.loads(failed.stdout)
    assert told["error"].startswith("c-1 ended; missing: c-1; what was made is still there")
    assert "'rubbish' is no amount of memory" in told["missing"]["c-1"]
    assert "dec2 destroy c" in failed.stderr


def test_a_lost_worker_is_shown(home: Path) -> None:
    run(*UP, "--count", "3")
    kill(nodes_of()[1]["id"])
    assert set(nodes_of()) == {0, 2}
    assert "\ngone: c-1\n" in run("status", "c", "--provider", "local").stdout
    run(*UP, "--count", "3")
    assert set(nodes_of()) == {0, 2, 3}


def test_an_option_that_nodes_have_for_life(home: Path) -> None:
    run(*UP, "--count", "2", "--nthreads", "1")
    refused = run(*UP, "--count", "2", "--nthreads", "2", code=2)
    assert "the nodes of c have --nthreads 1; for another one destroy the cluster first" in refused.stderr


@pytest.mark.parametrize("command", ["destroy", "status"])
def test_a_path_is_no_name(home: Path, tmp_path: Path, command: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    home.mkdir(parents=True)
    for name in (str(precious), os.path.relpath(precious, home), ".", ".."):
        arguments = ["destroy", name, "-y"] if command == "destroy" else ["status", name]
        assert "is no name for a cluster" in run(*arguments, "--provider", "local", code=2).stderr
    assert precious.is_dir()
    with pytest.raises(WrongUsage):
        LocalProvider().observe(str(precious))


def test_a_destroy_that_was_killed_is_finished_by_the_next(home: Path) -> None:
    grave = home / ".gone-c.x7" / "cluster"
    grave.mkdir(parents=True)
    (home / ".gone-c-2.x7").mkdir()
    (grave / "credential.pem").write_text("secret")
    assert "nothing is left" in run("destroy", "c", "-y", "--provider", "local").stdout
    assert [each.name for each in home.iterdir()] == [".gone-c-2.x7"]


def test_zombies_are_dead(home: Path) -> None:
    """In a container, process 1 may collect nobody: what ended stays as a zombie for ever."""
    code = f"""
import ctypes, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # orphans come to this process, which leaves them as they are
for options in ({[*UP, "--count", "2"]!r}, ["destroy", "c", "-y"], ["status", "c"]):
    code = subprocess.run([{DEC2!r}, *options]).returncode
    print(code, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["0", "0", "1"], done.stdout + done.stderr


def test_a_wrong_option_does_not_destroy_what_was_there(home: Path) -> None:
    run(*UP, "--count", "3")
    before = nodes_of()
    with pytest.raises(WrongUsage), dec2.Cluster(name="c", provider="local", count=2):
        pass
    assert nodes_of() == before


def test_a_dead_scheduler_keeps_nothing_running(home: Path) -> None:
    with dec2.Cluster(name="c", provider="local", count=2) as cluster:
        cluster.client()
        scheduler = cluster.status().scheduler
        assert scheduler is not None
        os.kill(int(scheduler.id), signal.SIGKILL)
    assert not cluster.status().exists


@pytest.mark.parametrize("engine", ["core", "dask"])
def test_several_processes_per_node(home: Path, engine: str) -> None:
    if engine == "dask":
        pytest.importorskip("distributed", reason="the engine dask is an extra")
    with dec2.Cluster(name="c", provider="local", count=2, engine=engine, nprocs=2, timeout_s=60) as cluster:
        client = cluster.client()
        assert len(client.scheduler_info()["workers"]) == 2
        assert client.submit(sum, [1, 2]).result() == 3

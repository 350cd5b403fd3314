"""`dec2 --provider local`: the command, on real processes."""

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
from dec2.engines import named
from dec2.errors import NotRegistered
from dec2.providers.local import LocalProvider
from dec2.spec import ClusterSpec

pytestmark = pytest.mark.process

DEC2 = str(Path(sys.executable).parent / "dec2")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of the test's own; whatever runs for it is ended."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "state"
    provider = LocalProvider()
    for inventory in provider.clusters():
        apply.tear_down(inventory.name, provider, lambda text: None)


def run(*options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [DEC2, *options], capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def processes_of(home: Path) -> list[psutil.Process]:
    """Return everything that runs for clusters under `home`, children too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DEC2_FOLDER", "").startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_up_status_run_destroy(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from distributed_core import Client, get_client\n"
        "def square(x):\n    return x * x\n"
        "client = get_client()\n"
        "assert Client.current() is client\n"
        "print(sys.argv[1:], sum(client.gather(client.map(square, range(100)))))\n"
    )
    up = run("up", "--provider", "local", "--count", "3", "--name", "one")
    assert up.stdout.startswith("3 instances: 1 scheduler, 2 workers\n")
    assert "2 of 2 workers registered" in up.stdout
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["state"], len(listed["nodes"])) == ("one", "up", 3)
    status = json.loads(run("status", "--json").stdout)
    assert sorted(status["registered"]) == ["one-1", "one-2"]
    assert "one-2" in run("status", "one").stdout
    assert run("run", str(script), "a", "--b").stdout == "['a', '--b'] 328350\n"
    again = json.loads(run("up", "--provider", "local", "--count", "3", "--name", "one", "--json").stdout)
    assert [node["id"] for node in again["nodes"]] == [node["id"] for node in listed["nodes"]]
    assert set(again["seconds"]) == {"EnsureGroup", "Provision", "AwaitRegistration"}
    assert "add -y" in run("destroy", code=2).stderr
    assert "nothing is left" in run("destroy", "-y").stdout
    assert processes_of(home) == []
    assert [each.name for each in (home / "dec2" / "local").iterdir()] == []
    assert run("list").stdout == "no clusters\n"
    assert "nothing there" in run("destroy", "one", "-y").stdout


def test_more_instances_are_added_and_none_taken(home: Path) -> None:
    run("up", "--provider", "local", "--count", "2")
    run("up", "--provider", "local", "--workers", "2")
    assert len(json.loads(run("status", "--json").stdout)["registered"]) == 2
    assert "takes none away" in run("up", "--provider", "local", "--count", "2", code=2).stderr


def test_a_cluster_of_one_is_scheduler_and_worker(home: Path) -> None:
    assert run("up", "--provider", "local", "--count", "1").stdout.startswith("1 instance: scheduler and worker in one")
    status = json.loads(run("status", "--json").stdout)
    assert status["registered"] == ["dec2-0"]
    assert len(status["nodes"]) == 1
    run("destroy", "-y")
    assert processes_of(home) == []


def test_several_clusters_must_be_named(home: Path) -> None:
    run("up", "--provider", "local", "--count", "1", "--name", "a")
    run("up", "--provider", "local", "--count", "1", "--name", "b")
    for command in ("destroy", "status", "ssh"):
        assert "name one: a (local), b (local)" in run(command, code=2).stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["up", "--provider", "local", "--count", "0"], "from 1 to"),
        (["up", "--provider", "local", "--count", "2", "--workers", "2"], "give one of them"),
        (["up", "--provider", "local", "--name", "No Name"], "is no name for a cluster"),
        (["up", "--count", "2"], "--keyname NAME"),
        (["up", "--provider", "moon"], "moon"),
    ],
)
def test_wrong_usage(home: Path, options: list[str], text: str) -> None:
    assert text in run(*options, code=2).stderr


def test_without_a_cluster(home: Path) -> None:
    for command in ("destroy", "status", "ssh"):
        assert "there is no cluster; dec2 up makes one" in run(command, code=1).stderr


def test_killed_processes_are_missed_and_made_again(home: Path) -> None:
    run("up", "--provider", "local", "--count", "3")
    nodes = json.loads(run("status", "--json").stdout)["nodes"]
    os.killpg(int(nodes[1]["id"]), signal.SIGKILL)
    psutil.wait_procs([psutil.Process(int(nodes[1]["id"]))] if psutil.pid_exists(int(nodes[1]["id"])) else [])
    run("up", "--provider", "local", "--count", "3")
    os.killpg(int(nodes[0]["id"]), signal.SIGKILL)
    run("up", "--provider", "local", "--count", "3")
    status = json.loads(run("status", "--json").stdout)
    assert len(status["registered"]) == 2
    assert not {node["id"] for node in nodes} & {node["id"] for node in status["nodes"]}
    run("destroy", "-y")
    assert processes_of(home) == []


@pytest.mark.parametrize("killed_after", ["EnsureGroup", "LaunchScheduler", "LaunchWorkers", "Provision"])
def test_dec2_killed_at_any_point(home: Path, killed_after: str) -> None:
    """kill -9 right after an action: a second `up` converges, and `destroy` leaves nothing."""
    code = f"""
import os, signal, sys
from dec2 import apply
from dec2.cli.main import main
done = apply._perform_up
def perform(action, *rest):
    done(action, *rest)
    if type(action).__name__ == {killed_after!r}:
        os.kill(os.getpid(), signal.SIGKILL)
apply._perform_up = perform
sys.argv = ["dec2", "up", "--provider", "local", "--count", "3"]
main()
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    run("up", "--provider", "local", "--count", "3")
    assert len(json.loads(run("status", "--json").stdout)["nodes"]) == 3
    run("destroy", "-y")
    assert processes_of(home) == []
    assert json.loads(run("list", "--json").stdout) == []


def test_missing_workers_are_named_with_their_log(home: Path) -> None:
    class Broken(type(named("core"))):  # type: ignore[misc]
        def worker_command(self, place, name, capacity):  # type: ignore[no-untyped-def]
            if name == "c-2":
                return (sys.executable, "-c", "import time; print('no luck today', flush=True); time.sleep(600)")
            return super().worker_command(place, name, capacity)

    spec = ClusterSpec(name="c", provider="local", count=3, timeout_s=8)
    with pytest.raises(NotRegistered, match=r"1 of 2 workers registered within 8 s; missing: c-2;") as caught:
        apply.bring_up(spec, LocalProvider(), Broken(), lambda node, phase: None)
    assert caught.value.missing == {"c-2": "no luck today"}


def test_python_api(home: Path) -> None:
    with dec2.Cluster(name="api", provider="local", count=2) as cluster:
        client = cluster.client()
        assert client.submit(sum, [1, 2]).result() == 3
        assert len(cluster.status().nodes) == 2
    assert processes_of(home) == []


def test_python_api_leaves_nothing_after_an_error(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), dec2.Cluster(name="api", provider="local", count=1) as cluster:
        cluster.client()
        _ = 1 / 0
    assert processes_of(home) == []


def test_the_engine_dask(home: Path) -> None:
    pytest.importorskip("distributed", reason="the engine dask is an extra")
    with dec2.Cluster(name="d", provider="local", count=3, engine="dask") as cluster:
        client = cluster.client()
        assert type(client).__module__.startswith("distributed")
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        assert len(client.scheduler_info()["workers"]) == 2
    assert processes_of(home) == []


JOB = """
import time
from distributed_core import get_client
def slow_square(x):
    time.sleep(0.02)
    return x * x
client = get_client()
futures = client.map(slow_square, range(300))
futures[5].result()
print("begun", flush=True)
total = client.submit(sum, futures)
assert total.result() == sum(x * x for x in range(300))
print("done")
"""


def test_kill_9_of_a_worker_in_the_middle_of_a_job(home: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB)
    run("up", "--provider", "local", "--count", "3", "--nthreads", "1")
    nodes = json.loads(run("status", "--json").stdout)["nodes"]
    with subprocess.Popen([DEC2, "run", str(job)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        os.killpg(int(nodes[1]["id"]), signal.SIGKILL)
        assert running.stdout.readline() == "done\n"
        assert running.wait(60) == 0


def test_a_shell_on_a_node(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("up", "--provider", "local", "--count", "2")
    monkeypatch.setenv("SHELL", "/bin/pwd")
    run("ssh")
    run("ssh", "1")
    assert "has no node 7; it has 0, 1" in run("ssh", "7", code=2).stderr

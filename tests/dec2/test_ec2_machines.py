"""The whole path on machines that boot: `dec2 up`, real work, `dec2 destroy`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moto_fixtures import TestCloud
from moto_fixtures.wheelhouse import project_requirements, wheelhouse

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(400)]

DEC2 = str(Path(sys.executable).parent / "dec2")
JOB = """
import os, socket, sys
from distributed_core import get_client
def where(number):
    return socket.gethostname(), number * number
client = get_client()
found = client.gather(client.map(where, range(200)))
assert [square for _, square in found] == [number * number for number in range(200)]
big = client.scatter(b"x" * 3_000_000)
assert client.submit(len, big).result() == 3_000_000
assert len(big.result()) == 3_000_000
print(*sorted({host for host, _ in found}))
"""


@pytest.fixture(scope="module")
def wheels() -> str:
    return str(wheelhouse(project_requirements()))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, cloud: TestCloud) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("DEC2_CALLER_CIDR", f"{cloud.caller_address}/32")
        yield folder


def run(*options: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [DEC2, *options],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def up(cloud: TestCloud, wheels: str, name: str, count: int, *more: str, code: int = 0) -> dict[str, object]:
    key = ("--keyname", cloud.key_name, "--keypair", str(cloud.key_file))
    options = ("--name", name, "--count", str(count), "--type", "m5.large", "--wheelhouse", wheels, "--timeout", "150")
    done = run("up", *options, *key, "--yes", "--json", *more, code=code)
    return {"stderr": done.stderr, **(json.loads(done.stdout) if done.stdout else {})}


@pytest.fixture(scope="module")
def cluster(cloud: TestCloud, state: Path, wheels: str) -> dict[str, object]:
    return up(cloud, wheels, "pair", 2)


def node(cluster: dict[str, object], role: str) -> dict[str, str]:
    nodes: list[dict[str, str]] = cluster["nodes"]  # type: ignore[assignment]
    return next(each for each in nodes if each["role"] == role)


def test_up_reports_its_phases(cluster: dict[str, object]) -> None:
    assert cluster["registered"] == [node(cluster, "worker")["id"]]
    seconds: dict[str, float] = cluster["seconds"]  # type: ignore[assignment]
    assert set(seconds) == {
        *("EnsureGroup", "LaunchScheduler", "LaunchWorkers", "Provision", "AwaitRegistration"),
    }
    print("seconds per phase:", seconds)


def test_a_real_job_runs(cluster: dict[str, object], tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB)
    address = node(cluster, "worker")["private_address"].replace(".", "-")
    assert run("run", "--name", "pair", "--provider", "ec2", str(job)).stdout == f"ip-{address}\n"


def test_another_machine_with_the_key_enters(cluster: dict[str, object], tmp_path: Path, cloud: TestCloud) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    key = home / ".ssh" / f"{cloud.key_name}.pem"
    key.write_bytes(Path(cloud.key_file).read_bytes())
    key.chmod(0o600)
    elsewhere = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    assert json.loads(run("list", "--json", "--provider", "ec2", **elsewhere).stdout)[0]["name"] == "pair"
    assert run("run", "--name", "pair", "--provider", "ec2", str(job), **elsewhere).stdout.startswith("ip-")
    credentials = list((home / "state").rglob("credential.pem"))
    assert [each.stat().st_mode & 0o777 for each in credentials] == [0o600]


def test_the_only_open_port_is_ssh(cluster: dict[str, object]) -> None:
    address = node(cluster, "scheduler")["public_address"]
    with socket.create_connection((address, 22), timeout=20) as probe:
        assert probe.recv(4) == b"SSH-"
    for port in (8786, 8788):
        with pytest.raises(OSError), socket.create_connection((address, port), timeout=1.5):
            pass


def test_the_single_use_host_key_was_replaced(cluster: dict[str, object], cloud: TestCloud) -> None:
    for role in ("scheduler", "worker"):
        machine = cloud.machine(node(cluster, role)["id"])
        born = machine.run("grep", "-o", "ssh-ed25519 [A-Za-z0-9+/=]*", "/var/lib/cloud/instance/user-data.txt")
        now = machine.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        assert str(born).split()[1] != str(now).split()[1]
        assert "600" in str(machine.run("stat", "-c", "%a", "/etc/dec2/credential.pem"))


def test_cloud_init_finds_nothing_wrong_with_the_user_data(cluster: dict[str, object], cloud: TestCloud) -> None:
    for role in ("scheduler", "worker"):
        said = str(cloud.machine(node(cluster, role)["id"]).run("cloud-init", "schema", "--system"))
        assert "Valid" in said


SHOW_THE_KEY_OF_BIRTH = """
import subprocess, yaml
born = yaml.safe_load(open("/var/lib/cloud/instance/user-data.txt"))["ssh_keys"]["ed25519_private"]
open("/etc/ssh/ssh_host_ed25519_key", "w").write(born)
subprocess.run(["systemctl", "restart", "ssh"], check=True)
"""


def test_who_shows_the_single_use_key_later_is_refused(
    cluster: dict[str, object], cloud: TestCloud, wheels: str, tmp_path: Path
) -> None:
    """Whoever may read user-data has that key: it must open nothing any more."""
    scheduler = cloud.machine(node(cluster, "scheduler")["id"])
    job = tmp_path / "job.py"
    job.write_text(JOB)
    scheduler.run("python3", "-c", SHOW_THE_KEY_OF_BIRTH)
    assert "not this cluster's" in run("run", "--name", "pair", "--provider", "ec2", str(job), code=1).stderr
    # `up` mends a node that a killed `up` left with that key, but only one that has its own key too.
    scheduler.run("mv", "/etc/dec2/host_key", "/etc/dec2/host_key.pub", "/root")
    assert "does not have the one that it made since" in str(up(cloud, wheels, "pair", 2, code=1)["stderr"])
    scheduler.run("mv", "/root/host_key", "/root/host_key.pub", "/etc/dec2")
    up(cloud, wheels, "pair", 2)
    assert run("run", "--name", "pair", "--provider", "ec2", str(job)).stdout.startswith("ip-")


def test_a_node_that_reboots_comes_back(
    cluster: dict[str, object], cloud: TestCloud, wheels: str, tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB)
    for role in ("worker", "scheduler"):
        machine = cloud.machine(node(cluster, role)["id"])
        boots = machine.boots
        machine.run("systemctl", "reboot", "--no-block")
        machine.wait_boots(boots + 1)
        assert up(cloud, wheels, "pair", 2)["registered"] == [node(cluster, "worker")["id"]]
        assert run("run", "--name", "pair", "--provider", "ec2", str(job)).stdout.startswith("ip-")
        timers = ("dec2-lifetime.timer", "dec2-bootstrap-deadline.timer")
        assert machine.run("systemctl", "is-active", *timers).split() == ["active", "active"]


def test_a_worker_that_is_killed_comes_back(cluster: dict[str, object], cloud: TestCloud, tmp_path: Path) -> None:
    machine = cloud.machine(node(cluster, "worker")["id"])
    machine.run("systemctl", "kill", "--signal", "KILL", "dworker")
    job = tmp_path / "job.py"
    job.write_text(JOB)
    assert run("run", "--name", "pair", "--provider", "ec2", str(job)).stdout.startswith("ip-")


def test_a_poweroff_terminates_and_up_replaces(cluster: dict[str, object], cloud: TestCloud, wheels: str) -> None:
    lost = node(cluster, "worker")["id"]
    cloud.machine(lost).run("systemctl", "poweroff", "--no-block")
    cloud.wait_state(lost, "terminated")
    again = up(cloud, wheels, "pair", 2)
    assert node(again, "scheduler")["id"] == node(cluster, "scheduler")["id"]
    assert node(again, "worker")["id"] != lost
    assert again["registered"] == [node(again, "worker")["id"]]


def test_a_bootstrap_that_fails_is_named_with_its_log(
    cloud: TestCloud, state: Path, wheels: str, tmp_path: Path
) -> None:
    poor = tmp_path / "poor"
    poor.mkdir()
    for wheel in Path(wheels).glob("*.whl"):
        if not wheel.name.startswith("tornado"):
            (poor / wheel.name).symlink_to(wheel)
    failed = up(cloud, str(poor), "poor", 1, "--timeout", "25", code=1)
    assert "0 of 1 workers registered" in str(failed["stderr"])
    assert "No matching distribution found for tornado" in str(failed["stderr"])
    assert "dec2 destroy poor" in str(failed["stderr"])
    # What never came up ends by itself; here the clock is not waited for.
    (lost,) = json.loads(run("status", "poor", "--json", "--provider", "ec2").stdout)["nodes"]
    machine = cloud.machine(lost["id"])
    assert "OnBootUSec=30min" in machine.run(
        "systemctl", "show", "dec2-bootstrap-deadline.timer", "-p", "TimersMonotonic"
    )
    machine.run("systemctl", "start", "--no-block", "dec2-bootstrap-deadline.service")
    cloud.wait_state(lost["id"], "terminated")
    run("destroy", "poor", "-y", "--provider", "ec2")


def test_destroy_leaves_nothing(cluster: dict[str, object], cloud: TestCloud) -> None:
    assert "nothing is left" in run("destroy", "pair", "-y", "--provider", "ec2").stdout
    assert cloud.leftovers() == {}

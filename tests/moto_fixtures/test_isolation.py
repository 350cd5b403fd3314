"""The throw-away namespace: what is inside stays inside, and goes with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from moto_fixtures import TestCloud, host
from moto_fixtures.errors import NotIsolated
from moto_fixtures.isolation import python_module
from moto_fixtures.plugin import skip_or_fail
from moto_fixtures.region import MARKER, assert_isolated

pytestmark = pytest.mark.timeout(180)

BOOT_TWO = """
import sys
from moto_fixtures import TestCloud

with TestCloud() as cloud:
    run = cloud.client().run_instances(ImageId=cloud.image_id, InstanceType="m5.large", MinCount=2, MaxCount=2)
    ids = [one["InstanceId"] for one in run["Instances"]]
    for one in ids:
        cloud.wait_state(one, "running", 30)
        cloud.machine(one).wait_cloud_init()
    print(*ids, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def able_host() -> None:
    lacking = host.missing()
    if lacking:
        skip_or_fail(f"This computer cannot carry the machines of the test cloud: {lacking}")


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A cloud of its own, in a namespace of its own, with two machines that are up."""
    with booting() as process:
        yield process, ids_of(process)


@contextlib.contextmanager
def booting() -> Iterator[subprocess.Popen[str]]:
    command = python_module("moto_fixtures", "isolate", "--", sys.executable, "-c", BOOT_TWO)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ids_of(process: subprocess.Popen[str]) -> list[str]:
    """Wait until the machines are up."""
    assert process.stdout is not None
    ids = process.stdout.readline().split()
    assert len(ids) == 2
    return ids


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(python_module("moto_fixtures", *arguments), capture_output=True, text=True)


def cgroups_of(ids: list[str]) -> list[str]:
    tails = tuple(one[-8:] for one in ids)
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(tails)]


def test_machines_do_not_start_outside_of_a_namespace(monkeypatch: pytest.MonkeyPatch, able_host: None) -> None:
    monkeypatch.delenv(MARKER, raising=False)
    with pytest.raises(NotIsolated, match="moto_fixtures isolate"):
        assert_isolated()
    with pytest.raises(NotIsolated), TestCloud():
        pass


@pytest.mark.slow
def test_wrong_usage_ends_with_2_and_the_usage() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert "python -m moto_fixtures isolate" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("required", "code"), [("0", 0), ("1", 1)])
def test_a_host_that_cannot_skips_or_fails_and_says_why(tmp_path: Path, required: str, code: int) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "DEC2_TESTCLOUD_REQUIRED": required}
    environment["DEC2_TESTCLOUD_CACHE"] = str(tmp_path)  # nothing may be downloaded for what cannot run
    done = subprocess.run(python_module("moto_fixtures", "tests"), env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert "root" in done.stdout + done.stderr or "systemd-nspawn" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cloud
def test_the_exit_code_is_that_of_the_command(able_host: None) -> None:
    assert run("isolate", "--", "sh", "-c", "exit 7").returncode == 7


@pytest.mark.cloud
def test_nothing_leaves_the_namespace(able_host: None) -> None:
    devices = run("isolate", "--", "ip", "-brief", "link").stdout.split("\n")
    assert devices[0].startswith("lo")
    assert not any(line.startswith(("eth", "en", "wl", "docker", "veth")) for line in devices)
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    done = run("isolate", "--", sys.executable, "-c", connect)
    assert done.returncode == 1
    assert "unreachable" in done.stderr


@pytest.mark.cloud
def test_a_command_in_a_cloud_finds_it_by_the_environment(able_host: None) -> None:
    ask = "import boto3; print([i['Name'] for i in boto3.client('ec2').describe_images()['Images']])"
    done = run("--", sys.executable, "-c", ask)
    assert done.returncode == 0, done.stderr
    assert "debian-12" in done.stdout


@pytest.mark.cloud
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_cloud_leaves_nothing_running(able_host: None, number: signal.Signals) -> None:
    with two_machines() as (process, ids):
        inside = psutil.Process(process.pid).children(recursive=True)
        assert len(inside) > 10  # two machines with their systemd, journald, sshd and so on
        assert len(cgroups_of(ids)) >= 2
        os.kill(process.pid, number)
        process.wait(timeout=30)
        _, alive = psutil.wait_procs(inside, timeout=30)
        assert alive == []
    mounts = [Path(entry, "mountinfo") for entry in Path("/proc").glob("[0-9]*")]
    for mount in mounts:
        with contextlib.suppress(OSError):
            assert not any(one in mount.read_text() for one in ids)
    assert not set(ids) & set(subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split())
    # Disks and empty cgroups stay, until the next cloud starts.
    assert run("--", "true").returncode == 0
    assert cgroups_of(ids) == []
    runs = host.cache_folder() / "runs"
    assert not [folder for folder in runs.iterdir() if any((folder / one).exists() for one in ids)]


@pytest.mark.cloud
def test_two_clouds_run_side_by_side(able_host: None) -> None:
    with booting() as first, booting() as second:
        ids, others = ids_of(first), ids_of(second)
        assert len(set(ids) | set(others)) == 4
        assert first.poll() is None
        assert second.poll() is None
        assert run("--", "true").returncode == 0  # a third one sweeps, and leaves those that live
        assert len(cgroups_of(ids)) >= 2
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(timeout=60) == 0
        assert cgroups_of(ids + others) == []

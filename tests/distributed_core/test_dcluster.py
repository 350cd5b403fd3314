"""`dcluster` against real sshds on loopback."""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from distributed_core import Client
from tests.distributed_core.launching import BIN, Launched

pytestmark = pytest.mark.ssh

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.fixture(scope="module")
def sshds(tmp_path_factory: pytest.TempPathFactory, _own_home: Path) -> Iterator[tuple[int, Path]]:
    """An sshd on each of HOSTS, on one free port; the port and the private key that they accept."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    os.makedirs("/run/sshd", exist_ok=True)
    running = []
    for host in HOSTS:
        config = folder / f"sshd-{host}"
        config.write_text(
            f"ListenAddress {host}\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            "Subsystem sftp internal-sftp\nLogLevel INFO\n"
        )
        sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True)
        running.append(sshd)
        assert sshd.stderr is not None
        while "Server listening" not in sshd.stderr.readline():
            assert sshd.poll() is None
    yield port, folder / "user"
    for sshd in running:
        sshd.terminate()
        sshd.wait(20)
        assert sshd.stderr is not None
        sshd.stderr.close()


@pytest.fixture
def known(sshds: tuple[int, Path], _own_home: Path) -> Iterator[Path]:
    """A known_hosts file in the home that ssh looks at, with the hosts' true keys."""
    file = Path("~/.ssh/known_hosts").expanduser()
    file.parent.mkdir(mode=0o700, exist_ok=True)
    key = (sshds[1].parent / "host.pub").read_text().split()
    file.write_text("".join(f"[{host}]:{sshds[0]} {key[0]} {key[1]}\n" for host in HOSTS))
    yield file
    file.unlink()


@pytest.fixture
def start(sshds: tuple[int, Path], tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def begin(*options: str) -> Launched:
        port, key = sshds
        argv = [str(BIN / "dcluster"), "--ssh-port", str(port), "--ssh-private-key", str(key), "--scheduler-port", "0"]
        launched = Launched([*argv, "--nthreads", "1", *options], tmp_path / f"log-{len(made)}")
        made.append(launched)
        return launched

    yield begin
    for launched in made:
        if launched.process.poll() is None:
            launched.process.kill()
        launched.wait()


def engine_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "distributed_core.cli.d" in line and "dcluster-" in line:
            found.append(process)
    return found


def brought() -> set[str]:
    """The credential folders in the home that the sshds lead to."""
    return {each.name for each in Path(pwd.getpwuid(os.getuid()).pw_dir).glob(".dcluster-*")}


def until(launched: Launched, text: str) -> str:
    while text not in (line := launched.line()):
        pass
    return line


@pytest.mark.parametrize("way", ["ctrl-c", "kill -9"])
def test_a_cluster_and_its_end(start: Callable[..., Launched], known: Path, tmp_path: Path, way: str) -> None:
    before = brought()
    hostfile = tmp_path / "hosts"
    hostfile.write_text(f"# two more\n{HOSTS[1]}  # here\n{HOSTS[2]}\n")
    cluster = start(HOSTS[0], "--hostfile", str(hostfile))
    line = until(cluster, "workers on 3 of 3 hosts")
    address = line.split("scheduler at ")[1].split(",")[0]
    assert address.startswith(HOSTS[0])
    with Client(address) as client:
        workers = client.scheduler_info()["workers"]
        assert sorted(where.split(":")[0] for where in workers) == sorted(HOSTS)
        assert client.gather(client.map(abs, [-1, -2, -3])) == [1, 2, 3]
    remote = engine_processes()
    assert len(remote) == 2 * 4  # each command has a keeper
    assert len(brought() - before) == 4
    if way == "ctrl-c":
        assert cluster.end(signal.SIGINT) == 0
    else:
        cluster.process.kill()
    gone, alive = psutil.wait_procs(remote, timeout=30)
    assert not alive
    assert len(gone) == 2 * 4
    assert brought() == before


def test_one_bad_host_is_named_and_the_others_run(start: Callable[..., Launched], known: Path) -> None:
    cluster = start(HOSTS[0], "127.0.0.9", HOSTS[1])
    lines = [cluster.line()]
    while "workers on" not in lines[-1]:
        lines.append(cluster.line())
    assert "workers on 2 of 3 hosts" in lines[-1]
    assert any("127.0.0.9" in line and "cannot be reached by SSH" in line for line in lines)


def test_host_keys_are_checked(start: Callable[..., Launched], known: Path) -> None:
    true_keys = known.read_text()
    known.write_text("")
    unknown = start(HOSTS[0])
    assert unknown.wait() == 1
    assert "add --accept-new" in unknown.errors()
    accepted = start(HOSTS[0], "--accept-new")
    until(accepted, "workers on 1 of 1 hosts")
    assert accepted.end(signal.SIGINT) == 0
    assert HOSTS[0] in known.read_text()
    other = subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{known}.other"], check=True)
    assert other.returncode == 0
    wrong = Path(f"{known}.other.pub").read_text().split()[1]
    known.write_text(true_keys.replace(true_keys.split()[2], wrong))
    changed = start(HOSTS[0], "--accept-new")
    assert changed.wait() == 1
    assert "ssh-keygen -R" in changed.errors()


def test_a_wrong_key_and_no_python(start: Callable[..., Launched], known: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger")], check=True)
    refused = start(HOSTS[0], "--ssh-private-key", str(tmp_path / "stranger"))
    assert refused.wait() == 1
    assert "does not accept your key" in refused.errors()
    missing = start(HOSTS[0], "--remote-python", "/no/such/python")
    assert missing.wait() == 1
    assert "/no/such/python" in missing.errors()


def stand_in(path: Path, script: str) -> str:
    """An interpreter for the hosts that runs `script` in place of a worker."""
    path.write_text(f'#!/bin/sh\ncase "$*" in *dworker*) {script};; esac\nexec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_ctrl_c_does_not_wait_for_a_host_that_hangs(
    start: Callable[..., Launched], known: Path, tmp_path: Path
) -> None:
    before = brought()
    python = stand_in(tmp_path / "python", "echo hanging; exec sleep 1000")
    cluster = start(HOSTS[0], "--remote-python", python)
    until(cluster, "hanging")
    assert cluster.end(signal.SIGINT) == 0
    assert brought() == before


def test_what_a_host_writes_may_be_no_text(start: Callable[..., Launched], known: Path, tmp_path: Path) -> None:
    python = stand_in(tmp_path / "python", "printf 'caf\\351\\n'")
    cluster = start(HOSTS[0], "--remote-python", python)
    until(cluster, "caf\N{REPLACEMENT CHARACTER}")
    until(cluster, "workers on 1 of 1 hosts")
    assert cluster.end(signal.SIGINT) == 0


def test_logs_on_the_hosts_and_the_schedulers_exit_code(
    start: Callable[..., Launched], known: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "two words" / "logs"
    cluster = start(HOSTS[0], HOSTS[1], "--log-directory", str(logs))
    address = until(cluster, "workers on 2 of 2 hosts").split("scheduler at ")[1].split(",")[0]
    assert sorted(each.name for each in logs.iterdir()) == sorted(
        [f"dscheduler-{HOSTS[0]}.log", f"dworker-{HOSTS[0]}.log", f"dworker-{HOSTS[1]}.log"]
    )
    # The scheduler may count the worker before the worker has written that it knows.
    wanted = f"Registered with center at: {address}"
    with open(logs / f"dworker-{HOSTS[1]}.log") as file:
        while wanted not in file.read():
            assert cluster.process.poll() is None
            file.seek(0)
            time.sleep(0.01)
    for process in engine_processes():
        if process.name() != "sh" and "cli.dscheduler" in " ".join(process.cmdline()):
            process.kill()
    assert cluster.wait() == 1


def test_usage() -> None:
    none = subprocess.run([str(BIN / "dcluster")], capture_output=True, text=True, timeout=60, check=False)
    assert none.returncode == 2
    assert "Usage:" in none.stdout
    for options in (["--hostfile", "/no/such/file"], ["a b"], ["--nprocs", "0", "x"]):
        wrong = subprocess.run(
            [str(BIN / "dcluster"), *options], capture_output=True, text=True, timeout=60, check=False
        )
        assert wrong.returncode == 2, options
        assert "Traceback" not in wrong.stderr
    assert sys.executable

"""Who may connect: whoever holds the cluster's credential. And what the scheduler never does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_core import Client, Lock, Queue, Variable, WorkerPlugin, rpc
from distributed_core.comm import credential
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import open_channel
from distributed_core.errors import ConnectError, CredentialError, CredentialRefused, RemoteError
from distributed_core.servers.arguments import _parameters as parameters
from distributed_core.servers.scheduler import Scheduler
from tests.distributed_core.launching import BIN, Launcher

pytestmark = pytest.mark.process

NEVER_UNPICKLES = """
import _pickle, pickle, sys
def refuse(*args, **kwargs):
    print("UNPICKLED", file=sys.stderr, flush=True)
    raise SystemExit("the scheduler unpickled something")
for module in (pickle, _pickle):
    module.loads = module.load = module.Unpickler = refuse
pickle._Unpickler = refuse
from distributed_core.cli.dscheduler import main
sys.argv = ["dscheduler", "--host", "127.0.0.1", "--port", "0"]
main()
"""


def inc(x: int) -> int:
    return x + 1


def fail() -> None:
    raise ValueError("on purpose")


class Greeting(WorkerPlugin):
    name = "greeting"


def use_every_extension(client: Client) -> None:
    """Let what is the user's pass through each extension of the scheduler."""
    future = client.submit(inc, 1, key="kept")
    assert future.result() == 2
    queue, variable = Queue("q", client=client), Variable("v", client=client)
    queue.put({"future": future})
    assert queue.get()["future"].result() == 2
    variable.set([future])
    assert variable.get()[0].result() == 2
    client.publish_dataset(data={"future": future})
    assert client.get_dataset("data")["future"].result() == 2
    with Lock("l", client=client):
        client.log_event("topic", {"a": object})
    assert client.get_events("topic")
    assert list(client.run(lambda: 5).values()) == [5]
    client.register_plugin(Greeting())
    client.replicate([future])
    client.rebalance()
    assert client.who_has([future])
    assert "is done" in client.explain(future)
    assert client.story(future)
    client.set_metadata(["a"], 1)
    actor = client.submit(Counter, actor=True).result()
    assert actor.increment().result() == 1


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += 1
        return self.count


def call_every_handler(address: str) -> None:
    """Offer a pickle to each handler of the scheduler, as each of its arguments."""

    async def main() -> None:
        body = pickle.dumps(print)
        channel, _ = await open_channel(parse_address(address), credential.load_or_create(), "rpc")
        channel.read_replies()
        known = Scheduler(insecure=True)
        for op, handler in known.handlers.items():
            if op in ("terminate", "shutdown", "restart", "retire_workers", "restart_workers"):
                continue
            needed = [name for name, each in parameters(handler.__func__)[0].items() if each.required]  # type: ignore[attr-defined]
            for value in (body, [body], [[body], []], {"x": body}, "worker", 0, [0]):
                with contextlib.suppress(RemoteError, TimeoutError):
                    await channel.call(op, dict.fromkeys(needed, value), 1)
        channel.abort()
        await known.close()

    asyncio.run(main())


def test_the_scheduler_never_unpickles(tmp_path: Path, launch: Launcher) -> None:
    log = tmp_path / "log"
    with open(log, "wb") as file:
        scheduler = subprocess.Popen(
            [sys.executable, "-c", NEVER_UNPICKLES], stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().split()[-1]
        launch.worker(address, "--nthreads", "1")
        with Client(address, direct=False) as client:
            futures = client.map(inc, range(50))
            assert client.submit(sum, futures).result() == sum(range(1, 51))
            assert client.gather(client.scatter([b"x" * 100_000])) == [b"x" * 100_000]
            with pytest.raises(ValueError, match="on purpose"):
                client.submit(fail).result()
            use_every_extension(client)
        call_every_handler(address)
    finally:
        scheduler.terminate()
        assert scheduler.wait(20) == 0
        assert scheduler.stdout is not None
        scheduler.stdout.close()
    assert "UNPICKLED" not in log.read_text()


def test_strangers_are_refused_and_others_go_on(launch: Launcher, tmp_path: Path) -> None:
    scheduler, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1")
    foreign = tmp_path / "foreign.pem"
    assert credential.write_new(foreign)
    with Client(address) as client:
        with pytest.raises(CredentialRefused, match="copy the file from the scheduler's machine"):
            Client(address, credential=foreign, timeout=30)
        with pytest.raises(CredentialRefused):
            rpc(address, credential=foreign).identity()
        with pytest.raises(ConnectError, match="pass --credential"):
            Client(address, insecure=True, timeout=2)
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as probe:
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert probe.recv(4096)[:1] in (b"", b"\x15")  # closed, or a TLS alert
        # A TLS client without a certificate learns nothing and gets no word of the protocol.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((host, int(port)), timeout=20) as raw,
            context.wrap_socket(raw) as probe,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            probe.sendall(b"DC2\x01")
            if probe.recv(4096) == b"":
                raise ConnectionResetError
        assert client.submit(inc, 1).result() == 2
    done = subprocess.run(
        [str(BIN / "dworker"), address, "--credential", str(foreign), "--death-timeout", "5"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "copy the file from the scheduler's machine" in done.stderr
    assert "Traceback" not in done.stderr
    scheduler.end()
    assert "Traceback" not in scheduler.errors()


def test_insecure_is_said_aloud_and_stays_on_loopback(launch: Launcher) -> None:
    scheduler = launch.start("dscheduler", "--port", "0", "--insecure")
    address = scheduler.line().split()[-1]
    assert address.startswith("127.0.0.1:")
    assert "anybody who reaches this port can run code as you" in scheduler.errors()
    launch.worker(address, "--nthreads", "1", "--insecure")
    with Client(address, insecure=True) as client:
        assert client.submit(inc, 1).result() == 2
    with pytest.raises(ConnectError):
        Client(address, timeout=2)


def test_the_default_credential_is_made_once_and_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = credential.load_or_create()
    assert first.path == tmp_path / "distributed_core" / "credential.pem"
    assert os.stat(first.path).st_mode & 0o777 == 0o600
    content = first.path.read_bytes()
    assert credential.load_or_create().path.read_bytes() == content
    assert credential.write_new(first.path) is False
    assert first.path.read_bytes() == content


def test_racing_creators_end_with_one_credential(tmp_path: Path) -> None:
    path = tmp_path / "shared.pem"
    code = f"from distributed_core.comm.credential import write_new; print(write_new({str(path)!r}))"
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    said = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(said) == ["False"] * 5 + ["True"]
    assert [each.name for each in tmp_path.iterdir()] == ["shared.pem"]


@pytest.mark.parametrize(("content", "mode"), [(b"nonsense", 0o600), (None, 0o600), (b"open", 0o644)])
def test_bad_credential_files(tmp_path: Path, content: bytes | None, mode: int) -> None:
    path = tmp_path / "c.pem"
    if content is not None:
        path.write_bytes(credential.generate() if content == b"open" else content)
        path.chmod(mode)
    with pytest.raises(CredentialError, match=r"chmod 600|copy it"):
        credential.load(path)

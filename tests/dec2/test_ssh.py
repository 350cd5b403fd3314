"""The SSH door of dec2 against a real sshd on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dec2 import ssh
from dec2.errors import NodeUnreachable

pytestmark = [pytest.mark.ssh, pytest.mark.skipif(os.geteuid() != 0, reason="an sshd that root logs in to needs root")]


class Sshd:
    """One sshd on a port of loopback, which can be ended and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host_private, self.host_key = ssh.new_host_key()
        self.key_file = folder / "user"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key_file)], check=True)
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            self.port: int = holder.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self, host_private: str | None = None) -> None:
        key = self.folder / "host"
        key.unlink(missing_ok=True)
        key.touch(0o600)
        key.write_text(host_private or self.host_private)
        config = self.folder / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {key}\nAuthorizedKeysFile {self.key_file}.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            "Subsystem sftp internal-sftp\nLogLevel INFO\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)
        self.process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        while "Server listening" not in self.process.stderr.readline():
            assert self.process.poll() is None

    def stop(self) -> None:
        """End the server and every connection that it has."""
        if self.process is None:
            return
        everything = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
        for each in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None

    def login(self, *host_keys: str) -> ssh.Login:
        return ssh.Login("127.0.0.1", "root", str(self.key_file), host_keys or (self.host_key,), self.port)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def session(sshd: Sshd) -> Iterator[ssh.NodeShell]:
    with ssh.connect(sshd.login(), 20) as opened:
        yield opened


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says back what it hears, until its peer has said all; its port."""

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.sendall(b"that was all")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def said_back(address: str, data: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        while more := connection.recv(65536):
            heard += more
        sender.join(10)
    return heard


# --- commands and files


def test_arguments_arrive_as_they_are(session: ssh.NodeShell) -> None:
    words = ("two words", "$HOME", "it's", 'a "quote"', "*", "a;b", "")
    assert session.run("printf", "%s\n", *words).splitlines() == list(words)


def test_a_command_that_fails_says_why(session: ssh.NodeShell) -> None:
    with pytest.raises(NodeUnreachable, match=r"ended with 3: no luck"):
        session.run("sh", "-c", "echo no luck >&2; exit 3")
    assert session.run("sh", "-c", "echo some; exit 3", check=False) == "some\n"


def test_much_output_on_both_streams_does_not_block(session: ssh.NodeShell) -> None:
    script = "head -c 9000000 /dev/zero | tr '\\0' e >&2; head -c 9000000 /dev/zero | tr '\\0' o"
    assert session.run("sh", "-c", script) == "o" * 9_000_000


def test_more_threads_than_an_sshd_takes_commands(session: ssh.NodeShell, tmp_path: Path) -> None:
    def both(number: int) -> str:
        session.put(str(number).encode(), str(tmp_path / f"file-{number}"), 0o600)
        return session.run("cat", str(tmp_path / f"file-{number}"))

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(both, range(32))) == [str(number) for number in range(32)]


def test_a_file_is_whole_and_private(session: ssh.NodeShell, tmp_path: Path) -> None:
    target = tmp_path / "new" / "secret"
    session.put(b"first", str(target), 0o600)
    before = target.stat().st_ino
    session.put(b"second", str(target), 0o640)
    assert target.read_bytes() == b"second"
    assert target.stat().st_mode & 0o777 == 0o640
    # Under another name first: whoever reads sees the old one or the new one, and nothing in between.
    assert target.stat().st_ino != before
    assert [each.name for each in target.parent.iterdir()] == ["secret"]


def test_a_file_from_a_path_and_back(session: ssh.NodeShell, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    session.put(source, str(tmp_path / "copy"), 0o644)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    session.put(b"some text\n", str(tmp_path / "text"), 0o600)
    assert session.read(str(tmp_path / "text")) == b"some text\n"
    assert session.read(str(tmp_path / "nothing")) is None


def test_a_folder_in_the_way_is_an_error(session: ssh.NodeShell, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(NodeUnreachable, match="ended with"):
        session.put(b"x", str(tmp_path / "folder"), 0o600)
    assert [each.name for each in tmp_path.glob("folder*")] == ["folder"]


def test_a_file_that_is_cut_off_stays_out_of_sight(sshd: Sshd, session: ssh.NodeShell, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(session.put, bytes(200_000_000), str(target), 0o600)
        deadline = time.monotonic() + 30
        while not any(each.stat().st_size for each in tmp_path.glob("target.*")):
            assert time.monotonic() < deadline
        sshd.stop()
        with pytest.raises(NodeUnreachable):
            writing.result(60)
    assert not target.exists()


# --- host keys


def test_a_host_key_that_is_not_pinned_is_refused(sshd: Sshd) -> None:
    with pytest.raises(NodeUnreachable, match="not this cluster's"):
        ssh.connect(sshd.login(ssh.new_host_key()[1]), 20)
    with pytest.raises(NodeUnreachable, match="not this cluster's"):
        ssh.connect(ssh.Login("127.0.0.1", "root", str(sshd.key_file), (), sshd.port), 20)


def test_one_of_several_host_keys_is_enough(sshd: Sshd) -> None:
    other = ssh.new_host_key()[1]
    with ssh.connect(sshd.login(other, sshd.host_key), 20) as session:
        assert session.host_key == sshd.host_key


def test_known_hosts_of_the_user_do_not_count(sshd: Sshd) -> None:
    known = Path("~/.ssh/known_hosts").expanduser()
    known.parent.mkdir(mode=0o700, exist_ok=True)
    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    with pytest.raises(NodeUnreachable, match="not this cluster's"):
        ssh.connect(sshd.login(ssh.new_host_key()[1]), 20)
    known.unlink()


def test_a_wrong_user_key_and_a_closed_port_are_sentences(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    wrong = ssh.Login("127.0.0.1", "root", str(tmp_path / "other"), (sshd.host_key,), sshd.port)
    with pytest.raises(NodeUnreachable, match="is --keypair that of --keyname"):
        ssh.connect(wrong, 0)
    sshd.stop()
    with pytest.raises(NodeUnreachable, match=f"does not answer on port {sshd.port}"):
        ssh.connect(sshd.login(), 0)


def test_connecting_waits_for_a_node_that_boots(sshd: Sshd) -> None:
    sshd.stop()
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(ssh.connect, sshd.login(), 30)
        sshd.start()
        with early.result(40) as session:
            assert session.run("echo", "here") == "here\n"


# --- the tunnel


def test_the_tunnel_carries_bytes_both_ways(session: ssh.NodeShell, echo: int) -> None:
    data = os.urandom(5_000_000)
    with ssh.tunnel(session, "127.0.0.1", echo) as address:
        with ThreadPoolExecutor(4) as pool:
            heard = list(pool.map(lambda _: said_back(address, data), range(4)))
        assert all(each == data + b"that was all" for each in heard)
    with pytest.raises(OSError):
        said_back(address, b"x")
    assert session.run("echo", "still open") == "still open\n"


def test_the_tunnel_opens_again(sshd: Sshd, session: ssh.NodeShell, echo: int) -> None:
    with ssh.tunnel(session, "127.0.0.1", echo) as address:
        assert said_back(address, b"one") == b"onethat was all"
        sshd.stop()
        sshd.start()
        assert said_back(address, b"two") == b"twothat was all"


def test_the_tunnel_does_not_open_again_to_somebody_else(sshd: Sshd, session: ssh.NodeShell, echo: int) -> None:
    with ssh.tunnel(session, "127.0.0.1", echo) as address:
        sshd.stop()
        sshd.start(ssh.new_host_key()[0])
        try:
            assert said_back(address, b"secret") == b""
        except ConnectionError:
            pass


def test_a_port_where_nobody_listens_closes_the_connection_only(session: ssh.NodeShell, echo: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        free = holder.getsockname()[1]
    with ssh.tunnel(session, "127.0.0.1", free) as address:
        try:
            assert said_back(address, b"anybody?") == b""
        except ConnectionError:
            pass
    with ssh.tunnel(session, "127.0.0.1", echo) as address:
        assert said_back(address, b"x") == b"xthat was all"


def test_a_connection_that_is_lost_ends_what_went_through_it(sshd: Sshd, session: ssh.NodeShell, echo: int) -> None:
    with ssh.tunnel(session, "127.0.0.1", echo) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"hello")
            assert connection.recv(5) == b"hello"
            sshd.stop()
            assert connection.recv(5) == b""
    assert not session.alive
    with pytest.raises(NodeUnreachable):
        session.run("true")

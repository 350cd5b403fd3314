"""SSH to nodes, with pinned host keys: the one door to paramiko."""

from __future__ import annotations

import contextlib
import io
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from dec2.errors import NodeUnreachable, WrongUsage

PORT = 22
_CONNECT_TIMEOUT_S = 5.0
_RETRY_S = 0.3
_CHUNK_BYTES = 32768
#: sshd takes ten commands at a time on one connection by default, and file transfers count.
_COMMANDS_MAX = 8
#: A node that took nothing for so long is lost; without it the system would wait a quarter of an hour.
_LOST_MS = 30_000
_REOPEN_TIMEOUT_S = 15.0
_PUT_TIMEOUT_S = 300.0
#: mode, name, another name in its folder, size: who waits for the name finds it whole, and never less than that.
_PUT = """set -e
mkdir -p "$(dirname "$2")"
umask 077
trap 'rm -f "$3"' EXIT
cat > "$3"
test "$(wc -c < "$3")" -eq "$4"
chmod "$1" "$3"
mv -T "$3" "$2"
"""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where, and with which key.

    Attributes
    ----------
    key_file
        The private key; None means the agent's.
    host_keys
        The public host keys that are accepted, `ssh-ed25519 AAAA...` each; any other is refused.
    """

    host: str
    username: str
    key_file: str | None
    host_keys: tuple[str, ...]
    port: int = PORT


class _Pinned(paramiko.MissingHostKeyPolicy):
    def __init__(self, login: Login) -> None:
        self._accepted = {line.split()[1] for line in login.host_keys}
        self._host = login.host

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if key.get_base64() not in self._accepted:
            raise _WrongHostKey(
                f"{self._host} shows a host key that is not this cluster's ({key.fingerprint}); somebody may be "
                "in between, or the address belongs to another machine now: nothing was sent"
            )


class _WrongHostKey(paramiko.SSHException):
    pass


class NodeShell:
    """An open connection to one node; threads may share it."""

    def __init__(self, client: paramiko.SSHClient, login: Login) -> None:
        self._client = client
        self._slots = threading.BoundedSemaphore(_COMMANDS_MAX)
        self.login = login

    @property
    def host_key(self) -> str:
        """The public host key that the node showed."""
        key = self._transport().get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    @property
    def alive(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    def _transport(self) -> paramiko.Transport:
        transport = self._client.get_transport()
        if transport is None:
            raise NodeUnreachable(f"the connection to {self.login.host} is closed; connect again")
        return transport

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a command; return its output.

        Raises
        ------
        NodeUnreachable
            It failed, or the connection did; with the end of what it wrote to stderr.
        """
        return self._executed(argv, b"", timeout_s, check)

    def run_as_root(self, *argv: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a command as root; as `run`."""
        sudo = () if self.login.username == "root" else ("sudo",)
        return self.run(*sudo, *argv, timeout_s=timeout_s, check=check)

    def put(self, content: bytes | Path, path: str, mode: int) -> None:
        """Write a file as root, whole or not at all, never readable by others than `mode` says."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        sudo = () if self.login.username == "root" else ("sudo",)
        argv = ("sh", "-c", _PUT, "sh", f"{mode:o}", path, f"{path}.{secrets.token_hex(8)}", str(len(data)))
        self._executed((*sudo, *argv), data, _PUT_TIMEOUT_S, True)

    def _executed(self, argv: tuple[str, ...], data: bytes, timeout_s: float, check: bool) -> str:
        command = shlex.join(argv)
        try:
            with self._slots:
                channel = self._command_channel()
                # Closed before the slot is given on: sshd counts it until then.
                with contextlib.closing(channel):
                    channel.settimeout(timeout_s)
                    channel.exec_command(command)
                    code, output, complaint = _talk(channel, data)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeUnreachable(f"{self.login.host}: {argv[0]}: {_what(error)}") from None
        if check and code:
            raise NodeUnreachable(f"{self.login.host}: {command[:120]} ended with {code}: {complaint.strip()[-300:]}")
        return output

    def _command_channel(self) -> paramiko.Channel:
        """Open a channel for a command; again, while sshd still counts those of commands that just ended."""
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while True:
            try:
                return self._transport().open_session(timeout=_CONNECT_TIMEOUT_S)
            except paramiko.ChannelException:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY_S / 10)

    def read(self, path: str) -> bytes | None:
        """Return a text file, read as root, or None if it is not there, or empty."""
        script = 'if test -e "$1"; then cat "$1"; fi'
        return self.run_as_root("sh", "-c", script, "sh", path).encode() or None

    def channel(self, host: str, port: int, peer: tuple[str, int]) -> paramiko.Channel:
        """Open a way to host:port as the node sees it."""
        return self._transport().open_channel("direct-tcpip", (host, port), peer, timeout=_CONNECT_TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> NodeShell:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextlib.contextmanager
def tunnel(session: NodeShell, host: str, port: int) -> Iterator[str]:
    """Lead a free port of loopback to host:port as the node sees it; give that port's HOST:PORT.

    When the connection to the node is lost, the next who comes to the port opens a new one, pinned to the same keys.
    `session` stays open afterwards; what the tunnel opened itself is closed.
    """
    way = _Way(session)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = threading.Thread(target=_serve, args=(listener, way, host, port), name="tunnel", daemon=True)
        served.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            served.join(5)
            way.close()


class _Way:
    """The connection under a tunnel: replaced when it is lost."""

    def __init__(self, session: NodeShell) -> None:
        self._given = self._session = session
        self._lock = threading.Lock()
        self._closed = False

    def channel(self, host: str, port: int, peer: tuple[str, int]) -> paramiko.Channel:
        session = self._connected()
        try:
            return session.channel(host, port, peer)
        except paramiko.ChannelException:
            raise
        except (paramiko.SSHException, EOFError, OSError, NodeUnreachable):
            if session.alive:
                raise
            return self._connected().channel(host, port, peer)

    def _connected(self) -> NodeShell:
        with self._lock:
            if self._closed:
                raise NodeUnreachable("the tunnel is closed")
            if not self._session.alive:
                lost = self._session
                self._session = connect(lost.login, _REOPEN_TIMEOUT_S)
                lost.close()
            return self._session

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._session is not self._given:
                self._session.close()


def _serve(listener: socket.socket, way: _Way, host: str, port: int) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(connection, peer, way, host, port), daemon=True).start()


def _carry(connection: socket.socket, peer: tuple[str, int], way: _Way, host: str, port: int) -> None:
    """Carry one connection's bytes both ways, until both sides have said all."""
    try:
        channel = way.channel(host, port, peer)
    except (paramiko.SSHException, EOFError, OSError, NodeUnreachable):
        connection.close()
        return
    back = threading.Thread(target=_carry_back, args=(channel, connection), daemon=True)
    back.start()
    try:
        while data := connection.recv(_CHUNK_BYTES):
            channel.sendall(data)
        channel.shutdown_write()
    except (OSError, EOFError, paramiko.SSHException):
        channel.close()
    back.join()
    channel.close()
    connection.close()


def _carry_back(channel: paramiko.Channel, connection: socket.socket) -> None:
    try:
        while data := channel.recv(_CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR if channel.closed else socket.SHUT_WR)
    except (OSError, EOFError, paramiko.SSHException):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _talk(channel: paramiko.Channel, data: bytes) -> tuple[int, str, str]:
    """Give a command its input; return its exit code and what it wrote to stdout and stderr."""
    complaints: list[bytes] = []

    def listen() -> None:
        # Beside the rest: a command that fills a pipe which nobody reads never ends.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while more := channel.recv_stderr(_CHUNK_BYTES):
                complaints.append(more)

    def give() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.sendall(data)
            channel.shutdown_write()

    threads = [threading.Thread(target=each, daemon=True) for each in (listen, give)]
    for thread in threads:
        thread.start()
    output = []
    while more := channel.recv(_CHUNK_BYTES):
        output.append(more)
    threads[0].join()
    code = channel.recv_exit_status()
    return code, b"".join(output).decode(errors="replace"), b"".join(complaints).decode(errors="replace")


def connect(login: Login, timeout_s: float) -> NodeShell:
    """Connect to a node that may still be booting: try until `timeout_s` has passed.

    Raises
    ------
    NodeUnreachable
        It does not answer, shows a wrong host key, or does not accept the key.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return NodeShell(_connect_once(login), login)
        except _WrongHostKey as error:
            raise NodeUnreachable(str(error)) from None
        except paramiko.AuthenticationException as error:
            # Also while cloud-init has not installed the key yet.
            problem: Exception = error
            text = f"{login.username}@{login.host} does not accept your key; is --keypair that of --keyname?"
        except (paramiko.SSHException, OSError, EOFError) as error:
            problem = error
            text = f"{login.host} does not answer on port {login.port} ({_what(error)})"
        if time.monotonic() >= deadline:
            raise NodeUnreachable(f"{text}; tried for {timeout_s:.0f} s") from problem
        # SSH has no event for "now I am up"; the deadline bounds this.
        time.sleep(_RETRY_S)


def _connect_once(login: Login) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Pinned(login))
    try:
        client.connect(
            login.host,
            port=login.port,
            username=login.username,
            key_filename=login.key_file,
            allow_agent=login.key_file is None,
            look_for_keys=False,
            timeout=_CONNECT_TIMEOUT_S,
            banner_timeout=_CONNECT_TIMEOUT_S * 2,
            auth_timeout=_CONNECT_TIMEOUT_S * 2,
        )
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(10)
            if isinstance(transport.sock, socket.socket) and hasattr(socket, "TCP_USER_TIMEOUT"):
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _LOST_MS)
        return client
    except BaseException:
        client.close()
        raise


def _what(error: BaseException) -> str:
    return str(error) or type(error).__name__


# --- keys ---------------------------------------------------------------------------------------


def new_host_key() -> tuple[str, str]:
    """Return a new ed25519 host key: the private one in OpenSSH's form, and the public line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def find_private_key(name: str, public_line: str, named: str | None) -> str | None:
    """Return the file whose private key belongs to `public_line`, or None if the agent holds it.

    Looked for in `named`; else in the agent, `~/.ssh/NAME.pem` and `~/.ssh/NAME`.

    Raises
    ------
    WrongUsage
        It is nowhere, or `named` is another key.
    """
    wanted = public_line.split()[1]
    if named is not None:
        found = _public_of(Path(named).expanduser())
        if found is None:
            raise WrongUsage(f"--keypair {named} is no private key that can be read without a passphrase")
        if found != wanted:
            raise WrongUsage(f"--keypair {named} is not the private key of the key pair {name}; name the right file")
        return str(Path(named).expanduser())
    with contextlib.suppress(paramiko.SSHException):
        agent = paramiko.Agent()
        try:
            if any(key.get_base64() == wanted for key in agent.get_keys()):
                return None
        finally:
            agent.close()
    for candidate in (Path(f"~/.ssh/{name}.pem").expanduser(), Path(f"~/.ssh/{name}").expanduser()):
        if _public_of(candidate) == wanted:
            return str(candidate)
    raise WrongUsage(
        f"the private key of the key pair {name} is not in your SSH agent, ~/.ssh/{name}.pem or ~/.ssh/{name}; "
        "name its file with --keypair FILE"
    )


def _public_of(path: Path) -> str | None:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        with contextlib.suppress(paramiko.SSHException, ValueError, IndexError):
            return str(kind.from_private_key(io.StringIO(text)).get_base64())
    return None

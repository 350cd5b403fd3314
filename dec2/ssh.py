"""SSH to nodes, with pinned host keys: the one door to paramiko."""

from __future__ import annotations

import contextlib
import io
import select
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from dec2.errors import NodeUnreachable, WrongUsage

PORT = 22
_CONNECT_TIMEOUT_S = 5.0
_RETRY_S = 0.3
_CHUNK_BYTES = 32768


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
    """An open connection to one node."""

    def __init__(self, client: paramiko.SSHClient, login: Login) -> None:
        self._client = client
        self.login = login

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """Run a command; return its output.

        Raises
        ------
        NodeUnreachable
            It failed, or the connection did; with the end of what it wrote to stderr.
        """
        command = shlex.join(argv)
        try:
            stdin, stdout, stderr = self._client.exec_command(command, timeout=timeout_s)
            stdin.close()
            output = stdout.read().decode(errors="replace")
            complaint = stderr.read().decode(errors="replace")
            code = stdout.channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeUnreachable(f"{self.login.host}: {argv[0]}: {_what(error)}") from None
        if check and code:
            raise NodeUnreachable(f"{self.login.host}: {command[:120]} ended with {code}: {complaint.strip()[-300:]}")
        return output

    def put(self, content: bytes | Path, path: str, mode: int) -> None:
        """Write a file as root, whole or not at all, never readable by others than `mode` says."""
        staging = f".dec2-{threading.get_ident()}"
        try:
            sftp = self._client.open_sftp()
            try:
                with sftp.open(staging, "wb") as file:
                    file.chmod(0o600)
                    file.set_pipelined(True)
                    data = content if isinstance(content, bytes) else content.read_bytes()
                    file.write(data)
            finally:
                sftp.close()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeUnreachable(f"{self.login.host}: {path} could not be written: {_what(error)}") from None
        self.run("sudo", "install", "-D", "-m", f"{mode:o}", "-o", "root", "-g", "root", staging, path)
        self.run("rm", "-f", staging)

    def read(self, path: str) -> bytes | None:
        """Return a file, read as root, or None if it is not there."""
        text = self.run("sudo", "sh", "-c", f"test -e {shlex.quote(path)} && cat {shlex.quote(path)}", check=False)
        return text.encode() or None

    @contextlib.contextmanager
    def forward(self, host: str, port: int) -> Iterator[str]:
        """Lead a free port of loopback to host:port as the node sees it; give that port's HOST:PORT."""
        listener = socket.create_server(("127.0.0.1", 0))
        transport = self._client.get_transport()
        assert transport is not None
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, peer = listener.accept()
                except OSError:
                    return
                try:
                    channel = transport.open_channel("direct-tcpip", (host, port), peer, timeout=_CONNECT_TIMEOUT_S)
                except (paramiko.SSHException, EOFError, OSError):
                    connection.close()
                    continue
                threading.Thread(target=_pump, args=(connection, channel), daemon=True).start()

        threading.Thread(target=serve, name="tunnel", daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> NodeShell:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


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
            transport.set_keepalive(15)
        return client
    except BaseException:
        client.close()
        raise


def _pump(connection: socket.socket, channel: paramiko.Channel) -> None:
    """Carry bytes both ways until either side ends."""
    try:
        while True:
            both: list[Any] = [connection, channel]
            readable, _, _ = select.select(both, [], [])
            if connection in readable:
                data = connection.recv(_CHUNK_BYTES)
                if not data:
                    return
                channel.sendall(data)
            if channel in readable:
                data = channel.recv(_CHUNK_BYTES)
                if not data:
                    return
                connection.sendall(data)
    except (OSError, EOFError, paramiko.SSHException):
        return
    finally:
        channel.close()
        connection.close()


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

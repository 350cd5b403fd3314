"""A cluster over SSH: the one door to paramiko in this package.

Each remote command runs on a terminal of its own (a pty). When its connection ends, for whatever reason, the remote
system hangs that terminal up, and the command ends: neither it nor its credential outlives who started it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import paramiko

from distributed_core.comm.address import Address, format_address, parse_address
from distributed_core.comm.credential import load_or_create
from distributed_core.errors import AddressError, ConnectError, EngineError, UsageError
from distributed_core.files import read_small

CONNECT_TIMEOUT_S = 20.0
PARALLEL_CONNECTIONS = 32
STOP_GRACE_S = 5.0

#: Runs on each host: keep a command, and take its credential away when it has ended, whatever ended it. A terminal that
#: hangs up tells its first process only, which is this shell; Ctrl-C tells both.
_KEEPER = """
folder=$1 log=$2; shift 2
trap : INT
if [ "$log" ]; then
    mkdir -p "${log%/*}" && mkfifo "$folder/lines" || exit 1
    tee -a "$log" <"$folder/lines" & "$@" >"$folder/lines" 2>&1 & command=$!
else
    "$@" & command=$!
fi
trap 'kill "$command"' HUP TERM
wait "$command"; code=$?
while kill -0 "$command" 2>/dev/null; do wait "$command"; code=$?; done
wait
rm -rf "$folder"
exit "$code"
"""


@dataclass(frozen=True, slots=True)
class SSHOptions:
    """How to log in, and what to run.

    Attributes
    ----------
    accept_new
        Take down the host key of a host that was never seen; a changed one is refused all the same.
    log_directory
        A folder on each host for what the commands write, or None: it comes here.
    """

    username: str | None = None
    port: int = 22
    private_key: str | None = None
    accept_new: bool = False
    remote_python: str = "python3"
    credential: str | None = None
    scheduler_port: int = 8786
    nthreads: int = 0
    nprocs: int = 1
    memory_limit: str = "auto"
    log_directory: str | None = None


Say = Callable[[str, str], None]
"""Called with a host's name and a line that it wrote."""


@dataclass(slots=True)
class Remote:
    """One remote command."""

    host: str
    client: paramiko.SSHClient
    folder: str
    channel: paramiko.Channel | None = None
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    ready: bool = False
    code: int | None = None

    @property
    def credential(self) -> str:
        return f"{self.folder}/credential.pem"


class SSHCluster:
    """A scheduler on one host and workers on several, as long as this object lives.

    Parameters
    ----------
    hosts
        Where workers run.
    scheduler
        Where the scheduler runs; by default on the first host.
    say
        Called with every line that a host writes, in threads.
    """

    def __init__(self, hosts: list[str], options: SSHOptions, say: Say, scheduler: str | None = None) -> None:
        if not hosts:
            raise UsageError("name at least one host")
        for host in (*hosts, *([scheduler] if scheduler else [])):
            split_host(host, options)
        self.hosts = list(dict.fromkeys(hosts))
        self.scheduler_host = scheduler or self.hosts[0]
        self.options = options
        self.address = ""
        self.failed: dict[str, str] = {}
        self._say = say
        self._credential = load_or_create(options.credential)
        self._folder = f".dcluster-{uuid.uuid4().hex[:8]}"
        self._remotes: list[Remote] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the scheduler, then all workers at once.

        A worker host that fails is in `failed`, and the others go on.

        Raises
        ------
        ConnectError
            The scheduler could not be started.
        """
        scheduler = self._connect(self.scheduler_host)
        module = "distributed_core.cli.dscheduler"
        own = ("--host", scheduler.host, "--port", str(self.options.scheduler_port))
        self._run(scheduler, f"scheduler {scheduler.host}", module, own)
        self.address = self._awaited(scheduler, "Start scheduler at ")
        pool = ThreadPoolExecutor(min(PARALLEL_CONNECTIONS, len(self.hosts)))
        try:
            list(pool.map(self._start_worker, self.hosts))
        finally:
            # Ctrl-C does not wait for a host that hangs; `stop` ends its connection, and with it the thread.
            pool.shutdown(wait=False, cancel_futures=True)

    def _start_worker(self, host: str) -> None:
        options = self.options
        try:
            remote = self._connect(host)
            own = (
                *(self.address, "--host", remote.host, "--nthreads", str(options.nthreads)),
                *("--nprocs", str(options.nprocs), "--memory-limit", options.memory_limit),
            )
            self._run(remote, f"worker {remote.host}", "distributed_core.cli.dworker", own)
            self._awaited(remote, "Registered with center at: ")
        except EngineError as error:
            self.failed[host] = str(error)
            if not self._stopped.is_set():
                self._say(f"dcluster {host}", str(error))

    def wait(self) -> int:
        """Return when the scheduler has ended or `stop` was called; the exit code for the command."""
        scheduler = self._remotes[0]
        while not self._stopped.is_set():
            if scheduler.code is not None:
                return 1 if scheduler.code else 0
            self._stopped.wait(0.2)
        return 0

    def stop(self) -> None:
        """End all remote commands: the workers first. Those that do not end in time lose their terminal."""
        with self._lock:
            self._stopped.set()
            remotes = self._remotes[::-1]
        for remote in remotes:
            channel = remote.channel
            if channel is not None and not channel.closed:
                with contextlib.suppress(OSError, paramiko.SSHException):
                    # Ctrl-C on the remote terminal: a clean end.
                    channel.send(b"\x03")
        deadline = monotonic() + STOP_GRACE_S
        for remote in remotes:
            channel = remote.channel
            if channel is not None:
                channel.status_event.wait(max(0.0, deadline - monotonic()))
            with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
                sftp = remote.client.open_sftp()
                sftp.remove(remote.credential)
                sftp.rmdir(remote.folder)
            remote.client.close()

    # --- one host -----------------------------------------------------------------------------

    def _connect(self, text: str) -> Remote:
        username, host, port = split_host(text, self.options)
        client = paramiko.SSHClient()
        client.load_system_host_keys()
        known = Path("~/.ssh/known_hosts").expanduser()
        if known.exists():
            client.load_host_keys(str(known))
        if self.options.accept_new:
            known.parent.mkdir(mode=0o700, exist_ok=True)
            known.touch(mode=0o600)
            client.load_host_keys(str(known))
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        else:
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            client.connect(
                host,
                port=port,
                username=username,
                key_filename=self.options.private_key,
                timeout=CONNECT_TIMEOUT_S,
                banner_timeout=CONNECT_TIMEOUT_S,
                auth_timeout=CONNECT_TIMEOUT_S,
            )
            transport = client.get_transport()
            assert transport is not None
            transport.set_keepalive(10)
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            raise ConnectError(_sentence(text, host, port, error)) from None
        remote = Remote(host, client, f"{self._folder}-{uuid.uuid4().hex[:8]}")
        with self._lock:
            if self._stopped.is_set():
                client.close()
                raise ConnectError(f"{host} was not ready before the end")
            self._remotes.append(remote)
        self._bring_credential(remote)
        return remote

    def _bring_credential(self, remote: Remote) -> None:
        try:
            with remote.client.open_sftp() as sftp:
                sftp.mkdir(remote.folder, 0o700)
                with sftp.open(remote.credential, "wx") as file:
                    # Narrow first, then fill: the key is at no time readable by others.
                    file.chmod(0o600)
                    file.write(self._credential.path.read_bytes())
        except (paramiko.SSHException, OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            text = f"{remote.host} does not take the credential by SFTP ({reason}); check your home folder there"
            raise ConnectError(text) from None

    def _run(self, remote: Remote, title: str, module: str, own: tuple[str, ...]) -> None:
        folder = self.options.log_directory
        log = "" if folder is None else f"{folder}/{module.rpartition('.')[2]}-{remote.host}.log"
        argv = (self.options.remote_python, "-m", module, *own, "--credential", remote.credential)
        transport = remote.client.get_transport()
        try:
            if transport is None:
                raise EOFError("the connection ended")
            channel = transport.open_session(timeout=CONNECT_TIMEOUT_S)
            channel.get_pty(width=500)
            channel.exec_command(shlex.join(("sh", "-c", _KEEPER, "sh", remote.folder, log, *argv)))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectError(f"{remote.host} does not run commands for you ({error}); try ssh -t there") from None
        remote.channel = channel
        threading.Thread(target=self._listen, args=(remote, title), daemon=True).start()

    def _listen(self, remote: Remote, title: str) -> None:
        channel = remote.channel
        assert channel is not None
        with contextlib.suppress(OSError), channel.makefile("rb") as file:
            for line in file:
                text = line.decode(errors="replace").rstrip("\r\n")
                self._say(title, text)
                if not remote.ready:
                    remote.lines.put(text)
        remote.code = channel.recv_exit_status()
        remote.lines.put(None)
        if not self._stopped.is_set():
            self._say(title, f"ended with {remote.code}")

    def _awaited(self, remote: Remote, start: str) -> str:
        """Return what follows `start` in a line of the host; its end before that is an error."""
        last = "it wrote nothing"
        while True:
            text = remote.lines.get()
            if text is None:
                raise ConnectError(f"{remote.host}: the command ended with {remote.code}: {last}")
            if text.startswith(start):
                remote.ready = True
                return text[len(start) :].strip()
            last = text or last


def split_host(text: str, options: SSHOptions) -> tuple[str | None, str, int]:
    """Return user, host and SSH port of `[user@]host[:port]`.

    Raises
    ------
    UsageError
        It does not parse.
    """
    username, at, rest = text.rpartition("@")
    if "[" in rest[1:] or any(each in rest for each in "{}*?,"):
        raise UsageError(f"{text!r:.80} is no host; ranges like {{1,2}} are opened by a shell, name each host here")
    try:
        host, port = parse_address(rest, options.port)
    except AddressError:
        raise UsageError(f"{text!r:.80} is no host; write HOST, HOST:PORT or USER@HOST:PORT") from None
    return (username if at else options.username), host, port


def _sentence(text: str, host: str, port: int, error: BaseException) -> str:
    where = host if port == 22 else format_address(Address(host, port))
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"{where} shows another host key than the one in ~/.ssh/known_hosts; if the host was set up anew, run: "
            f"ssh-keygen -R {host if port == 22 else f'[{host}]:{port}'}"
        )
    if isinstance(error, paramiko.AuthenticationException):
        return f"{where} does not accept your key; name another with --ssh-private-key, or a user with --ssh-username"
    if isinstance(error, paramiko.SSHException) and "not found in known_hosts" in str(error):
        return f"{where} is not in ~/.ssh/known_hosts; log in once with ssh to check its key, or add --accept-new"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{where} cannot be reached by SSH ({reason}); check the name, and that sshd runs there"


def read_hostfile(path: str) -> list[str]:
    """Return the hosts in a file: one or more per line, `#` begins a comment.

    Raises
    ------
    UsageError
        It cannot be read, or names none.
    """
    try:
        lines = read_small(path)[0].splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"the hostfile {os.fspath(path)} cannot be read ({error})") from None
    hosts = [host for line in lines for host in line.partition("#")[0].split()]
    if not hosts:
        raise UsageError(f"the hostfile {path} names no hosts")
    return hosts

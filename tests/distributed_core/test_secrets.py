"""The private key of the credential stays in its file: not in logs, command lines, environments, tracebacks, copies."""

from __future__ import annotations

import base64
import json
import os
import ssl
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import psutil
import pytest

from dec2.engines.core import CoreEngine
from dec2.providers.local import LocalProvider
from dec2.spec import ClusterSpec
from distributed_core import Client
from distributed_core.comm import credential
from distributed_core.servers.scheduler import Scheduler
from distributed_core.ssh import SSHCluster, SSHOptions
from tests.distributed_core.launching import BIN

pytestmark = pytest.mark.process

LOUD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger().setLevel(logging.DEBUG)
module, sys.argv = sys.argv[1], sys.argv[1:]
import importlib
main = importlib.import_module(module).main
from distributed_core.cli import running
running.keep_informed = lambda: None
main()
"""


def key_of(path: Path) -> list[str]:
    """Return what would give the key away: lines of its PEM, its number in hex and as a decimal."""
    from cryptography.hazmat.primitives import serialization

    text = path.read_bytes()
    pem = text.decode().partition("-----END PRIVATE KEY-----")[0].splitlines()[1:]
    number = serialization.load_pem_private_key(text, None).private_numbers().private_value  # type: ignore[union-attr]
    raw = number.to_bytes(32, "big")
    return ["PRIVATE KEY", *pem, f"{number:x}", str(number), base64.b64encode(raw).decode(), repr(raw)[2:-1]]


def find(secrets: list[str], text: str) -> list[str]:
    return [secret[:12] for secret in secrets if secret in text]


def fail() -> None:
    raise ValueError("on purpose")


def children_environment() -> dict[str, str]:
    import subprocess
    import sys

    code = "import json, os; print(json.dumps(dict(os.environ)))"
    return dict(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))


def test_the_key_is_nowhere_but_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster at work with everything logged; its key is looked for in all that can be seen of it."""
    home, temporary, keylog = tmp_path / "home", tmp_path / "tmp", tmp_path / "keylog"
    home.mkdir()
    temporary.mkdir()
    for name, value in (("XDG_CONFIG_HOME", home), ("TMPDIR", temporary), ("SSLKEYLOGFILE", keylog)):
        monkeypatch.setenv(name, str(value))
    path = credential.load_or_create().path
    secrets = key_of(path)
    log = tmp_path / "log"
    argv = [sys.executable, "-c", LOUD]
    with open(log, "wb") as file:
        dscheduler = [*argv, "distributed_core.cli.dscheduler", "--host", "127.0.0.1", "--port", "0"]
        scheduler = subprocess.Popen(dscheduler, stdout=subprocess.PIPE, stderr=file, text=True)
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().split()[-1]
        dworker = [*argv, "distributed_core.cli.dworker", address, "--nthreads", "1"]
        worker = subprocess.Popen(dworker, stdout=subprocess.PIPE, stderr=file, text=True)
    said: list[str] = []
    try:
        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
            future = client.submit(fail)
            error = future.exception()
            said += ["".join(traceback.format_exception(error)), repr(vars(client)), repr(client)]
            said.append(repr(client.submit(children_environment).result()))
            said.append(repr(client.scheduler_info()))
            client.dump_state(tmp_path / "dump.json")
            said.append((tmp_path / "dump.json").read_text())
            for process in (*psutil.Process(scheduler.pid).children(True), *psutil.Process(worker.pid).children(True)):
                said += [*process.cmdline(), *process.environ().values()]
            for pid in (scheduler.pid, worker.pid):
                said += [*psutil.Process(pid).cmdline(), *psutil.Process(pid).environ().values()]
    finally:
        for each in (worker, scheduler):
            each.terminate()
            assert each.wait(30) == 0
            assert each.stdout is not None
            said.append(each.stdout.read())
            each.stdout.close()
    said.append(log.read_text())
    assert "DEBUG" in said[-1]
    assert find(secrets, "\n".join(said)) == []
    # Tornado makes a context of its own when it is imported, which begins the file with a comment.
    assert [line for line in keylog.read_text().splitlines() if not line.startswith("#")] == []
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            file_path = Path(folder, name)
            if file_path != path:
                assert find(secrets, file_path.read_text(errors="replace")) == [], file_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_that_holds_a_credential_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "c.pem"
    credential.write_new(path)
    secrets = key_of(path)
    held = credential.load(path)
    contexts = [held.server_context(), held.client_context()]
    scheduler = Scheduler(host="127.0.0.1", credential=path)
    cluster = SSHCluster(["host"], SSHOptions(credential=str(path)), lambda title, line: None)
    for thing in (held, *contexts, scheduler, cluster, vars(held), vars(scheduler), vars(cluster)):
        assert find(secrets, repr(thing)) == []
    path.write_bytes(path.read_bytes()[:-300])
    try:
        credential.load(path)
    except Exception as error:
        assert error.__traceback__ is not None  # noqa: PT017 -- the frame of this test knows the key itself
        error.__traceback__ = error.__traceback__.tb_next
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "copy it again" in told
    assert find(secrets, told) == []


def test_keys_of_sessions_are_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keylog"))
    assert ssl.create_default_context().keylog_filename  # the library would honour it
    credential.write_new(tmp_path / "c.pem")
    held = credential.load(tmp_path / "c.pem")
    assert [each.keylog_filename for each in (held.server_context(), held.client_context())] == [None, None]


def test_no_moment_in_which_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the widest umask, at each write of a key: every file of the folder is the owner's alone."""
    modes: list[int] = []
    made = credential.generate()

    def generate() -> bytes:
        modes.extend(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.rglob("*") if each.is_file())
        return made

    link = os.link

    def linked(source: str, target: str) -> None:
        modes.extend(stat.S_IMODE(os.stat(each).st_mode) for each in (source,))
        link(source, target)

    monkeypatch.setattr(credential, "generate", generate)
    monkeypatch.setattr(os, "link", linked)
    old = os.umask(0)
    try:
        assert credential.write_new(tmp_path / "folder" / "c.pem")
    finally:
        os.umask(old)
    modes.append(stat.S_IMODE((tmp_path / "folder" / "c.pem").stat().st_mode))
    assert len(modes) >= 3
    assert set(modes) == {0o600}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["c.pem"]


def test_a_local_cluster_keeps_its_key_to_itself(tmp_path: Path) -> None:
    """dec2's local provider: its folder is private, its key is in one file, and a failure does not tell it."""
    provider = LocalProvider(tmp_path / "state" / "local")
    spec = ClusterSpec(name="secret", provider="local")
    old = os.umask(0)
    try:
        provider.ensure_group(spec, CoreEngine())
    finally:
        os.umask(old)
    folder = tmp_path / "state" / "local" / "secret"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = key_of(folder / "credential.pem")
    for each in folder.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
        if each.name != "credential.pem":
            assert find(secrets, each.read_text()) == []
    assert find(secrets, repr(provider.observe("secret")) + repr(spec) + repr(vars(provider))) == []
    place = provider._place("secret")
    commands = [CoreEngine().scheduler_command(place)]
    assert find(secrets, repr(commands) + repr(place)) == []


def test_commands_take_no_secret_but_a_path() -> None:
    for command in ("dscheduler", "dworker", "dcluster"):
        told = subprocess.run([str(BIN / command), "--help"], capture_output=True, text=True, timeout=60).stdout
        for word in ("password", "token", "secret"):
            assert word not in told.lower()

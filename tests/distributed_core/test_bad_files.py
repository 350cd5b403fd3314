"""Files, options and variables that are wrong: one sentence, the right exit code, and no waiting for a terminal."""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from distributed_core.client.locating import read_scheduler_file
from distributed_core.comm import credential, loops
from distributed_core.errors import CredentialError, EngineError, UsageError
from distributed_core.ssh import SSHOptions, read_hostfile, split_host
from tests.distributed_core.fuzzing import inputs
from tests.distributed_core.launching import BIN

pytestmark = pytest.mark.process


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def with_passphrase(path: Path) -> Path:
    encryption = serialization.BestAvailableEncryption(b"secret")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return private(path, key + credential.generate().partition(b"-----END PRIVATE KEY-----\n")[2])


def folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path, 0o600)
    return path


def huge(path: Path) -> Path:
    private(path, b"")
    os.truncate(path, 1 << 40)
    return path


def below_a_file(path: Path) -> Path:
    return private(path, b"x") / "credential.pem"


def open_to_all(path: Path) -> Path:
    private(path, credential.generate())
    path.chmod(0o640)
    return path


MADE: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "empty": lambda path: private(path, b""),
    "binary": lambda path: private(path, bytes(range(256)) * 9),
    "a certificate only": lambda path: private(path, credential.generate()[-600:]),
    "two halves of different pairs": lambda path: private(
        path, credential.generate()[:240] + credential.generate()[241:]
    ),
    "a passphrase": with_passphrase,
    "a folder": folder,
    "a symlink loop": loop,
    "a pipe": pipe,
    "a device": lambda path: Path("/dev/zero"),
    "huge": huge,
    "below a file": below_a_file,
    "open to all": open_to_all,
}


@pytest.mark.parametrize("kind", MADE)
def test_credential_files(tmp_path: Path, kind: str) -> None:
    path = MADE[kind](tmp_path / "c.pem")
    for load in (credential.load, credential.load_or_create):
        with pytest.raises(CredentialError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("kind", ["a passphrase", "a pipe", "huge"])
@pytest.mark.parametrize("command", ["dscheduler", "dworker"])
def test_commands_and_bad_credentials(tmp_path: Path, kind: str, command: str) -> None:
    path = MADE[kind](tmp_path / "c.pem")
    own = ["--port", "0"] if command == "dscheduler" else ["127.0.0.1:1", "--death-timeout", "1"]
    done = run(command, *own, "--credential", str(path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "copy it" in done.stderr


def run(command: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **environment}
    return subprocess.run(
        [str(BIN / command), *options], capture_output=True, text=True, timeout=60, env=own, stdin=subprocess.DEVNULL
    )


def test_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credential.ENVIRONMENT, "~nobody-has-this-name/c.pem")
    with pytest.raises(CredentialError, match="no such user"):
        credential.load_or_create()


@inputs(100)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [
                b"",
                b"null",
                b"[]",
                b'"x"',
                b"5",
                b"{}",
                b'{"address": 5}',
                b'{"address": null}',
                b'{"address": "a:b"}',
                b'{"address": "a:1", "credential": 5}',
                b'{"address": "a:1", "credential": ["x"]}',
                b"[" * 100_000,
                b"\xff\xfe",
            ]
        ),
    )
)
def test_scheduler_files(content: bytes) -> None:
    """100 contents by default."""
    path = Path(tempfile.gettempdir()) / f"scheduler-file-{os.getpid()}"
    path.write_bytes(content)
    try:
        with pytest.raises(CredentialError) as caught:
            read_scheduler_file(path)
        assert "\n" not in str(caught.value)
    finally:
        path.unlink()


NO_FILES = ["missing", "empty", "binary", "a folder", "a symlink loop", "a pipe", "a device", "huge", "below a file"]


@pytest.mark.parametrize("kind", NO_FILES)
def test_scheduler_files_and_hostfiles_that_are_none(tmp_path: Path, kind: str) -> None:
    """Neither waits for a pipe, nor reads a device without end, nor a terabyte."""
    path = MADE[kind](tmp_path / "s.json")
    with pytest.raises(CredentialError) as scheduler:
        read_scheduler_file(path)
    with pytest.raises(UsageError) as hosts:
        read_hostfile(str(path))
    for caught in (scheduler, hosts):
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("mode", "accepted"), [(0o600, True), (0o644, True), (0o664, True), (0o666, False), (0o602, False)]
)
def test_a_scheduler_file_that_everybody_can_write_leads_nowhere(tmp_path: Path, mode: int, accepted: bool) -> None:
    """It names the credential, or says that none is needed."""
    path = private(tmp_path / "s.json", b'{"address": "127.0.0.1:1", "insecure": true}')
    path.chmod(mode)
    if accepted:
        assert read_scheduler_file(path)["address"] == "127.0.0.1:1"
    else:
        with pytest.raises(CredentialError, match="chmod o-w"):
            read_scheduler_file(path)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "huge"])
def test_commands_and_files_that_never_end(tmp_path: Path, kind: str) -> None:
    path = str(MADE[kind](tmp_path / "f"))
    for argv, code in (
        (["dworker", "--scheduler-file", path, "--death-timeout", "1"], 1),
        (["dcluster", "--hostfile", path], 2),
    ):
        done = run(*argv)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


def test_a_hostfile_of_ten_megabytes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bytes, 1048576 are allowed"):
        read_hostfile(str(private(tmp_path / "hosts", b"host\n" * 2_000_000)))


@pytest.mark.parametrize("text", ["192.168.0.{1,2}", "192.168.0.{1..4}", "node[1-5]", "node*", "a,b", "u@n{1,2}:22"])
def test_ranges_are_for_shells(text: str) -> None:
    with pytest.raises(UsageError, match="opened by a shell"):
        split_host(text, SSHOptions())
    assert split_host("[::1]:22", SSHOptions())[1:] == ("::1", 22)


WRONG = {
    "dscheduler": [
        *(["--port", each] for each in ("x", "-1", "65536", "1.5", "")),
        ["--host"],
        ["--scheduler-file", "/"],
        ["--credential", "/"],
        ["--pid-file", "/"],
        ["--pid-file", "/no/such/folder/pid", "--port", "0"],
        ["--preload", "no_such_module_anywhere", "--port", "0"],
        ["--preload", "/no/such/file.py", "--port", "0"],
        ["--preload", "os:no_such_function", "--port", "0"],
        ["--record", "/"],
        ["--record", "/no/such/folder/file", "--port", "0"],
        *(["--idle-timeout", each] for each in ("soon", "-1", "1x", "nan", "inf", "9" * 400)),
        ["--no-such-option"],
        ["an-argument"],
    ],
    "dworker": [
        *([each] for each in ("nonsense:port", "a:0", "a:99999", "u@h:1", "a b:1", "[::1", "::1:80", "a\x1bb:1")),
        *(["a:1", "--nthreads", each] for each in ("x", "-1", "1e9", "999999999999")),
        *(["a:1", "--nprocs", each] for each in ("0", "-1", "x", "99999999")),
        *(["a:1", "--worker-port", each] for each in ("x", "-1", "65536")),
        *(["a:1", "--memory-limit", each] for each in ("much", "-1", "nan", "1e400", "9" * 400, "5XB")),
        *(["a:1", "--death-timeout", each] for each in ("x", "-1", "nan")),
        *(["a:1", "--reconnect-timeout", each] for each in ("x", "-1", "nan")),
        ["a:1", "--preload", "no_such_module_anywhere"],
        ["a:1", "--preload", "no_such_module_anywhere", "--no-nanny"],
        ["a:1", "--preload-nanny", "no_such_module_anywhere"],
        ["127.0.0.1:1", "--local-directory", "/dev/null/folder", "--no-nanny"],
        *(["a:1", "--resources", each] for each in ("GPU", "GPU=nan", "GPU=inf", "GPU=-1", "=1", "GPU=1 GPU=1")),
        *(["a:1", "--env", each] for each in ("NAME", "=x", "1X=2", "A B=1")),
        *(["a:1", "--lifetime", each] for each in ("x", "-1s", "nan", "9" * 400)),
        *(["a:1", "--lifetime", "5m", "--lifetime-stagger", each] for each in ("x", "6m")),
        ["a:1", "--scheduler-file", "/"],
        ["a:1", "--credential", "/"],
        ["a:1", "--local-directory", __file__],
        ["a:1", "--name", " "],
        ["a:1", "--nprocs", "2", "--worker-port", "5000"],
    ],
    "dcluster": [
        [],
        ["--hostfile", "/no/such/file"],
        ["--hostfile", "/"],
        ["a host"],
        ["a:b"],
        ["h", "--scheduler", "u@"],
        *(["h", "--scheduler-port", each] for each in ("x", "65536")),
        *(["h", "--ssh-port", each] for each in ("0", "x")),
        ["h", "--nthreads", "-1"],
        ["h", "--nprocs", "0"],
        *(["h", "--memory-limit", each] for each in ("much", "-1", "nan")),
        ["h", "--ssh-private-key", "/"],
        ["h", "--credential", "/"],
        ["192.168.0.{1,2}"],
    ],
    "dec2": [
        *(["up", "--count", each] for each in ("x", "-1", "0", "1.5")),
        ["up", "--provider", "moon"],
        ["up", "--engine", "steam"],
        ["up", "--no-such-option"],
        ["up", "--name"],
        ["no-such-command"],
        ["run"],
        ["run", "/no/such/script.py"],
    ],
}


#: Their values are names that only others can know.
NAMES = {"--host", "--ssh-username", "--remote-python", "--log-directory", "--name"}


@pytest.mark.parametrize("command", ["dscheduler", "dworker", "dcluster"])
def test_no_option_is_left_out(command: str) -> None:
    main = importlib.import_module(f"distributed_core.cli.{command}").main
    tried = {word for options in WRONG[command] for word in options}
    taking = {each.opts[0] for each in main.params if each.opts[0].startswith("-") and not each.is_flag}
    assert taking - NAMES <= tried


@pytest.mark.parametrize("command", WRONG)
def test_every_option_with_bad_values(command: str) -> None:
    """Each is run as a command, four at a time: exit code 2, and one line that says what is wrong."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda options: run(command, *options), WRONG[command]))
    for options, done in zip(WRONG[command], outcomes, strict=True):
        said = [line for line in done.stderr.splitlines() if not line.startswith(("Usage: ", "Try '"))]
        assert done.returncode == 2, (options, done.stderr)
        if options:
            assert len([line for line in said if line.strip()]) == 1, (options, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"DISTRIBUTED_CORE_EVENT_LOOP": "turbo"}, 2),
        ({"DISTRIBUTED_CORE_EVENT_LOOP": ""}, 2),
        ({"DISTRIBUTED_CORE_CREDENTIAL": "/"}, 1),
        ({"DISTRIBUTED_CORE_CREDENTIAL": "/dev/null/file"}, 1),
        ({"DISTRIBUTED_CORE_CREDENTIAL": "~nobody-has-this-name/x"}, 1),
        ({"DISTRIBUTED_CORE_CREDENTIAL": "", "XDG_CONFIG_HOME": "/dev/null"}, 1),
    ],
)
@pytest.mark.parametrize("command", ["dscheduler", "dworker"])
def test_environment_variables(command: str, environment: dict[str, str], code: int) -> None:
    own = ["--port", "0"] if command == "dscheduler" else ["127.0.0.1:1", "--death-timeout", "0.1", "--no-nanny"]
    done = run(command, *own, **environment)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


def test_the_loop_of_the_environment(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setenv(loops.VARIABLE, "turbo")

    async def main() -> None:
        return None

    with pytest.raises(UsageError, match="turbo"):
        loops.run(main())
    assert not recwarn.list


@inputs(200)
@given(st.one_of(st.text(max_size=20), st.binary(max_size=20)))
def test_hostfiles(content: str | bytes) -> None:
    """200 contents by default: hosts that parse, or a sentence."""
    path = Path(tempfile.gettempdir()) / f"hostfile-{os.getpid()}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="replace"))
    try:
        for host in read_hostfile(str(path)):
            split_host(host, SSHOptions())
    except EngineError as error:
        said = str(error)
        assert "\n" not in said
    finally:
        path.unlink()

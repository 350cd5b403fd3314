"""Which private key opens the nodes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dec2.errors import WrongUsage
from dec2.ssh import find_private_key, new_host_key

KINDS = {"ed25519": (), "rsa": ("-b", "2048"), "ecdsa": ("-b", "256"), "rsa-pem": ("-b", "2048", "-m", "PEM")}


def made(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Make a key pair; return the public line."""
    type_ = kind.partition("-")[0]
    argv = ["ssh-keygen", "-q", "-t", type_, *KINDS[kind], "-N", passphrase, "-C", "somebody", "-f", str(path)]
    subprocess.run(argv, check=True)
    return Path(f"{path}.pub").read_text()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_file(home: Path, kind: str) -> None:
    public = made(home / "mine", kind)
    assert find_private_key("pair", public, str(home / "mine")) == str(home / "mine")
    assert find_private_key("pair", public, "~/mine") == str(home / "mine")


@pytest.mark.parametrize("name", ["pair.pem", "pair"])
def test_where_ssh_keeps_keys(home: Path, name: str) -> None:
    public = made(home / ".ssh" / name)
    assert find_private_key("pair", public, None) == str(home / ".ssh" / name)


def test_a_file_of_that_name_with_another_key_is_passed_over(home: Path) -> None:
    made(home / ".ssh" / "pair.pem")
    public = made(home / ".ssh" / "pair")
    assert find_private_key("pair", public, None) == str(home / ".ssh" / "pair")


def test_nowhere_is_one_sentence(home: Path) -> None:
    made(home / ".ssh" / "id_ed25519")
    with pytest.raises(WrongUsage, match=r"not in your SSH agent, ~/.ssh/pair.pem or ~/.ssh/pair; .* --keypair FILE"):
        find_private_key("pair", new_host_key()[1], None)


def test_a_named_file_of_another_pair(home: Path) -> None:
    made(home / "other")
    with pytest.raises(WrongUsage, match="is not the private key of the key pair pair"):
        find_private_key("pair", new_host_key()[1], str(home / "other"))


@pytest.mark.parametrize("content", [None, b"", b"no key\n", b"\xff\xfe\x00", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_named_file_that_is_no_key(home: Path, content: bytes | None) -> None:
    if content is not None:
        (home / "mine").write_bytes(content)
    with pytest.raises(WrongUsage, match="is no private key"):
        find_private_key("pair", new_host_key()[1], str(home / "mine"))


def test_a_key_with_a_passphrase_needs_the_agent(home: Path) -> None:
    public = made(home / "mine", passphrase="open sesame")
    with pytest.raises(WrongUsage, match="without a passphrase"):
        find_private_key("pair", public, str(home / "mine"))


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    socket = home / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert str(socket) in process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield socket
    process.terminate()
    process.wait(10)
    process.stdout.close()


def test_the_agent_comes_first(home: Path, agent: Path) -> None:
    public = made(home / ".ssh" / "pair")
    assert find_private_key("pair", public, None) == str(home / ".ssh" / "pair")
    subprocess.run(["ssh-add", "-q", str(home / ".ssh" / "pair")], check=True, env=os.environ.copy())
    assert find_private_key("pair", public, None) is None


def test_a_named_file_comes_before_the_agent(home: Path, agent: Path) -> None:
    public = made(home / "mine")
    subprocess.run(["ssh-add", "-q", str(home / "mine")], check=True, env=os.environ.copy())
    assert find_private_key("pair", public, str(home / "mine")) == str(home / "mine")

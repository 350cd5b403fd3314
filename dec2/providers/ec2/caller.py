"""What dec2 on EC2 asks of the machine that it runs on: its public address, and a private cache for each cluster.

The cache holds nothing that cannot be found again by the tags and over SSH.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import urllib.request
from pathlib import Path

from dec2.errors import ProviderError, WrongUsage

CALLER_ENVIRONMENT = "DEC2_CALLER_CIDR"
CALLER_SERVICE = "https://checkip.amazonaws.com"


def caller_cidr() -> str:
    """Return the only address that may reach port 22: the environment's word, or what an AWS service sees of us."""
    named = os.environ.get(CALLER_ENVIRONMENT)
    hint = f"set {CALLER_ENVIRONMENT}=ADDRESS/32"
    try:
        if named:
            return str(ipaddress.IPv4Network(named))
        with urllib.request.urlopen(CALLER_SERVICE, timeout=10) as answer:
            return str(ipaddress.IPv4Network(answer.read(100).decode().strip()))
    except OSError as error:
        raise ProviderError(f"your public address cannot be found ({error}); {hint}") from None
    except ValueError as error:
        if named:
            raise WrongUsage(f"{CALLER_ENVIRONMENT} is no IPv4 network: {error}; {hint}") from None
        raise ProviderError(f"{CALLER_SERVICE} gave no IPv4 address ({error}); {hint}") from None


def folder(region: str, group: str) -> Path:
    """Return the cache of a cluster on this machine; its name dies with the group."""
    made = _state_home() / f"{region}-{group}"
    made.mkdir(parents=True, exist_ok=True, mode=0o700)
    return made


def forget(region: str, group: str) -> None:
    """Remove the cache of a cluster that is gone."""
    gone = _state_home() / f"{region}-{group}"
    for each in gone.glob("*"):
        each.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        gone.rmdir()


def _state_home() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "dec2" / "ec2"


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner only."""
    os.replace(_beside(path, content), path)


def write_once(path: Path, content: bytes) -> None:
    """Write a file unless somebody else was first: then theirs counts, for both."""
    temporary = _beside(path, content)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _beside(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return temporary

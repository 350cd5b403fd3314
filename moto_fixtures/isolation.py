"""The throw-away namespace: own network, mounts and processes, which all end with the process that made it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from moto_fixtures import host, image
from moto_fixtures.errors import HostLacking
from moto_fixtures.region import MARKER

# The first process of the namespace.  A shell, because it collects orphans and leaves all signals to the command.
_FIRST = 'ip link set lo up; "$@"; exit $?'


def run_isolated(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command in a throw-away namespace; its exit code, or 128 + n if signal n ended it.

    Builds the base image first, since the namespace has no network.  The namespace and all in it die with this process,
    by whatever signal it ends.  Raises HostLacking and ImageBuildFailed.
    """
    lacking = host.missing()
    if lacking:
        raise HostLacking(f"This computer cannot carry machines: {lacking}")
    image.build()
    return run_apart(command, environment)


def run_apart(command: Sequence[str], environment: Mapping[str, str] | None = None, output: int | None = None) -> int:
    """As `run_isolated`, for a command that needs no machines: no image is built, and nothing is checked.

    output: a descriptor for what the command writes; by default it goes where that of this process goes.
    """
    # unshare ignores SIGTERM and outlives its parent; setpriv lets the kernel kill it with this process, and
    # --kill-child goes on from there to the first process of the namespace, whose end is the end of everything in it.
    wrapper = ["setpriv", "--pdeathsig", "KILL", *host.UNSHARE, "--", "sh", "-c", _FIRST, "sh", *command]
    inside = {**os.environ, **(environment or {}), MARKER: "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(wrapper, env=inside, stdout=output)
    with _forwarding(process):
        code = process.wait()
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the namespace on SIGTERM and SIGHUP; leave Ctrl-C to the command, which gets it from the terminal."""

    def end(number: int, frame: FrameType | None) -> None:
        process.kill()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]

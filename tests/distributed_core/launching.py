"""Start the engine's commands as real processes, wait for their lines, and see them end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0


class Launched:
    """A command that runs."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=file, text=True)

    def line(self) -> str:
        """Return its next line; end of output is an error."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            raise AssertionError(f"it ended with {self.process.wait(DEADLINE_S)}: {self.errors()}")
        return text.rstrip("\n")

    def errors(self) -> str:
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Launcher:
    """Starts commands and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Launched] = []

    def start(self, command: str, *options: str) -> Launched:
        log = self.folder / f"{len(self.all)}-{command}.log"
        launched = Launched([str(BIN / command), *options], log)
        self.all.append(launched)
        return launched

    def scheduler(self, *options: str) -> tuple[Launched, str]:
        """Start a scheduler on a free port of loopback; return it and its address."""
        launched = self.start("dscheduler", "--host", "127.0.0.1", "--port", "0", *options)
        words = launched.line().split()
        assert words[:3] == ["Start", "scheduler", "at"], words
        return launched, words[3]

    def worker(self, address: str, *options: str) -> Launched:
        """Start a worker and wait until it is registered."""
        launched = self.start("dworker", address, *options)
        assert launched.line().startswith("Start worker at: ")
        assert launched.line() == f"Registered with center at: {address}"
        return launched

    def close(self) -> None:
        for launched in reversed(self.all):
            if launched.process.poll() is None:
                launched.process.kill()
            launched.process.wait(DEADLINE_S)
            if launched.process.stdout is not None:
                launched.process.stdout.close()


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    made = Launcher(folder)
    try:
        yield made
    finally:
        made.close()

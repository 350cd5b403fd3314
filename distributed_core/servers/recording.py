"""`dscheduler --record FILE`: what happened to the scheduler's machine, line by line, so that it can be done again.

The file begins with the settings and then has a line for each event. It goes back to the start, because only from there
is the state known; so when the file is full the recording ends, with a line that says so. The file is readable by its
owner only: the names of tasks are in it. `machines/scheduler/journal.py` says what is left out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from distributed_core.errors import UsageError
from distributed_core.machines.scheduler import SchedulerMachine
from distributed_core.machines.scheduler.journal import Journal, digest

logger = logging.getLogger(__name__)

FORMAT = 1
BYTES_MAX = 256 << 20
"""A recording ends at this size: some million events."""
BUFFER_BYTES = 64 << 10
FLUSH_INTERVAL_S = 0.2


class Recording:
    """A file that the events of a machine go to.

    Parameters
    ----------
    path
        The file; one that is there is replaced.
    machine
        Whose events; it must be new.
    bytes_max
        The size at which the recording ends.

    Raises
    ------
    UsageError
        The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], machine: SchedulerMachine, *, bytes_max: int = BYTES_MAX) -> None:
        self.path = os.path.abspath(path)
        #: How many events are in it.
        self.events = 0
        self.full = False
        self._machine = machine
        self._journal = Journal(os.urandom(16))
        self._left = bytes_max
        self._lines: list[str] = []
        self._size = 0
        try:
            # A file that was there may be open to others, or be a link: it is replaced, not written into.
            if os.path.lexists(self.path):
                os.unlink(self.path)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"--record {path} cannot be written ({error.strerror}); choose another place") from None
        self._write(json.dumps({"format": FORMAT, "settings": asdict(machine.settings)}))
        self._handle = machine.handle
        machine.handle = self._record  # type: ignore[method-assign]

    def _record(self, event: Any, now: float) -> Any:
        # What is written first is there even if the machine raises.
        try:
            self._write(json.dumps([now, *self._journal.event(event)], separators=(",", ":")))
            self.events += 1
        except Exception:
            logger.exception("an event could not be recorded: the recording ends")
            self.full = True
        if self.full:
            self.close()
        return self._handle(event, now)

    def _write(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        self._left -= len(line) + 1
        self.full = self._left <= 0
        if self._size >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._lines:
            text = "\n".join(self._lines) + "\n"
            self._lines, self._size = [], 0
            try:
                _write_all(self._file, text.encode())
            except OSError as error:
                logger.error("%s cannot be written (%s): the recording ends", self.path, error.strerror)
                self.full = True

    def flush_now_and_then(self, later: Callable[..., Any]) -> None:
        """Have what happened on the disk soon, also when little happens; `later(delay_s, action)` is the loop's."""
        if self._file >= 0:
            self.flush()
            later(FLUSH_INTERVAL_S, self.flush_now_and_then, later)

    def state(self) -> dict[str, Any]:
        """Return where the recording stands, and the digest that a replay of that many events has."""
        self.flush()
        return {"file": self.path, "events": self.events, "full": self.full, "digest": digest(self._machine.ledger)}

    def close(self) -> None:
        """End the recording; the machine goes on without."""
        if self._file < 0:
            return
        self._machine.handle = self._handle  # type: ignore[method-assign]
        if self.full:
            logger.warning("%s is full: the recording ends after %d events", self.path, self.events)
            self._lines.append(json.dumps({"ended": f"the recording was full after {self.events} events"}))
        self.flush()
        os.close(self._file)
        self._file = -1


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]

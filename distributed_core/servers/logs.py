"""The last lines that this process logged, for people who ask from afar."""

from __future__ import annotations

import logging
from collections import deque

LINES_MAX = 10_000
#: Where the records of a kind of server come from; a process may hold several kinds.
_OTHERS = {
    "Scheduler": (".servers.worker", ".servers.executor", ".servers.nanny", ".servers.errands"),
    "Worker": (".servers.scheduler", ".servers.extensions", ".servers.nanny"),
    "Nanny": (".servers.scheduler", ".servers.extensions", ".servers.worker", ".servers.executor"),
}


class RecentLines(logging.Handler):
    """Keeps the last `LINES_MAX` records of this package as (level, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        self._lines: deque[tuple[str, str, str]] = deque(maxlen=LINES_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append((record.name, record.levelname, self.format(record)))
        except Exception:
            self.handleError(record)
        # Python prints warnings by itself only where no handler is at all, and now there is this one.
        if record.levelno >= logging.WARNING and not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)

    def last(self, kind: str, n: int | None) -> list[list[str]]:
        """Return the last `n` lines (None: all that are kept) that concern a kind of server, as [level, text] each."""
        others = tuple("distributed_core" + name for name in _OTHERS.get(kind, ()))
        found = [[level, text] for name, level, text in list(self._lines) if not name.startswith(others)]
        return found if n is None else found[len(found) - min(n, len(found)) :]


recent = RecentLines()


def keep_recent() -> None:
    """Begin to keep the lines of this package."""
    log = logging.getLogger("distributed_core")
    if recent not in log.handlers:
        log.addHandler(recent)


def keep_informed() -> None:
    """In a process of our own: keep lines of level INFO too, and print what is a warning or worse, as before."""
    keep_recent()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
    logging.getLogger("distributed_core").setLevel(logging.INFO)

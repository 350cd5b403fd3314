"""What people see while nodes come up: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table


class Phases:
    """The phase of every node, as a context manager; call it with a node's name and its phase.

    Parameters
    ----------
    console
        Where to write; a live table is drawn only on a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._phases: dict[str, tuple[str, float]] = {}
        self._live: Live | None = None

    def __call__(self, node: str, phase: str) -> None:
        known = self._phases.get(node)
        if known is not None and known[0] == phase:
            return
        seconds = time.monotonic() - self._start
        self._phases[node] = (phase, seconds)
        if self._live is None:
            self._console.print(f"{seconds:6.1f} s  {node}  {phase}", highlight=False)
        else:
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("node", "phase"):
            table.add_column(title)
        table.add_column("seconds", justify="right")
        # With many nodes the table would scroll: one line per phase tells as much.
        if len(self._phases) > self._console.height - 4:
            counts: dict[str, int] = {}
            for phase, _ in self._phases.values():
                counts[phase] = counts.get(phase, 0) + 1
            for phase, count in counts.items():
                table.add_row(f"{count} nodes", phase, "")
            return table
        for node, (phase, seconds) in self._phases.items():
            table.add_row(node, phase, f"{seconds:.1f}")
        return table

    def __enter__(self) -> Phases:
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=8)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

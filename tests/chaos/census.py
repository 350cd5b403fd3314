"""Who lives, with how many descriptors and threads; and what is left when all are gone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.hosts import WORLD, command_of

#: What may come and go without being a leak: connections that are kept to peers, threads of a pool that grows once.
FILES_SLACK = 4
THREADS_SLACK = 6
TROUBLE = re.compile(
    r"Traceback \(most recent|Task exception was never|was never awaited|AssertionError|InvariantBroken|"
    r"Fatal Python|Exception ignored|Task was destroyed|Unclosed|ResourceWarning|a background task failed"
)
#: The stacks that the test itself asks a stuck client for.
OWN_STACKS = "Current thread"


@dataclass(frozen=True)
class Count:
    """Descriptors (without connections, and connections) and threads of one process."""

    files: int
    sockets: int
    threads: int


def count(pid: int) -> Count | None:
    """Return what a process has; None if it is gone."""
    files = sockets = 0
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(entry.path)
            except OSError:
                continue
            if target.startswith("socket:"):
                sockets += 1
            else:
                files += 1
        return Count(files, sockets, len(os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return None


class Census:
    """Compares the long-lived processes with what they were when they were first seen at rest."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._first: dict[tuple[str, int], Count] = {}

    def lived(self) -> dict[tuple[str, int], Count]:
        """Return the counts of scheduler, nannies and clients, by name and process."""
        pids = {
            (name, service.process.pid)
            for name, service in self._cluster.services.items()
            if service.process is not None and service.wanted
        }
        pids |= {(each.name, each.process.pid) for each in self._cluster.living_clients()}
        counted = {key: count(key[1]) for key in sorted(pids)}
        return {key: value for key, value in counted.items() if value is not None}

    def grown(self) -> list[str]:
        """Return which processes have more than when they were first seen at rest, as sentences."""
        found = []
        for key, now in self.lived().items():
            before = self._first.setdefault(key, now)
            for word, slack in (("files", 1), ("sockets", FILES_SLACK), ("threads", THREADS_SLACK)):
                had, has = getattr(before, word), getattr(now, word)
                if has > had + slack:
                    found.append(f"{key[0]} (process {key[1]}) has {has} {word} at rest and had {had}")
        return found


def troubles() -> list[str]:
    """Return lines of logs that tell of an error that nobody handled."""
    found = []
    for log in sorted((WORLD / "logs").glob("*.log")):
        for number, line in enumerate(log.read_text(errors="replace").splitlines(), 1):
            if TROUBLE.search(line):
                found.append(f"{log.name}:{number}: {line[:200]}")
    return found


def remains(cluster: Cluster) -> list[str]:
    """Return what is left when everything has been told to end: processes, connections, files."""
    found = []
    for host in cluster.hosts.values():
        found += [f"{host.name}: process {pid} lives: {command_of(pid)[:150]}" for pid in host.pids()]
        found += [f"{host.name}: connection {line}" for line in cluster.network.connections(host)]
        for folder, folders, files in os.walk(host.disk):
            place = Path(folder).relative_to(host.disk)
            found += [f"{host.name}: file {place / name}" for name in files]
            found += [f"{host.name}: folder {place / name}" for name in folders if place / name != Path("local")]
    return found

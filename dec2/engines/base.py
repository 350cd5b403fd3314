"""What an engine is to dec2: one file that says what to install, how to start it, how to ask it, how to connect.

`python` in the methods is the interpreter on the node; the results are argument vectors, run there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine's part runs on a node.

    Attributes
    ----------
    python
        The interpreter with the engine installed.
    host
        The address to listen on.
    port
        The scheduler's port; 0 is any free one.
    scheduler_file
        Where the scheduler writes its address.
    scheduler_address
        HOST:PORT, where workers cannot read the file; else None.
    credential
        The cluster's credential file.
    """

    python: str
    host: str
    port: int
    scheduler_file: str
    scheduler_address: str | None
    credential: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one worker node offers; 0 threads is one per core."""

    nthreads: int = 0
    nprocs: int = 1
    memory_limit: str = "auto"


class Engine(ABC):
    """One engine."""

    name: str
    port: int

    @abstractmethod
    def require(self) -> None:
        """Check that this machine can talk to the engine.

        Raises
        ------
        EngineMissing
            Its package is not installed here.
        """

    @abstractmethod
    def requirements(self) -> tuple[str, ...]:
        """Return what the nodes install from an index or a wheelhouse, besides dec2's own wheel."""

    @abstractmethod
    def new_credential(self) -> bytes:
        """Return a new secret for a cluster, as it lies in its file."""

    @abstractmethod
    def scheduler_command(self, place: Place) -> tuple[str, ...]:
        """Return what starts the scheduler."""

    @abstractmethod
    def worker_command(self, place: Place, name: str, capacity: Capacity) -> tuple[str, ...]:
        """Return what starts a worker that registers as `name`; see `worker_names` for several processes."""

    def worker_names(self, name: str, nprocs: int) -> tuple[str, ...]:
        """Return the names under which the processes of `worker_command` register."""
        return (name,) if nprocs == 1 else tuple(f"{name}-{number}" for number in range(nprocs))

    @abstractmethod
    def question(self, place: Place) -> tuple[str, ...]:
        """Return what asks the scheduler who is registered; `registered` reads its output."""

    @abstractmethod
    def registered(self, output: str) -> tuple[str, ...]:
        """Return the names of the registered workers.

        Raises
        ------
        ValueError
            The output is no answer.
        """

    @abstractmethod
    def connect(self, address: str, credential: str, *, direct: bool, asynchronous: bool = False) -> Any:
        """Return the engine's client. `direct` tells whether the workers' own addresses can be reached from here."""

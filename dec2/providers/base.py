"""The contract of a provider: where nodes come from, and how they are reached.

Every method may be called again after a crash at any point: what exists is found and adopted, and never made twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dec2.engines.base import Engine, Place
from dec2.inventory import Inventory, Node
from dec2.plan import LaunchScheduler, LaunchWorkers
from dec2.spec import ClusterSpec

Tell = Callable[[str, str], None]
"""Called with a node's name and the phase that it is in now: `launched`, `booting`, `installing`, `starting`, ..."""


Question = Callable[[Place], tuple[str, ...]]
"""From where an engine's part runs to the command that asks it."""

_QUESTION_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Connection:
    """How a client reaches the scheduler from here. `direct`: the workers' own addresses can be reached too."""

    address: str
    credential: str
    direct: bool


class Provider(ABC):
    """Makes, finds and ends nodes."""

    name: str

    @abstractmethod
    def preflight(self, spec: ClusterSpec) -> None:
        """Check, before anything is made, what can be checked.

        Raises
        ------
        WrongUsage, ProviderError
            In one sentence, with what mends it.
        """

    @abstractmethod
    def observe(self, name: str) -> Inventory:
        """Return what exists of a cluster; an inventory without group and nodes if nothing does."""

    def refresh(self, inventory: Inventory) -> Inventory:
        """Look at the nodes of a cluster again, as cheaply as it goes."""
        return self.observe(inventory.name)

    @abstractmethod
    def leftovers(self, name: str) -> tuple[str, ...]:
        """Look everywhere for what belongs to a cluster; return the names of all that is still there."""

    @abstractmethod
    def clusters(self) -> list[Inventory]:
        """Return all clusters here."""

    @abstractmethod
    def ensure_group(self, spec: ClusterSpec, engine: Engine) -> None:
        """Make the group, with the engine's name and a credential, or adopt it."""

    @abstractmethod
    def launch_scheduler(self, spec: ClusterSpec, engine: Engine, action: LaunchScheduler, tell: Tell) -> None:
        """Make the scheduler's node; return as soon as its address is known."""

    @abstractmethod
    def launch_workers(self, spec: ClusterSpec, engine: Engine, action: LaunchWorkers, tell: Tell) -> None:
        """Make the worker nodes, all in one go."""

    @abstractmethod
    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        """Bring the nodes what they need, and see to it that the engine starts on each."""

    @abstractmethod
    def converse(self, inventory: Inventory, engine: Engine, question: Question, timeout_s: float) -> str | None:
        """Run what `question` gives where it reaches the scheduler; return its output, or None without a scheduler."""

    def registered(self, inventory: Inventory, engine: Engine) -> tuple[str, ...] | None:
        """Ask the scheduler itself which workers are registered; None if it does not answer yet."""
        output = self.converse(inventory, engine, engine.question, _QUESTION_TIMEOUT_S)
        try:
            return None if output is None else engine.registered(output)
        except ValueError:
            return None

    @abstractmethod
    def log_tail(self, inventory: Inventory, node: Node, lines: int) -> str:
        """Return the end of what the node's engine, or its bootstrap, wrote."""

    @abstractmethod
    def remove(self, inventory: Inventory, ids: tuple[str, ...]) -> None:
        """End nodes; return when they are gone."""

    @abstractmethod
    def delete_group(self, inventory: Inventory) -> None:
        """Delete the group."""

    @abstractmethod
    def connection(self, inventory: Inventory) -> AbstractContextManager[Connection]:
        """Return a context manager of how to reach the scheduler; it keeps up what that needs."""

    @abstractmethod
    def shell(self, inventory: Inventory, node: Node) -> tuple[str, ...]:
        """Return the command that opens a shell on a node."""

"""What exists: the nodes of a cluster and what belongs to them, as a provider found them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SCHEDULER = "scheduler"
WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Node:
    """One instance.

    Attributes
    ----------
    id
        The provider's name for it.
    role
        `scheduler` or `worker`. The only node of a cluster of one is the scheduler's, and runs a worker too.
    index
        0 for the scheduler, 1, 2, ... for workers; unique in its cluster.
    state
        `pending`, `running`, `stopping`, `stopped` or `gone`.
    both
        The scheduler's node runs a worker as well.
    registers_as
        The name under which its worker registers.
    launched_at_s
        When it was started last, in seconds since 1970.
    """

    id: str
    role: str
    index: int
    state: str
    private_address: str | None = None
    public_address: str | None = None
    type: str | None = None
    both: bool = False
    registers_as: str = ""
    launched_at_s: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it is there, or about to be."""
        return self.state in ("pending", "running")


def node_name(cluster: str, index: int) -> str:
    """Return what people call a node."""
    return f"{cluster}-{index}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that exists of one cluster.

    Attributes
    ----------
    group
        What is made first and deleted last: a security group, or a folder; None if the cluster does not exist.
    engine
        The engine that the group's tags name.
    leftovers
        Other things that belong to it: volumes, interfaces, by the provider's names.
    options
        `ClusterSpec.lasting_options` of the `up` that made it, as far as the provider recorded them.
    keyname, username
        With which key pair the nodes were made, and who logs in to them.
    """

    name: str
    provider: str
    group: str | None = None
    engine: str | None = None
    nodes: tuple[Node, ...] = ()
    leftovers: tuple[str, ...] = ()
    region: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    keyname: str | None = None
    username: str | None = None

    @property
    def exists(self) -> bool:
        return self.group is not None or any(node.state != "gone" for node in self.nodes) or bool(self.leftovers)

    @property
    def present(self) -> tuple[Node, ...]:
        """The nodes that are not gone."""
        return tuple(node for node in self.nodes if node.state != "gone")

    @property
    def lost(self) -> tuple[Node, ...]:
        """The nodes that are gone and not replaced under the same index, as far as the provider still knows them."""
        replaced = {node.index for node in self.present}
        return tuple(node for node in self.nodes if node.state == "gone" and node.index not in replaced)

    @property
    def scheduler(self) -> Node | None:
        """The scheduler's node, if it is alive."""
        return next((node for node in self.nodes if node.role == SCHEDULER and node.alive), None)

    @property
    def workers(self) -> tuple[Node, ...]:
        """The nodes alive that run a worker."""
        return tuple(node for node in self.nodes if node.alive and (node.role == WORKER or node.both))

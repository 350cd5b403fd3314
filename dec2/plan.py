"""From what is wanted and what exists to what is to be done. Pure: no provider is asked here."""

from __future__ import annotations

from dataclasses import dataclass

from dec2.errors import WrongUsage
from dec2.inventory import WORKER, Inventory
from dec2.spec import ClusterSpec


@dataclass(frozen=True, slots=True)
class EnsureGroup:
    """Make what is made first and deleted last, or adopt it."""


@dataclass(frozen=True, slots=True)
class LaunchScheduler:
    """Make the scheduler's node; with `both`, a worker runs there too."""

    both: bool


@dataclass(frozen=True, slots=True)
class LaunchWorkers:
    """Make one worker node for each index."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Provision:
    """Bring each node what it needs, and start the engine there."""


@dataclass(frozen=True, slots=True)
class AwaitRegistration:
    """Ask the scheduler until all these workers are registered."""

    workers: int


@dataclass(frozen=True, slots=True)
class RemoveNodes:
    """End these nodes."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """Delete what was made first."""


@dataclass(frozen=True, slots=True)
class ProveGone:
    """Look again: nothing of the cluster may be left."""


Action = (
    EnsureGroup
    | LaunchScheduler
    | LaunchWorkers
    | Provision
    | AwaitRegistration
    | RemoveNodes
    | DeleteGroup
    | ProveGone
)


def plan_up(spec: ClusterSpec, inventory: Inventory) -> tuple[Action, ...]:
    """Return what brings `inventory` to `spec`; a cluster that is already so is only verified.

    Raises
    ------
    WrongUsage
        What exists does not fit what is wanted, and dec2 would have to end nodes.
    """
    if inventory.engine is not None and inventory.engine != spec.engine:
        raise WrongUsage(f"the cluster {spec.name} runs {inventory.engine}; destroy it first, or choose another --name")
    lasting = spec.lasting_options()
    changed = [name for name, value in inventory.options.items() if lasting.get(name) != value]
    if changed and any(node.alive for node in inventory.nodes):
        option = changed[0].removesuffix("_gb").replace("_", "-")
        text = f"the nodes of {spec.name} have --{option} {inventory.options[changed[0]]}"
        raise WrongUsage(f"{text}; for another one destroy the cluster first, or choose another --name")
    if any(node.state in ("stopping", "stopped") for node in inventory.nodes):
        raise WrongUsage(f"the cluster {spec.name} is stopped; destroy it first, or choose another --name")
    scheduler = inventory.scheduler
    both = spec.count == 1
    wanted = 0 if both else spec.count - 1
    present = sorted(node.index for node in inventory.nodes if node.role == WORKER and node.alive)
    if len(present) > wanted or (scheduler is not None and scheduler.both and not both):
        have = len(present) + (scheduler is not None)
        text = f"the cluster {spec.name} has {have} instances and {spec.count} are wanted"
        raise WrongUsage(
            f"{text}; dec2 up adds workers but takes none away: destroy it first, or choose another --name"
        )
    actions: list[Action] = [EnsureGroup()]
    stale: tuple[str, ...] = ()
    if scheduler is None:
        # Workers of a scheduler that is gone know its address, and its address went with it.
        stale = tuple(node.id for node in inventory.nodes if node.role == WORKER and node.alive)
        present = []
        if stale:
            actions.append(RemoveNodes(stale))
        actions.append(LaunchScheduler(both))
    # Indices go on from the highest ever seen, so that a name never means two machines.
    first = max((node.index for node in inventory.nodes), default=0) + 1
    missing = tuple(range(first, first + wanted - len(present)))
    if missing:
        actions.append(LaunchWorkers(missing))
    return (*actions, Provision(), AwaitRegistration(spec.workers))


def plan_destroy(inventory: Inventory) -> tuple[Action, ...]:
    """Return what ends a cluster: nodes first, the group last, then a look around."""
    ids = tuple(node.id for node in inventory.nodes if node.state != "gone")
    removal: tuple[Action, ...] = (RemoveNodes(ids),) if ids else ()
    return (*removal, DeleteGroup(), ProveGone())


__all__ = [
    "Action",
    "AwaitRegistration",
    "DeleteGroup",
    "EnsureGroup",
    "LaunchScheduler",
    "LaunchWorkers",
    "ProveGone",
    "Provision",
    "RemoveNodes",
    "plan_destroy",
    "plan_up",
]

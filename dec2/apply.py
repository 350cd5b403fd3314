"""Carry out a plan. Every action is safe to repeat: what it makes is looked for first, what it ends may be gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from dec2.engines.base import Engine
from dec2.errors import NotGone, NotRegistered
from dec2.inventory import Inventory, node_name
from dec2.plan import (
    Action,
    AwaitRegistration,
    DeleteGroup,
    EnsureGroup,
    LaunchScheduler,
    LaunchWorkers,
    ProveGone,
    Provision,
    RemoveNodes,
    plan_destroy,
    plan_up,
)
from dec2.providers.base import Provider, Tell
from dec2.spec import ClusterSpec

_FIRST_POLL_S = 0.1
_POLL_MAX_S = 2.0
_TAIL_LINES = 12


@dataclass(slots=True)
class UpReport:
    """What `bring_up` did: the cluster as it is now, and the seconds of each phase.

    `expected` are the indices of the nodes that were there or were launched: one of them that is gone is a failure.
    """

    inventory: Inventory
    registered: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    expected: set[int] = field(default_factory=set)


def bring_up(spec: ClusterSpec, provider: Provider, engine: Engine, tell: Tell) -> UpReport:
    """Make what is wanted, and return once the scheduler itself says that all workers are registered.

    Raises
    ------
    NotRegistered
        Some are not, after the deadline; they are named with the tail of their logs. What was made stays.
    Dec2Error
        The plan cannot be carried out.
    """
    engine.require()
    provider.preflight(spec)
    deadline = time.monotonic() + spec.timeout_s
    report = UpReport(provider.observe(spec.name))
    report.expected = {node.index for node in report.inventory.nodes if node.alive}
    for action in plan_up(spec, report.inventory):
        start = time.monotonic()
        _perform_up(action, spec, provider, engine, tell, deadline, report)
        name = type(action).__name__
        report.seconds[name] = round(report.seconds.get(name, 0.0) + time.monotonic() - start, 3)
    report.inventory = provider.observe(spec.name)
    return report


def _perform_up(
    action: Action,
    spec: ClusterSpec,
    provider: Provider,
    engine: Engine,
    tell: Tell,
    deadline: float,
    report: UpReport,
) -> None:
    if isinstance(action, EnsureGroup):
        provider.ensure_group(spec, engine)
    elif isinstance(action, LaunchScheduler):
        provider.launch_scheduler(spec, engine, action, tell)
        report.expected.add(0)
    elif isinstance(action, LaunchWorkers):
        provider.launch_workers(spec, engine, action, tell)
        report.expected.update(action.indices)
    elif isinstance(action, RemoveNodes):
        provider.remove(report.inventory, action.ids)
        report.expected -= {node.index for node in report.inventory.nodes if node.id in action.ids}
    elif isinstance(action, Provision):
        provider.provision(spec, engine, tell)
    elif isinstance(action, AwaitRegistration):
        report.registered = await_registration(spec, provider, engine, tell, deadline, report.expected)


def expected_names(inventory: Inventory, engine: Engine, nprocs: int) -> dict[str, str]:
    """Return the names that must register, with the name of the node that each is on."""
    return {
        name: node_name(inventory.name, node.index)
        for node in inventory.workers
        for name in engine.worker_names(node.registers_as, nprocs)
    }


def await_registration(
    spec: ClusterSpec, provider: Provider, engine: Engine, tell: Tell, deadline: float, expected: Set[int]
) -> tuple[str, ...]:
    """Ask the scheduler until every wanted worker is registered; return their names.

    Raises
    ------
    NotRegistered
        The deadline passed, or one of the `expected` nodes is gone: no waiting brings that one back.
    """
    poll_s = _FIRST_POLL_S
    told: set[str] = set()
    missed: set[int] = set()
    while True:
        inventory = provider.observe(spec.name)
        wanted = expected_names(inventory, engine, spec.nprocs)
        answer = provider.registered(inventory, engine)
        if answer is not None:
            tell(node_name(spec.name, 0), "running")
        present = set(answer or ())
        for name in sorted(wanted.keys() & present - told):
            if wanted[name] != node_name(spec.name, 0):
                tell(wanted[name], "registered")
            told.add(name)
        late = list(dict.fromkeys(wanted[name] for name in wanted if name not in present))
        lost = {node.index for node in inventory.lost if node.index in expected}
        if not late and not lost and len(inventory.workers) >= spec.workers:
            return tuple(wanted)
        over = time.monotonic() >= deadline
        # Missed once may be a process that is just replacing its program: its marks cannot be read then.
        gone = [node_name(spec.name, index) for index in sorted(lost if over else lost & missed)]
        missed = lost
        for name in gone:
            tell(name, "gone")
        if gone or over:
            raise _not_registered(spec, provider, inventory, late, gone)
        # The provider has no event to wait for; the pause grows, and the deadline ends it.
        time.sleep(poll_s)
        poll_s = min(_POLL_MAX_S, poll_s * 1.5)


def _not_registered(
    spec: ClusterSpec, provider: Provider, inventory: Inventory, late: list[str], gone: list[str]
) -> NotRegistered:
    by_name = {node_name(spec.name, node.index): node for node in inventory.nodes}
    named = list(dict.fromkeys([*gone, *late]))
    tails = {name: provider.log_tail(inventory, by_name[name], _TAIL_LINES) for name in named}
    present = sum(node_name(spec.name, node.index) not in late for node in inventory.workers)
    happened = (
        f"{', '.join(gone)} ended"
        if gone
        else f"{present} of {spec.workers} workers registered within {spec.timeout_s:g} s"
    )
    unseen = spec.workers - len(inventory.workers) - len(gone)
    missing = [*named, *([f"{unseen} instances that are not there"] if unseen > 0 else [])]
    text = (
        f"{happened}; missing: {', '.join(missing)}; what was made is still there: run dec2 up again, "
        f"or dec2 destroy {spec.name}"
    )
    return NotRegistered(text, tails)


def tear_down(name: str, provider: Provider, say: Callable[[str], None]) -> None:
    """End a cluster, and prove that nothing of it is left.

    Raises
    ------
    NotGone
        Something is; it is named.
    """
    inventory = provider.observe(name)
    for action in plan_destroy(inventory):
        if isinstance(action, RemoveNodes):
            count = len(action.ids)
            say(f"ending {count} {'instance' if count == 1 else 'instances'}")
            provider.remove(inventory, action.ids)
        elif isinstance(action, DeleteGroup):
            provider.delete_group(provider.observe(name))
        elif isinstance(action, ProveGone):
            left = provider.leftovers(name)
            if left:
                raise NotGone(f"of {name} there is still: {', '.join(left)}; run dec2 destroy again")

"""Plans are data: what is wanted and what exists in, actions out."""

from __future__ import annotations

import pytest

from dec2.errors import WrongUsage
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node
from dec2.plan import (
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
from dec2.spec import ClusterSpec

NOTHING = Inventory("c", "local")


def spec(count: int, **more: object) -> ClusterSpec:
    return ClusterSpec(name="c", provider="local", count=count, **more)  # type: ignore[arg-type]


def existing(*indices: int, both: bool = False, state: str = "running", engine: str = "core") -> Inventory:
    nodes = tuple(
        Node(f"i-{index}", WORKER if index else SCHEDULER, index, state, both=both and not index) for index in indices
    )
    return Inventory("c", "local", "g", engine, nodes)


def test_a_new_cluster() -> None:
    assert plan_up(spec(4), NOTHING) == (
        EnsureGroup(),
        LaunchScheduler(both=False),
        LaunchWorkers((1, 2, 3)),
        Provision(),
        AwaitRegistration(3),
    )


def test_a_cluster_of_one() -> None:
    assert plan_up(spec(1), NOTHING) == (EnsureGroup(), LaunchScheduler(both=True), Provision(), AwaitRegistration(1))


def test_up_twice_makes_nothing() -> None:
    assert plan_up(spec(3), existing(0, 1, 2)) == (EnsureGroup(), Provision(), AwaitRegistration(2))
    assert plan_up(spec(1), existing(0, both=True)) == (EnsureGroup(), Provision(), AwaitRegistration(1))


def test_what_is_missing_is_made() -> None:
    assert LaunchWorkers((4, 5)) in plan_up(spec(5), existing(0, 1, 3))
    assert LaunchWorkers((3, 4)) in plan_up(spec(5), existing(0, 1, 2))


def test_workers_of_a_scheduler_that_is_gone_go_too() -> None:
    assert plan_up(spec(3), existing(1, 2)) == (
        EnsureGroup(),
        RemoveNodes(("i-1", "i-2")),
        LaunchScheduler(both=False),
        LaunchWorkers((3, 4)),
        Provision(),
        AwaitRegistration(2),
    )


@pytest.mark.parametrize(
    ("wanted", "inventory", "text"),
    [
        (spec(2), existing(0, 1, 2), "has 3 instances and 2 are wanted"),
        (spec(3), existing(0, both=True), "has 1 instances and 3 are wanted"),
        (spec(3), existing(0, 1, state="stopped"), "is stopped"),
        (spec(3, engine="dask"), existing(0, 1), "runs core"),
    ],
)
def test_what_does_not_fit_is_refused(wanted: ClusterSpec, inventory: Inventory, text: str) -> None:
    with pytest.raises(WrongUsage, match=text):
        plan_up(wanted, inventory)


def test_destroy() -> None:
    assert plan_destroy(NOTHING) == (DeleteGroup(), ProveGone())
    assert plan_destroy(existing(0, 1)) == (RemoveNodes(("i-0", "i-1")), DeleteGroup(), ProveGone())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "No"}, "is no name for a cluster"),
        ({"count": 0}, "from 1 to"),
        ({"engine": "spark"}, "choose one of core, dask"),
        ({"provider": "ec2", "engine": "dask", "keyname": "k"}, "--provider local in this release"),
        ({"provider": "moon"}, "choose one of ec2, local"),
        ({"provider": "ec2"}, "--keyname NAME"),
    ],
)
def test_bad_specs(options: dict[str, object], text: str) -> None:
    with pytest.raises(WrongUsage, match=text):
        ClusterSpec(**{"name": "c", "provider": "local", **options})  # type: ignore[arg-type]


def test_the_sentence() -> None:
    assert spec(4).sentence() == "4 instances: 1 scheduler, 3 workers"
    assert spec(2).sentence() == "2 instances: 1 scheduler, 1 worker"
    assert spec(1).sentence() == "1 instance: scheduler and worker in one"

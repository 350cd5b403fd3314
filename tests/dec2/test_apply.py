"""Waiting for workers, with a provider that answers as it is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dec2 import apply
from dec2.engines import named
from dec2.errors import NotRegistered
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node
from dec2.spec import ClusterSpec

SPEC = ClusterSpec(name="a", provider="local", count=2)


class Told:
    """Shows the worker's node in these states, the last one for ever."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def observe(self, name: str) -> Inventory:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        nodes = (Node("s", SCHEDULER, 0, "running"), Node("w", WORKER, 1, state, registers_as="w"))
        return Inventory(name, "local", "group", nodes=nodes)

    def registered(self, inventory: Inventory, engine: Any) -> tuple[str, ...]:
        return tuple(node.registers_as for node in inventory.workers)

    def log_tail(self, inventory: Inventory, node: Node, lines: int) -> str:
        return "its log"


def awaited(provider: Any, deadline_s: float = 60.0) -> tuple[str, ...]:
    deadline = time.monotonic() + deadline_s
    return apply.await_registration(SPEC, provider, named("core"), lambda node, phase: None, deadline, {0, 1})


def test_a_node_that_is_missed_once_is_not_gone() -> None:
    assert awaited(Told("running", "running")) == ("w",)
    assert awaited(Told("gone", "running")) == ("w",)


@pytest.mark.parametrize("deadline_s", [60.0, 0.0])
def test_a_node_that_is_missed_twice_is_gone_and_so_is_one_at_the_deadline(deadline_s: float) -> None:
    with pytest.raises(NotRegistered, match="a-1 ended") as caught:
        awaited(Told("gone"), deadline_s)
    assert caught.value.missing == {"a-1": "its log"}

"""Machines on paper: instances change state without a machine, for fast tests of what talks to the API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moto_fixtures.boots import BootOutcome, BootPlan, Fate
from moto_fixtures.lifecycle import BootOrder, Lifecycle

#: The calls by which a client looks at instances.
LOOKS = ("DescribeInstances", "DescribeInstanceStatus")


@dataclass
class PaperMachine:
    """One instance without a machine behind it.

    order: what a real machine would have been started with; user_data is decoded.
    """

    order: BootOrder
    keeper: PaperMachines
    console: bytes = b""

    @property
    def user_data(self) -> bytes:
        """The user-data of the instance, decoded."""
        return self.order.user_data

    def shut_down(self) -> None:
        """The system of the machine powers itself off."""
        self.keeper.forget_plans(self.order.instance_id)
        self.keeper.lifecycle.machine_down(self.order.instance_id)

    def crash(self) -> None:
        """The hardware breaks: the API goes on saying `running`."""
        self.keeper.forget_plans(self.order.instance_id)
        self.keeper.lifecycle.machine_died(self.order.instance_id)


class PaperMachines:
    """Keeps instances without machines.

    settles: after how many looks of a client an instance has arrived in its next state; 0 is before the first look.
        Or a function of the instance id that says whether it has arrived; it is asked at each look.
    """

    lifecycle: Lifecycle

    def __init__(self, settles: int | Callable[[str], bool] = 1) -> None:
        self.machines: dict[str, PaperMachine] = {}
        self.boots = BootPlan()
        self._settles = settles
        self._plans: dict[str, tuple[int, Callable[[str], None]]] = {}

    def boot(self, order: BootOrder) -> None:
        """Plan to arrive in `running`, or wherever the plan of boots says."""
        outcome = BootOutcome()
        if order.instance_id in self.machines:
            self.machines[order.instance_id].order = order
        else:
            self.machines[order.instance_id] = PaperMachine(order, self)
            outcome = self.boots.next()
        if outcome.fate is Fate.DIES:
            self._plan(order.instance_id, self.lifecycle.machine_failed)
        elif outcome.fate is Fate.RUNS:
            self._plan(order.instance_id, self.lifecycle.machine_up, outcome.looks_more)

    def power_off(self, instance_id: str) -> None:
        """Plan to be gone."""
        self._plan(instance_id, self.lifecycle.machine_down)

    def reboot(self, instance_id: str) -> None:
        """Nothing to see: EC2 says `running` during a reboot."""

    def discard(self, instance_id: str) -> None:
        """Keep the record, so that a test can look at it afterwards."""
        self._plans.pop(instance_id, None)

    def console(self, instance_id: str) -> bytes:
        """What a test put there."""
        return self.machines[instance_id].console if instance_id in self.machines else b""

    def look(self) -> None:
        """A client is about to look: carry out what is due, and count the look for the rest."""
        for instance_id, (looks_left, arrive) in list(self._plans.items()):
            due = self._settles(instance_id) if callable(self._settles) else looks_left <= 0
            if due:
                self._plans.pop(instance_id, None)
                arrive(instance_id)
            else:
                self._plans[instance_id] = (looks_left - 1, arrive)

    def settle(self) -> None:
        """Let everything arrive now."""
        while self._plans:
            instance_id, (_, arrive) = next(iter(self._plans.items()))
            del self._plans[instance_id]
            arrive(instance_id)

    def forget_plans(self, instance_id: str) -> None:
        """What was planned for an instance does not happen."""
        self._plans.pop(instance_id, None)

    def _plan(self, instance_id: str, arrive: Callable[[str], None], looks_more: int = 0) -> None:
        looks = looks_more if callable(self._settles) else self._settles + looks_more
        self._plans[instance_id] = (looks, arrive)

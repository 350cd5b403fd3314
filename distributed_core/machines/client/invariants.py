"""What must hold in a client between any two events."""

from __future__ import annotations

from collections import Counter

from distributed_core.errors import InvariantBroken
from distributed_core.machines.client.futures import PENDING
from distributed_core.machines.client.machine import ClientMachine


def check(machine: ClientMachine) -> None:
    """Raise InvariantBroken where the client's books contradict each other."""
    lineage, window = machine.lineage, machine.window
    users: Counter[int] = Counter()
    for entry in lineage.entries.values():
        if type(entry) is list:
            users.update(entry[4])
    _demand(lineage.users == users, "the lineage miscounts who is made from what")
    for number in lineage.let_go:
        _demand(number in lineage.entries and number in users, f"{number} is let go of and kept for nothing")
    for number, future in machine.futures.items():
        if future.status == PENDING and not machine.closed:
            _demand(number in lineage.entries, f"{number} is pending and would not be said again")
        _demand(number not in lineage.let_go, f"{number} is held and let go of")
    for number in lineage.entries:
        _demand(number in machine.futures or number in lineage.let_go, f"{number} would be said again for nobody")
    _demand(sum(window.open.values()) == window.open_bytes, "the window miscounts its bytes")
    _demand(not (window.waiting and not window.blocked), "tasks wait for room in no queue")
    for number in machine.vowed:
        _demand(number in lineage.entries, f"{number} is vowed and would not be said again")


def _demand(fact: bool, text: str) -> None:
    if not fact:
        raise InvariantBroken(text)

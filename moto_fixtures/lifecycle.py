"""The states of instances: what moto decides at once, as it happens on EC2, where machines take their time.

moto moves an instance to its final state within the call.  `Lifecycle.reconcile` runs after every call, sees what moto
changed, puts the instance into the state on the way (`pending`, `stopping`, `shutting-down`) and tells the machines.
The machines report back (`machine_up`, `machine_down`), and the instance arrives.
"""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from moto_fixtures.account import MotoAccount, MotoRegion

#: Memory of a machine, whatever its type promises, so that a few of them fit on a small computer.
MEMORY_BYTES_MAX = 1 << 30


@dataclass(frozen=True)
class BootOrder:
    """All that a machine needs to know to start.  Addresses as text; memory in bytes."""

    instance_id: str
    hostname: str
    private_ip: str
    public_ip: str | None
    mac: str
    user_data: bytes
    public_key: str | None
    memory_bytes_max: int


class MachineKeeper(Protocol):
    """What carries the machines.  Its methods return at once; what takes time is reported to the lifecycle."""

    def boot(self, order: BootOrder) -> None:
        """Start a machine, on the disk that it has if it was stopped before."""

    def power_off(self, instance_id: str) -> None:
        """Ask the system of a machine to shut down; use force after a grace period."""

    def reboot(self, instance_id: str) -> None:
        """Ask the system of a machine to restart."""

    def discard(self, instance_id: str) -> None:
        """Forget a machine that is down, with its disk."""

    def console(self, instance_id: str) -> bytes:
        """What the machine wrote to its console so far."""


# What to do when moto moved an instance: (our state, moto's state) to (new state, order to the machine).
_MOVES: dict[tuple[str | None, str], tuple[str, str | None]] = {
    (None, "running"): ("pending", "boot"),
    ("pending", "running"): ("pending", None),
    ("pending", "stopped"): ("stopping", "power_off"),
    ("running", "stopped"): ("stopping", "power_off"),
    ("stopping", "stopped"): ("stopping", None),
    ("stopped", "running"): ("pending", "boot"),
    ("pending", "terminated"): ("shutting-down", "power_off"),
    ("running", "terminated"): ("shutting-down", "power_off"),
    ("stopping", "terminated"): ("shutting-down", "power_off"),
    ("stopped", "terminated"): ("terminated", "discard"),
    ("shutting-down", "terminated"): ("shutting-down", None),
}


class Lifecycle:
    """The ledger of all instances of an account.

    lock: held by the server around each call and here around each report, so both see whole states.
    """

    def __init__(self, account: MotoAccount, keeper: MachineKeeper, lock: threading.RLock) -> None:
        self._account = account
        self._keeper = keeper
        self._lock = lock
        self._states: dict[str, str] = {}
        self._dead: set[str] = set()  # machines that died without a shutdown; EC2 goes on calling them running
        self._changed = threading.Condition(lock)

    def reconcile(self) -> None:
        """Bring states and machines in line with what the last call did to moto's instances."""
        for region in self._account.regions():
            for instance in region.instances():
                ours, theirs = self._states.get(instance.id), str(instance._state.name)
                if ours == theirs:
                    continue
                state, order = _MOVES[(ours, theirs)]
                self._set(region, instance, state)
                self._carry_out(order, region, instance)

    def machine_up(self, instance_id: str) -> None:
        """The first process of the machine runs."""
        with self._lock:
            region, instance = self._find(instance_id)
            if instance is not None and self._states[instance_id] == "pending":
                self._set(region, instance, "running")

    def machine_down(self, instance_id: str) -> None:
        """The machine is gone: because somebody asked for it, or because it shut itself down."""
        with self._lock:
            region, instance = self._find(instance_id)
            if instance is None:
                return
            state = self._states[instance_id]
            if state == "stopping":
                self._set(region, instance, "stopped")
            elif state == "shutting-down":
                self._terminated(region, instance)
            elif state in ("pending", "running"):
                self._ended_itself(region, instance)

    def machine_died(self, instance_id: str) -> None:
        """The machine stopped without a shutdown, as with broken hardware: the API goes on saying `running`."""
        with self._lock:
            state = self._states.get(instance_id)
            if state in ("stopping", "shutting-down"):
                self.machine_down(instance_id)
            elif state is not None:
                self._dead.add(instance_id)

    def machine_failed(self, instance_id: str) -> None:
        """The machine could not be started: the instance goes from `pending` to `terminated`."""
        with self._lock:
            region, instance = self._find(instance_id)
            if instance is not None and self._states[instance_id] == "pending":
                region.end(instance, "terminated")
                region.set_reason(instance, "Server.InternalError", "Internal error on launch")
                self._terminated(region, instance)

    def reclaim(self, instance_id: str) -> None:
        """EC2 takes a spot instance back."""
        with self._lock:
            region, instance = self._find(instance_id)
            if instance is None:
                raise KeyError(instance_id)
            region.end(instance, "terminated")
            region.set_reason(instance, "Server.SpotInstanceTermination", "Spot instance termination")
            self.reconcile()

    def state(self, instance_id: str) -> str | None:
        """The state of an instance; None if it is unknown."""
        with self._lock:
            return self._states.get(instance_id)

    def wait_state(self, instance_id: str, state: str, timeout_s: float) -> None:
        """Wait until an instance is in a state.  Raises TimeoutError with the state it is in."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._states.get(instance_id) == state, timeout_s):
                have = self._states.get(instance_id)
                raise TimeoutError(f"{instance_id} is {have} and did not become {state} within {timeout_s} s.")

    # -- moves

    def _carry_out(self, order: str | None, region: MotoRegion, instance: Any) -> None:
        if order == "boot":
            self._dead.discard(instance.id)
            self._keeper.boot(boot_order(region, instance))
        elif order == "power_off":
            if instance.id in self._dead:
                self.machine_down(instance.id)
            else:
                self._keeper.power_off(instance.id)
        elif order == "discard":
            self._terminated(region, instance)

    def _ended_itself(self, region: MotoRegion, instance: Any) -> None:
        terminate = instance.instance_initiated_shutdown_behavior == "terminate"
        region.end(instance, "terminated" if terminate else "stopped")
        region.set_reason(instance, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        if terminate:
            self._terminated(region, instance)
        else:
            self._set(region, instance, "stopped")

    def _terminated(self, region: MotoRegion, instance: Any) -> None:
        self._set(region, instance, "terminated")
        region.release(instance)
        region.return_addresses()
        self._dead.discard(instance.id)
        self._keeper.discard(instance.id)

    def _set(self, region: MotoRegion, instance: Any, state: str) -> None:
        region.set_state(instance, state)
        self._states[instance.id] = state
        self._changed.notify_all()

    def _find(self, instance_id: str) -> tuple[MotoRegion, Any]:
        for region in self._account.regions():
            instance = region.instance(instance_id)
            if instance is not None:
                return region, instance
        return self._account.regions()[0], None


def boot_order(region: MotoRegion, instance: Any) -> BootOrder:
    """What the machine of an instance needs to know."""
    promised = region.memory_bytes(instance.instance_type) or MEMORY_BYTES_MAX
    private_ip = str(instance.private_ip)
    return BootOrder(
        instance_id=instance.id,
        hostname=f"ip-{private_ip.replace('.', '-')}",
        private_ip=private_ip,
        public_ip=instance.public_ip,
        mac=str(instance.nics[0].mac_address),
        user_data=base64.b64decode(str(instance.user_data)) if instance.user_data else b"",
        public_key=region.public_key(instance),
        memory_bytes_max=min(promised, MEMORY_BYTES_MAX),
    )

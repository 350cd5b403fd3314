"""Workers that want to register: whether what they say can be kept, and whether their name and address are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed_core.comm.address import parse_address
from distributed_core.errors import Deferred, UsageError
from distributed_core.machines.scheduler.checking import Misbehaved, check_figures
from distributed_core.protocol.codec import encode
from distributed_core.quantities import checked_resources

if TYPE_CHECKING:
    from distributed_core.machines.scheduler.peers import WorkerPeer
    from distributed_core.servers.scheduler import Scheduler

NTHREADS_MAX = 1 << 20
#: A worker that was heard of so recently lives: they all send heartbeats.
SIGN_OF_LIFE_S = 2.5
#: The scheduler itself may not have read for a while: a doubt lasts at least this long before it is certainty.
DOUBT_S = 1.0


class Newcomers:
    """Decides who of two workers of one name, or at one address, is the one that lives.

    The machine of the first may have lost its power, and nothing came that would end its connection: it is dropped once
    it was silent for `predecessor_silence_max_s`; the newcomer is told to come again meanwhile.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: Since when there are newcomers for the places of these workers, which are silent.
        self._doubts: dict[int, float] = {}

    def check(self, details: dict[str, Any], name: str, address: str) -> None:
        """See whether a worker that says this of itself may come in.

        Raises
        ------
        UsageError
            It says what cannot be kept or shown, or another one lives in its place.
        Deferred
            It is being looked into whether the other one lives.
        """
        _check_details(details)
        parse_address(address)
        if self._doubts:
            there = self._scheduler.machine.ledger.workers
            self._doubts = {worker: since_s for worker, since_s in self._doubts.items() if worker in there}
        for worker in self._scheduler.machine.ledger.workers.values():
            if details.get("id") and worker.details.get("id") == details["id"]:
                continue  # The same process; its other connection is dead, and we did not hear of it yet.
            if worker.address == address:
                self._contest(worker, f"a worker at {address} is registered already")
            if worker.name == name:
                text = f"a worker named {name} is registered already, at {worker.address}; choose another --name"
                self._contest(worker, text)

    def _contest(self, worker: WorkerPeer, refusal: str) -> None:
        now = self._scheduler.loop.time()
        silent_s = now - worker.last_seen
        if silent_s < SIGN_OF_LIFE_S:
            self._doubts.pop(worker.id, None)
            raise UsageError(refusal)
        since_s = self._doubts.setdefault(worker.id, now)
        if silent_s > self._scheduler.machine.settings.predecessor_silence_max_s and now - since_s > DOUBT_S:
            self._scheduler.drop(worker.id, f"it sent nothing for {silent_s:.0f} s, and another one is in its place")
        raise Deferred(f"{refusal}; it sent nothing for {silent_s:.0f} s, and may be gone: come again")


def _check_details(details: dict[str, Any]) -> None:
    encode([details])  # deep nesting can be read and not be written again
    if not 1 <= int(details["nthreads"]) <= NTHREADS_MAX:
        raise UsageError(f"a worker needs at least one thread, and has at most {NTHREADS_MAX}")
    if "nanny" in details:
        parse_address(details["nanny"])
    checked_resources(details.get("resources", {}))
    try:
        check_figures(details)
    except Misbehaved as error:
        raise UsageError(str(error)) from None

"""What the scheduler believes of the others."""

from __future__ import annotations

from typing import Any

from distributed_core.ids import FunctionId, PeerId, RunId, TaskId
from distributed_core.machines.pages import Pages
from distributed_core.machines.scheduler.checking import NBYTES_MAX, bounded
from distributed_core.machines.scheduler.fairness import Share
from distributed_core.machines.scheduler.tasks import Function, Held, Task, TaskOptions

#: States of data up to this size are shared between tasks.
SHARED_BYTES_MAX = 1024


class Recovery:
    """What came back of a time before, and whom to wait for.

    Attributes
    ----------
    held
        Data of tasks that nobody asked for yet: bytes by worker.
    runs
        Runs of such tasks that go on: worker and run.
    clients
        Those that are still saying what they want.
    expected
        How many workers the clients had heard of.
    wishes
        Futures that clients wish of tasks of others: client, number, key.
    reclaimed
        Scattered data that clients say was there.
    wait_until_s, until_s
        Until when nothing is assigned while somebody is missing; when what is not claimed goes.
    """

    __slots__ = ("clients", "expected", "held", "reclaimed", "runs", "until_s", "wait_until_s", "wishes")

    def __init__(self) -> None:
        self.held: dict[TaskId, dict[PeerId, int]] = {}
        self.runs: dict[TaskId, tuple[PeerId, RunId]] = {}
        self.clients: dict[PeerId, None] = {}
        self.expected = 0
        self.wishes: list[tuple[ClientPeer, int, str]] = []
        self.reclaimed: dict[TaskId, Task] = {}
        self.wait_until_s = 0.0
        self.until_s = 0.0


class Lingering:
    """A run that was withdrawn and may still be in a thread: it keeps its resources until the worker says it is over.

    `clients` cancelled it, and hear of it if it cannot be ended. It is `foreign` where another connection assigned it,
    and nobody knows what resources it takes.
    """

    __slots__ = ("clients", "foreign", "resources")

    def __init__(
        self, resources: tuple[tuple[str, float], ...], clients: tuple[PeerId, ...], *, foreign: bool = False
    ) -> None:
        self.resources = resources
        self.clients = clients
        self.foreign = foreign


class View:
    """How far what a worker believes was compared with the books; see `views.py`.

    Attributes
    ----------
    sent, sent_at_ask
        How many messages the machine has sent to it; and had, with the question for an inventory.
    sent_at_tally
        How many it had at the last tally: what is not applied at the next one is late, or lost.
    unsure
        How many tallies in a row could not be compared.
    asked, serial
        How many inventories it was asked for; the number of the one that is under way, or 0.
    held, runs, lingering
        What it told of that so far: bytes by task, task by run, runs.
    doubted
        What differed in the inventory before, by kind.
    """

    __slots__ = (
        "asked",
        "doubted",
        "held",
        "lingering",
        "runs",
        "sent",
        "sent_at_ask",
        "sent_at_tally",
        "serial",
        "unsure",
    )

    def __init__(self) -> None:
        self.sent = 0
        self.sent_at_ask = 0
        self.sent_at_tally = 0
        self.unsure = 0
        self.asked = 0
        self.serial = 0
        self.doubted: dict[str, dict[int, None]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what was told."""
        self.held: dict[TaskId, int] = {}
        self.runs: dict[RunId, TaskId] = {}
        self.lingering: dict[RunId, None] = {}


class WorkerPeer:
    """A worker: what it was told to run (`assigned`, oldest first) and which data it holds.

    Attributes
    ----------
    arriving
        Scattered data that a client is about to bring to it.
    copying
        Data that it was told to fetch from another worker, for nobody's run.
    lingering
        Withdrawn runs that are not known to be over.
    limit_bytes, space_bytes
        What its process may take; and what its results in memory may come to by the scheduler's doing. 0 is no limit.
    expected_bytes
        What its assigned runs are expected to add to that, those with large results.
    spilled_bytes
        What of its data is on disk, as it said last.
    paused
        It gets no more work, because it takes too much memory.
    occupancy_s
        The time that its assigned tasks are expected to take, added up over its threads.
    progress_at
        When it last ended a run, or got something to do: how long it may be stuck.
    resources, free
        Its abstract resources, and what of them no run has.
    seceded
        How many of its assigned tasks left their threads' seats.
    holding
        The state of a task whose data this worker alone holds, by bytes: what is small comes in few sizes.
    incoming
        How many recalled runs are meant for it.
    alone
        The suspect that it runs, and nothing beside it; or 0.
    reserved
        It gets no more work, because a suspect is to run there alone.
    retiring
        It gets no more work, because it is to leave.
    returning
        It is telling what it has from before, and gets no work until it has told.
    blameless
        It said that it ends for reasons of its own: what ran there is no suspect.
    view
        What it believes, and how far that was compared.
    """

    __slots__ = (
        "address",
        "alone",
        "arriving",
        "assigned",
        "blameless",
        "copying",
        "details",
        "expected_bytes",
        "free",
        "functions",
        "held",
        "holding",
        "host",
        "id",
        "incoming",
        "last_seen",
        "limit_bytes",
        "lingering",
        "metrics",
        "name",
        "nbytes",
        "nthreads",
        "occupancy_s",
        "paused",
        "progress_at",
        "reserved",
        "resources",
        "retiring",
        "returning",
        "seceded",
        "space_bytes",
        "spilled_bytes",
        "view",
    )

    def __init__(self, id: PeerId, address: str, name: str, nthreads: int, details: dict[str, Any]) -> None:
        self.id = id
        self.address = address
        self.host = address.rpartition(":")[0]
        self.name = name
        self.nthreads = nthreads
        self.details = details
        self.assigned: dict[TaskId, Task] = {}
        self.arriving: dict[TaskId, Task] = {}
        self.copying: dict[TaskId, Task] = {}
        self.held: Pages[Task] = Pages()
        self.holding: dict[int, Held] = {}
        self.functions: dict[FunctionId, None] = {}
        self.lingering: dict[RunId, Lingering] = {}
        self.nbytes = 0
        limit = details.get("memory_limit_bytes")
        self.limit_bytes = limit if type(limit) is int and limit > 0 else 0
        self.space_bytes = 0.0
        self.expected_bytes = 0
        self.spilled_bytes = 0
        self.paused = False
        self.occupancy_s = 0.0
        self.progress_at = 0.0
        self.last_seen = 0.0
        self.metrics: dict[str, Any] = {}
        self.resources: dict[str, float] = dict(details.get("resources") or {})
        self.free = dict(self.resources)
        self.seceded = 0
        self.incoming = 0
        self.alone: TaskId = 0
        self.reserved = False
        self.retiring = False
        self.returning = False
        self.blameless = False
        self.view = View()

    @property
    def barred(self) -> bool:
        """Whether it gets no work, whatever it has to do already."""
        return bool(self.alone) or self.reserved or self.retiring or self.shut

    @property
    def shut(self) -> bool:
        """Whether the worker itself is in no state to get work."""
        return self.paused or self.returning

    @property
    def active(self) -> int:
        """How many runs want a thread of it."""
        return len(self.assigned) - self.seceded + len(self.lingering)

    def held_alone(self, nbytes: int) -> Held:
        """Return the state of a task whose data only this worker holds."""
        state = self.holding.get(nbytes)
        if state is None:
            nbytes = bounded(nbytes, NBYTES_MAX)
            state = Held((self,), nbytes)
            if nbytes <= SHARED_BYTES_MAX:
                self.holding[nbytes] = state
        return state

    def answers_to(self, names: frozenset[str]) -> bool:
        """Tell whether one of `names` means this worker: its name, its address or its host."""
        return self.name in names or self.address in names or self.host in names

    def __repr__(self) -> str:
        return f"<WorkerPeer {self.id} {self.address}>"


class ClientPeer:
    """A client: its futures by number, the functions that it may name by their digest, its share of the workers.

    `warned` are the demands of its tasks that nobody met, and that it was told of. `base` makes its numbers those of
    tasks. `said` are the numbers that it named since it came back, None once it has named all. It `leaves` once it said
    farewell, or broke the protocol.
    """

    __slots__ = ("base", "functions", "id", "leaves", "name", "said", "share", "tasks", "warned")

    def __init__(self, id: PeerId, name: str, weight: float = 1.0) -> None:
        self.id = id
        self.name = name
        self.base: TaskId = 0
        self.leaves = False
        self.said: dict[int, None] | None = None
        self.tasks: Pages[Task] = Pages()
        self.functions: dict[bytes, Function] = {}
        self.share = Share(id, weight)
        self.warned: dict[TaskOptions, None] = {}

    def __repr__(self) -> str:
        return f"<ClientPeer {self.id} {self.name}>"

"""The task and its states. A state is an object that carries exactly the data that it has meaning for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distributed_core.ids import FunctionId, Number, PeerId, RunId, TaskId

if TYPE_CHECKING:
    from distributed_core.machines.scheduler.fairness import Share
    from distributed_core.machines.scheduler.peers import ClientPeer, WorkerPeer
    from distributed_core.messages import Payload


class Reason(NamedTuple):
    """Why a task has no result: `kind` is `exception`, or the name of a `TaskError`."""

    kind: str
    text: str
    payload: Payload | None


class Function:
    """A function body that tasks share. It goes when no task uses it and no client may submit it again.

    `duration_s` and `nbytes` are moving means of how long its runs took and how large their results were: None and 0
    before any ended.
    """

    __slots__ = ("body", "clients", "digest", "duration_s", "id", "name", "nbytes", "tasks")

    def __init__(self, id: FunctionId, digest: bytes, name: str, body: bytes) -> None:
        self.id = id
        self.digest = digest
        self.name = name
        self.body = body
        self.duration_s: float | None = None
        self.nbytes = 0.0
        self.tasks = 0
        self.clients = 0


class TaskState:
    """The parent of all states."""

    __slots__ = ()


class Released(TaskState):
    """Known, because others were made from it, but neither running nor held."""

    __slots__ = ()


class Waiting(TaskState):
    """Some inputs are not held yet: `missing` of them."""

    __slots__ = ("missing",)

    def __init__(self, missing: int) -> None:
        self.missing = missing


class Ready(TaskState):
    """All inputs are held; it waits in the queue for a worker."""

    __slots__ = ()


class Assigned(TaskState):
    """A worker was told to run it, as run `run`, at `since`; `expected_s` is its share of the worker's occupancy.

    `recalled` while the worker is asked whether it can give it back, `started` once it said that it cannot, `seceded`
    where the task left its thread's seat to others. `expected_bytes` of its worker's memory are kept for its result, if
    that is expected to be large.
    """

    __slots__ = ("expected_bytes", "expected_s", "recalled", "run", "seceded", "since", "started", "worker")

    def __init__(self, worker: WorkerPeer, run: RunId, expected_s: float, since: float = 0.0) -> None:
        self.worker = worker
        self.run = run
        self.expected_s = expected_s
        self.since = since
        self.expected_bytes = 0
        self.recalled = False
        self.started = False
        self.seceded = False


class Arriving(TaskState):
    """Scattered data, on its way from a client to a worker."""

    __slots__ = ("worker",)

    def __init__(self, worker: WorkerPeer | None) -> None:
        self.worker = worker


class Held(TaskState):
    """Its data is on these workers. It never changes, and tasks share it: see `WorkerPeer.holding`."""

    __slots__ = ("nbytes", "workers")

    def __init__(self, workers: tuple[WorkerPeer, ...], nbytes: int) -> None:
        self.workers = workers
        self.nbytes = nbytes


class Erred(TaskState):
    """It has no result and gets none."""

    __slots__ = ("reason",)

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class Forgotten(TaskState):
    """Out of all books; only a stale reference can meet it."""

    __slots__ = ()


RELEASED = Released()
READY = Ready()
FORGOTTEN = Forgotten()


class Want(NamedTuple):
    """A client holds a future of the task, under this number."""

    client: ClientPeer
    number: Number


class Troubles:
    """What went wrong with a task.

    Attributes
    ----------
    suspect
        A worker died that may have been running it: it runs alone from now on.
    deaths, alone_deaths, fetch_failures
        How often a worker died that may have been running it; how often one died that ran nothing else; how often its
        inputs could not be fetched.
    unreachable
        Inputs that could not be fetched, and have not come anywhere since: when that was first.
    misses
        How often workers could not fetch them lately: after two they are not tried again for a while.
    """

    __slots__ = ("alone_deaths", "deaths", "fetch_failures", "misses", "suspect", "unreachable")

    def __init__(self, suspect: bool = False) -> None:
        self.suspect = suspect
        self.deaths = 0
        self.alone_deaths = 0
        self.fetch_failures = 0
        self.unreachable: dict[TaskId, float] = {}
        self.misses: dict[PeerId, int] = {}


class TaskOptions(NamedTuple):
    """What few tasks have.

    `retries` are left over, `resources` amounts by name, `workers` names, addresses or hosts of workers; `loose` lets
    others run it where none of `workers` is there. `places` is there where its client knew one input under several
    numbers: which of the task's inputs its payload finds at which place.
    """

    retries: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    workers: frozenset[str] | None = None
    loose: bool = False
    timeout_s: float = 0.0
    actor: bool = False
    places: tuple[int, ...] = ()


class Task:
    """One task.

    Attributes
    ----------
    key
        The name that a client gave it, or None: then the client alone knows a name.
    function, payload
        What to run; None for scattered data, which cannot be computed again.
    inputs
        The tasks whose data it needs, each once, in the order that the payload counts them; see `TaskOptions.places`.
    users
        The tasks that have it as an input and are not forgotten, or None.
    options
        What few tasks have, or None.
    needed
        How many of `users` are waiting, ready or assigned: these keep its data alive.
    client, number
        The future of it that came first, by its client and its number there; None and 0 if there is none. It keeps the
        data alive too.
    sharers
        The other futures of it, which few tasks have. A million tasks are held at times: nothing is stored for what is
        rare.
    share
        The client in whose turn it runs.
    troubles
        What went wrong with it so far, or None.
    """

    __slots__ = (
        "client",
        "function",
        "id",
        "inputs",
        "key",
        "needed",
        "number",
        "options",
        "payload",
        "priority",
        "share",
        "sharers",
        "state",
        "troubles",
        "users",
    )

    def __init__(
        self,
        id: TaskId,
        key: str | None,
        function: Function | None,
        payload: Payload | None,
        inputs: tuple[Task, ...],
        priority: int,
        share: Share,
        options: TaskOptions | None = None,
    ) -> None:
        self.id = id
        self.key = key
        self.function = function
        self.payload = payload
        self.inputs = inputs
        self.priority = priority
        self.options = options
        self.state: TaskState = RELEASED
        self.users: dict[TaskId, Task] | None = None
        self.needed = 0
        self.client: ClientPeer | None = None
        self.number: Number = 0
        self.sharers: tuple[Want, ...] = ()
        self.share = share
        self.troubles: Troubles | None = None

    @property
    def wants(self) -> tuple[Want, ...]:
        """All futures of it."""
        return (Want(self.client, self.number), *self.sharers) if self.client is not None else ()

    @property
    def suspect(self) -> bool:
        """Whether a worker died that may have been running it, and no run of it ended well since: it runs alone."""
        return self.troubles is not None and self.troubles.suspect

    def trouble(self) -> Troubles:
        """Return its troubles, to add one."""
        if self.troubles is None:
            self.troubles = Troubles()
        return self.troubles

    @property
    def name(self) -> str:
        """What people call it: its key, or what its client calls it, or its function's name."""
        if self.key is not None:
            return self.key
        name = self.function.name if self.function is not None else "data"
        return f"{name}-{self.client.name}-{self.number}" if self.client is not None else name

    def __repr__(self) -> str:
        return f"<Task {self.id} {type(self.state).__name__}>"

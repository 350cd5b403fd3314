"""Every word on the wire, by direction.

A message is a named tuple; on the wire it is an array whose first element is its place in `WORDS`, see
`protocol/plain.py`. So a new word goes to the end of that tuple, and a changed one raises `PROTOCOL_VERSION`. What a
message carries of the user's (`Payload`) is opaque to the scheduler, which forwards it and never opens it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PROTOCOL_VERSION = 5

Payload = bytes | list[Any]
"""What the scheduler never opens: bytes, or a list of frames that are bytes or out-of-band buffers of the codec."""


# --- any connection -------------------------------------------------------------------------------


class Hello(NamedTuple):
    """The first word of whoever connects. `role` is client, worker or rpc; `details` depend on it."""

    version: int
    role: str
    details: dict[str, Any]


class Welcome(NamedTuple):
    """The answer to `Hello`: what the server is, its id, and the peer id that it gave."""

    server: str
    id: str
    peer: int
    details: dict[str, Any]


class Refusal(NamedTuple):
    """Instead of `Welcome`: a sentence that says why; the connection closes after it."""

    reason: str


class Deferral(NamedTuple):
    """Instead of `Welcome`: not now, for a reason that is being looked into; the connection closes after it."""

    reason: str


class Request(NamedTuple):
    """A call of one of the handlers that `rpc` reaches; without an id it wants no reply."""

    id: int
    op: str
    arguments: dict[str, Any]


class Reply(NamedTuple):
    """The value of a `Request`, or where `ok` is false the sentence that says what went wrong."""

    id: int
    ok: bool
    value: Any


# --- client to scheduler --------------------------------------------------------------------------


class Submission(NamedTuple):
    """New functions `[digest, name, body]`, each sent once per connection, and tasks that use them.

    A task is `[number, key or None, function digest, payload, numbers of its inputs, priority, options or None]`.
    `options` may have `retries` (int), `resources` ({name: amount}), `workers` (names, addresses or hosts), `loose`
    (other workers will do where none of these is there), `timeout_s` and `actor` (true).
    """

    functions: list[Any]
    tasks: list[Any]


class Scattering(NamedTuple):
    """Data that the client holds and wants on workers (None: any): `[number, key or None, bytes]` each."""

    items: list[Any]
    workers: list[Any] | None


class Release(NamedTuple):
    """The client holds no future of these numbers any more."""

    numbers: list[int]


class Cancellation(NamedTuple):
    """These futures, and whatever this client built on them, are not wanted any more; with `force`, by nobody."""

    numbers: list[int]
    force: bool
    reason: str


class Vow(NamedTuple):
    """These tasks are to run to their end, whoever lets go of them; then nobody needs to hold them."""

    numbers: list[int]


class Retrial(NamedTuple):
    """Run these failed tasks again, and what failed before and after them for the same reason."""

    numbers: list[int]


class Wish(NamedTuple):
    """The client wants futures of tasks that others made: `[number, key]` each."""

    items: list[Any]


class Ruin(NamedTuple):
    """On a new connection: this future failed before, and need not run again; the fields are as in `Failed`."""

    number: int
    kind: str
    text: str
    payload: Payload | None


class Reclaim(NamedTuple):
    """On a new connection: data that the client scattered before, as in `Scattering`; workers should still have it."""

    items: list[Any]


class Reunion(NamedTuple):
    """On a new connection: all that the client still wants was said. Before, it had heard of so many workers."""

    workers: int


class Complaint(NamedTuple):
    """Workers that should hold the data of a future, but did not give it: `[number, address]` each."""

    items: list[Any]


# --- scheduler to client --------------------------------------------------------------------------


class Finished(NamedTuple):
    """The data of a future exists on a worker; a small one comes along."""

    number: int
    nbytes: int
    payload: Payload | None


class Failed(NamedTuple):
    """A future has no result: `kind` is `exception`, or the name of a `TaskError`."""

    number: int
    kind: str
    text: str
    payload: Payload | None


class Pending(NamedTuple):
    """The data of a finished future was lost with its worker and is being computed again."""

    number: int


class Cancelled(NamedTuple):
    """A future of this client was cancelled, because one that it needs was."""

    number: int
    reason: str


class Notice(NamedTuple):
    """Something that the user should see: `kind` is a topic, the payload a value of it, or None beside a `text`."""

    topic: str
    text: str
    payload: Payload | None


class Farewell(NamedTuple):
    """Who says so ends in good order: a scheduler is not to be looked for, a client does not come back."""

    reason: str


class Roster(NamedTuple):
    """How many workers there are, whenever that changes."""

    workers: int


class Placement(NamedTuple):
    """Where the client is to put scattered data: the task's id and the worker's address."""

    number: int
    task: int
    address: str


# --- scheduler to worker --------------------------------------------------------------------------


class FunctionBody(NamedTuple):
    """A function, before the first task that uses it."""

    function: int
    name: str
    body: bytes


class FunctionDisposal(NamedTuple):
    """No task can use these functions any more."""

    functions: list[int]


class Assignment(NamedTuple):
    """Run a task. `inputs` are `[task, bytes, addresses of its holders]`, in the order that the payload counts them.

    After `timeout_s` seconds it is interrupted; 0 is never.
    """

    task: int
    run: int
    function: int
    payload: Payload
    inputs: list[Any]
    timeout_s: float


class Withdrawal(NamedTuple):
    """Do not start this run; if it runs already, drop its result, or interrupt it. `Departure` is the answer."""

    task: int
    run: int
    interrupt: bool


class Recall(NamedTuple):
    """Give this run back if it did not start: another worker is idle. `Yielding` is the answer."""

    task: int
    run: int


class Acquisition(NamedTuple):
    """Fetch data, `[task, bytes, addresses of its holders]` each, without a run that needs it."""

    items: list[Any]


class Dismissal(NamedTuple):
    """Leave: end with 0, and the nanny too."""

    reason: str


class Disposal(NamedTuple):
    """The data of these tasks is not needed any more."""

    tasks: list[int]


class Audit(NamedTuple):
    """Say all that is there: the books of both sides differ. `Stocktaking` is the answer."""

    serial: int


# --- worker to scheduler --------------------------------------------------------------------------


class Completion(NamedTuple):
    """A run ended with a result of `nbytes`; a small one comes along."""

    task: int
    run: int
    nbytes: int
    duration_s: float
    payload: Payload | None


class Failure(NamedTuple):
    """A run ended without a result. `kind` is `exception`, with the pickled one and its text, or `TaskTimeout`."""

    task: int
    run: int
    payload: Payload | None
    text: str
    duration_s: float
    kind: str


class Rejection(NamedTuple):
    """A run cannot start: `absent` and `unreachable` are `[input task, address that did not give it]`.

    An empty address is the worker itself.
    """

    task: int
    run: int
    absent: list[Any]
    unreachable: list[Any]


class Possession(NamedTuple):
    """The worker now holds these tasks' data too: `[task, bytes]` each."""

    items: list[Any]


class Departure(NamedTuple):
    """A withdrawn run is over, or never started."""

    run: int


class Yielding(NamedTuple):
    """The answer to `Recall`: whether the run was `given` back; if not, it had started."""

    task: int
    run: int
    given: bool


class Secession(NamedTuple):
    """A run left its thread's seat to others and goes on."""

    task: int
    run: int


class Return(NamedTuple):
    """A run that had seceded has a seat again."""

    task: int
    run: int


class Shortfall(NamedTuple):
    """Data that was to be copied here could not be had; the fields are as in `Rejection`."""

    absent: list[Any]
    unreachable: list[Any]


class Sacrifice(NamedTuple):
    """The worker ends its process, to end a run that cannot be interrupted; what else runs there is not to blame."""

    reason: str


class Stubbornness(NamedTuple):
    """A run was interrupted and goes on, and without a nanny there is no other way to end it."""

    run: int
    text: str


class Continuation(NamedTuple):
    """On a new connection: runs that go on here, `[task, run]` each, as another connection assigned them.

    Of task 0 are those that were withdrawn and are not over: no run is to have their numbers.
    """

    items: list[Any]


class Presence(NamedTuple):
    """On a new connection: all that the worker holds and runs was said, so many things."""

    told: int


class Heartbeat(NamedTuple):
    """The worker lives; figures about its process."""

    metrics: dict[str, Any]


class MemoryState(NamedTuple):
    """Whether the worker is `paused`, which means that it wants no more tasks; and what of its results is on disk."""

    paused: bool
    spilled_bytes: int


class Tally(NamedTuple):
    """What the worker believes, summed up, to be compared.

    It has applied so many messages of the scheduler's machine on this connection. Of what it holds, of the runs that
    count and of those that linger: how many there are, and the sum of their numbers.
    """

    applied: int
    held: int
    held_sum: int
    runs: int
    runs_sum: int
    lingering: int
    lingering_sum: int


class Stocktaking(NamedTuple):
    """A part of the answer to `Audit`, or the `last` one.

    `applied` is as in `Tally`, the question included. `[task, bytes]` that are held, `[task, run]` that count, and runs
    that linger.
    """

    serial: int
    applied: int
    held: list[Any]
    runs: list[Any]
    lingering: list[int]
    last: bool


WORDS: tuple[type[Any], ...] = (
    Hello,
    Welcome,
    Refusal,
    Request,
    Reply,
    Submission,
    Scattering,
    Release,
    Cancellation,
    Complaint,
    Finished,
    Failed,
    Pending,
    Cancelled,
    Placement,
    FunctionBody,
    FunctionDisposal,
    Assignment,
    Withdrawal,
    Disposal,
    Completion,
    Failure,
    Rejection,
    Possession,
    Heartbeat,
    Wish,
    Notice,
    Recall,
    Acquisition,
    Dismissal,
    Departure,
    Yielding,
    Secession,
    Return,
    Shortfall,
    Sacrifice,
    Stubbornness,
    Retrial,
    Vow,
    Ruin,
    Reclaim,
    Reunion,
    Roster,
    Continuation,
    Presence,
    Farewell,
    MemoryState,
    Audit,
    Tally,
    Stocktaking,
    Deferral,
)

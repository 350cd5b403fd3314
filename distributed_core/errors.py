"""Every error that distributed_core raises, as one tree.

    EngineError
    |-- UsageError                  the caller's fault: a bad option, address or argument
    |   |-- AddressError            an address that does not parse
    |   |-- ClientClosed            a call on a client that was closed
    |   |-- ResultTooLarge          a task returned more than its worker may hold
    |   `-- NotSerializable         a function, argument or result that cannot travel
    |-- ConnectError                nobody answered, or not in time
    |   |-- PortInUse               another process listens there
    |   |-- Refused                 it answered, and said why it does not let this peer in
    |   |-- Deferred                it answered that it will know in some seconds whether it does
    |   `-- CredentialRefused       the other side holds another credential, or none
    |-- CredentialError             a credential or scheduler file that cannot be read
    |-- ConnectionLost              an established connection ended
    |-- ProtocolError               the other side sent what this protocol does not know
    |   `-- TooLarge                a frame beyond the limits
    |-- RemoteError                 a handler of a remote server failed
    |-- TaskError                   a task ended without a result, and not by its own exception
    |   |-- TaskCancelled           somebody cancelled it
    |   |-- ActorLost               the worker of an actor is gone, and its state with it
    |   |-- DataLost                its data was lost and cannot be computed again
    |   |-- DataUnreachable         its inputs exist, but no worker could fetch them
    |   |-- KilledWorker            it was running whenever its worker died
    |   `-- TaskTimeout             it took longer than it was allowed to
    |-- VersionMismatch             client, scheduler and workers have different versions
    |-- SchedulerLost               the scheduler went away and did not come back in time
    |-- NotEnoughWorkers            fewer workers than asked for came in time
    `-- InvariantBroken             a bug of ours: a machine's state contradicts itself

    Reschedule                      for tasks to raise: run me again, here or elsewhere
    TaskInterrupted                 raised inside a task that was cancelled or took too long; like KeyboardInterrupt no
                                    `Exception`, so that a task's own `except Exception` does not swallow it

Messages say what is wrong, whose fault it is and what to do next, in one sentence.
"""

from __future__ import annotations

import concurrent.futures

__all__ = [
    "ActorLost",
    "AddressError",
    "ClientClosed",
    "ConnectError",
    "ConnectionLost",
    "CredentialError",
    "CredentialRefused",
    "DataLost",
    "DataUnreachable",
    "Deferred",
    "EngineError",
    "InvariantBroken",
    "KilledWorker",
    "NotEnoughWorkers",
    "NotSerializable",
    "PortInUse",
    "ProtocolError",
    "Refused",
    "RemoteError",
    "Reschedule",
    "ResultTooLarge",
    "SchedulerLost",
    "TaskCancelled",
    "TaskError",
    "TaskInterrupted",
    "TaskTimeout",
    "TooLarge",
    "UsageError",
    "VersionMismatch",
]


class EngineError(Exception):
    """The root of this package's errors."""


class UsageError(EngineError):
    """The caller asked for something that cannot be."""


class AddressError(UsageError, ValueError):
    """An address does not parse as HOST:PORT."""


class ClientClosed(UsageError):
    """The client was closed before this call."""


class ResultTooLarge(UsageError):
    """A task returned more than the memory limit of its worker."""


class NotSerializable(UsageError, TypeError):
    """A function, argument or result cannot be sent to another process."""


class ConnectError(EngineError, OSError):
    """A server could not be reached."""


class PortInUse(ConnectError):
    """Another process listens on the wanted port."""


class Refused(ConnectError):
    """A server answered the greeting with a sentence that says why it does not let this peer in."""


class Deferred(ConnectError):
    """A server answered the greeting that it cannot say yet whether it lets this peer in: try again in a moment."""


class CredentialRefused(ConnectError):
    """The TLS handshake failed: the two sides do not hold the same credential."""


class CredentialError(EngineError):
    """A credential or scheduler file cannot be used."""


class ConnectionLost(EngineError, OSError):
    """An established connection ended before the answer came; `errno` is the system's, where it had one."""


class ProtocolError(EngineError):
    """The other side broke the protocol; it is dropped."""


class TooLarge(ProtocolError):
    """A frame or message beyond the limits of this protocol."""


class RemoteError(EngineError):
    """A handler of a remote server raised; the text is the remote one."""


class TaskError(EngineError):
    """A task has no result, and not because its function raised."""


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled, by this client or because a task that it needs was."""


class ActorLost(TaskError):
    """The worker of an actor is gone, and the actor's state with it."""


class DataLost(TaskError):
    """Data that came from a client was lost with its worker and cannot be computed again."""


class DataUnreachable(TaskError):
    """The inputs of a task exist, but workers could not fetch them from each other."""


class KilledWorker(TaskError):
    """Several workers died while they ran this task."""


class TaskTimeout(TaskError, TimeoutError):
    """The task took longer than its `timeout`."""


class Reschedule(Exception):
    """Raised by a task: it wants to be run again, on another worker or later."""


class TaskInterrupted(BaseException):
    """Raised in the thread of a task that was cancelled, or that took longer than its `timeout`: clean up and go."""


class SchedulerLost(EngineError):
    """The connection to the scheduler ended."""


class VersionMismatch(EngineError, ValueError):
    """Client, scheduler and workers have different versions of what they share."""


class NotEnoughWorkers(EngineError, TimeoutError):
    """Fewer workers than asked for registered in time."""


class InvariantBroken(EngineError, AssertionError):
    """The state of a machine contradicts itself: a bug of this package, please report it."""

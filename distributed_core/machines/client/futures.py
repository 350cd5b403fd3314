"""What is known of one future, as the scheduler counts it."""

from __future__ import annotations

from distributed_core.messages import Payload

PENDING, FINISHED, ERROR, CANCELLED, LOST = "pending", "finished", "error", "cancelled", "lost"


class FutureRecord:
    """One future of a client.

    Attributes
    ----------
    number
        Its number on the wire.
    status
        `pending`, `finished`, `error`, `cancelled` or `lost`.
    payload
        The result as it came, where it was small; else None, and the data is on a worker.
    nbytes
        How large the result is.
    reason
        (kind, text, payload) where it failed.
    """

    __slots__ = ("nbytes", "number", "payload", "reason", "status")

    def __init__(self, number: int) -> None:
        self.number = number
        self.status = PENDING
        self.payload: Payload | None = None
        self.nbytes = 0
        self.reason: tuple[str, str, Payload | None] | None = None

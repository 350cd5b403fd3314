"""The interface of a connection: batches of plain messages, in order, until it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from distributed_core.comm.address import Address
from distributed_core.protocol.framing import Place


class Stream(ABC):
    """One connection. All methods belong to the loop on which it was made."""

    local: Address
    peer: Address

    @abstractmethod
    async def receive(self) -> list[Any]:
        """Return the messages that came next, at least one.

        Raises
        ------
        ConnectionLost
            The connection ended.
        ProtocolError
            The peer sent what is no message; the connection is closed.
        """

    @abstractmethod
    def send(self, message: Any) -> None:
        """Queue a message; all that are queued in one turn of the loop leave as one packet at its end."""

    @abstractmethod
    def flush(self) -> None:
        """Let what is queued leave as a packet of its own, so that nobody has to open too much at once."""

    @abstractmethod
    async def drain(self) -> None:
        """Return when the peer has taken most of what is queued."""

    @abstractmethod
    def widen(self) -> None:
        """Let packets be large from now on: the peer has greeted."""

    @abstractmethod
    def place_large(self, place: Place) -> None:
        """Ask `place` for the memory of each large frame that arrives, by its size; None is the process's own."""

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """How much is queued and not yet with the system."""

    @property
    @abstractmethod
    def received_bytes(self) -> int:
        """How much has come so far, also of what is not whole yet."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the connection has ended, from either side."""

    @abstractmethod
    def abort(self) -> None:
        """End the connection at once."""

    @abstractmethod
    async def close(self) -> None:
        """Send what is queued, then end the connection."""

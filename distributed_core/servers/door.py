"""The door of a server: who is let in, how long one may stand in it, and how often that is complained about.

Whoever connects is a stranger until the greeting is over. There is room for some strangers at a time, and for a short
time each: so that those who mean nothing good cost little memory, and never all descriptors.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

logger = logging.getLogger(__name__)

#: From the end of the handshake to the end of the greeting.
GREETING_TIMEOUT_S = 10.0
#: Where there are more, the one that has stood there longest has to go.
STRANGERS_MAX = 1024
#: Connections taken in one turn of the loop.
ACCEPT_MAX = 64
#: How long nobody is let in after the system had nothing left for a connection.
PAUSE_S = 0.2
#: So many lines in each interval, then one that counts the others.
LINES_MAX = 10
INTERVAL_S = 10.0

_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Complaints:
    """Log lines about peers: the first ones of an interval as they are, of the others the number and the last."""

    def __init__(self, loop: IOLoop) -> None:
        self._loop = loop
        self._begun_at = -INTERVAL_S
        self._count = 0
        self._last = ""

    def add(self, text: str) -> None:
        """Log `text`, now or in the sum at the end of the interval."""
        text = " ".join(text.splitlines())
        now = self._loop.time()
        if now - self._begun_at >= INTERVAL_S:
            self._begun_at, self._count = now, 0
        self._count += 1
        self._last = text
        if self._count <= LINES_MAX:
            logger.warning("%s", text)
        elif self._count == LINES_MAX + 1:
            self._loop.call_later(self._begun_at + INTERVAL_S - now, self._sum_up, self._begun_at)

    def _sum_up(self, begun_at: float) -> None:
        more = self._count - LINES_MAX
        if begun_at == self._begun_at and more > 0:
            self._count = LINES_MAX
            logger.warning("%d more lines like this one within %.0f s: %s", more, INTERVAL_S, self._last)


class Door:
    """A socket that listens.

    Parameters
    ----------
    admit
        Called with each connection and its address.
    make_room
        Called when the system has no descriptor left: close what can be spared.
    complaints
        Where that is said.
    """

    def __init__(
        self,
        listening: socket.socket,
        admit: Callable[[socket.socket, Any], None],
        make_room: Callable[[], None],
        complaints: Complaints,
    ) -> None:
        self._socket = listening
        self._admit = admit
        self._make_room = make_room
        self._complaints = complaints
        self._loop = IOLoop.current()
        self._open = False
        self._closed = False
        self._listen()

    def _listen(self) -> None:
        if not self._closed and not self._open:
            self._open = True
            self._loop.add_handler(self._socket, self._accept, IOLoop.READ)

    def _pause(self) -> None:
        # Whoever waits stays in the system's queue; without a pause the loop would do nothing but try again.
        self._open = False
        self._loop.remove_handler(self._socket)
        self._loop.call_later(PAUSE_S, self._listen)

    def _accept(self, listening: socket.socket, events: int) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _USED_UP:
                    continue  # it went away while it waited
                self._complaints.add(
                    f"no connection can be accepted for now ({error.strerror}); raise the limit of open files "
                    "(ulimit -n), or find out who connects so often"
                )
                self._make_room()
                self._pause()
                return
            try:
                self._admit(connection, address)
            except OSError as error:
                connection.close()
                logger.debug("a peer at %s was gone at once: %s", address, error)

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        if self._open:
            self._open = False
            self._loop.remove_handler(self._socket)
        self._socket.close()

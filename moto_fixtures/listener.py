"""The port of a cloud on 127.0.0.1."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from typing import Any

import psutil
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server


class QuietHandler(MotoRequestHandler):
    """Handles one HTTP request without a line on stderr."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the calls are in the log of the cloud."""


class Listener:
    """A thread that takes connections for a WSGI application, each of which gets a thread of its own."""

    def __init__(self, application: Any) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._http = make_server("127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler)
        self._waking, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="test cloud API", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The number of the port."""
        return int(self._http.server_port)

    def close(self) -> None:
        """Take no more connections; the port is free when this returns."""
        self._waker.close()
        self._thread.join()
        self._http.server_close()
        self._waking.close()

    def _serve(self) -> None:
        # Not `serve_forever`, which looks only now and then whether it shall end.
        with selectors.DefaultSelector() as selector:
            selector.register(self._http.socket, selectors.EVENT_READ)
            selector.register(self._waking, selectors.EVENT_READ)
            while self._waking not in [key.fileobj for key, _ in selector.select()]:
                self._http.handle_request()

    def client_pid(self, client_port: int) -> int | None:
        """The process that holds the other end of a connection; None if it cannot be found."""
        for connection in psutil.net_connections(kind="tcp"):
            here, there = connection.laddr, connection.raddr
            if here and there and here.port == client_port and there.port == self.port:
                return connection.pid
        return None

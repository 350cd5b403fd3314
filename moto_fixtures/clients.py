"""boto3 clients of test clouds: few, because making one takes a twentieth of a second."""

from __future__ import annotations

import functools
import io
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, Protocol

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

#: Where clients think that the API is; each request is sent to where it really is.
_NOWHERE = "http://127.0.0.1:9"


class Application(Protocol):
    """The WSGI application of a cloud."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer one request."""


class PooledClient:
    """One boto3 client, and whereto its requests go."""

    def __init__(self, service: str, region: str) -> None:
        make: Any = _session().client  # its many overloads know no service by a variable's name
        self.place = (service, region)
        self.boto: Any = make(
            service,
            endpoint_url=_NOWHERE,
            region_name=region,
            aws_access_key_id="testcloud",
            aws_secret_access_key="testcloud",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60),
        )
        self._url: str | None = None
        self._application: Application | None = None
        self.boto.meta.events.register("before-send", self._send)

    def point(self, url: str | None, application: Application | None = None) -> None:
        """Send requests to a URL, or straight to a WSGI application of this process, or nowhere."""
        self._url, self._application = url, application

    def _send(self, request: Any, **_: Any) -> AWSResponse | None:
        if self._application is not None:
            return _answered(self._application, request)
        if self._url is None:
            raise ConnectionClosedError(endpoint_url=request.url)  # its cloud is closed
        request.url = request.url.replace(_NOWHERE, self._url, 1)
        return None


_free: dict[tuple[str, str], list[PooledClient]] = {}
_lock = threading.Lock()


def borrowed(service: str, region: str) -> PooledClient:
    """A client that nobody uses."""
    with _lock:
        idle = _free.get((service, region))
        if idle:
            return idle.pop()
    return PooledClient(service, region)


def give_back(client: PooledClient) -> None:
    """The cloud of this client is closed."""
    client.point(None)
    with _lock:
        _free.setdefault(client.place, []).append(client)


@functools.cache
def _session() -> boto3.session.Session:
    """One session for all clients: reading the description of EC2 takes a tenth of a second."""
    return boto3.session.Session()


def _answered(application: Application, request: Any) -> AWSResponse:
    got: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        got.update(status=int(status.split()[0]), headers=dict(headers))

    try:
        body = b"".join(application(_environ(request), start_response))
    except ConnectionAbortedError as error:
        raise ConnectionClosedError(endpoint_url=request.url) from error
    return AWSResponse(request.url, got["status"], got["headers"], _Body(body))


class _Body(io.BytesIO):
    """What botocore reads an answer from."""

    def stream(self, **_: Any) -> Any:
        """All of it in one piece."""
        yield self.read()


def _environ(request: Any) -> dict[str, Any]:
    address = urllib.parse.urlsplit(request.url)
    body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
    said = {f"HTTP_{name.upper().replace('-', '_')}": _text(value) for name, value in request.headers.items()}
    return {
        **said,
        "REQUEST_METHOD": request.method,
        "PATH_INFO": address.path or "/",
        "SCRIPT_NAME": "",
        "QUERY_STRING": address.query,
        "SERVER_NAME": address.hostname,
        "SERVER_PORT": str(address.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": address.netloc,
        "CONTENT_TYPE": said.get("HTTP_CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

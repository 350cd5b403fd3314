"""One call of the API as data, and the answers that the test cloud gives by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


class ApiRefusal(Exception):
    """An error that the API gives to its caller.

    code: the name of the error as EC2 writes it, for example `DependencyViolation`.
    message: the sentence for people.
    status: the HTTP status; botocore tries again after 500 and above.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def body(self) -> bytes:
        """The answer as EC2 words it."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Response><Errors><Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            "</Error></Errors><RequestID>00000000-0000-4000-8000-000000000000</RequestID></Response>"
        ).encode()


@dataclass(frozen=True)
class ApiCall:
    """One call, as it came.

    number: counts all calls of the cloud from 1.
    pairs: the form of the call in its order, without Action and Version.
    """

    number: int
    service: str
    region: str
    action: str
    version: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def parameters(self) -> dict[str, str]:
        """The form as a dictionary, for example `{"InstanceId.1": "i-0abc"}`."""
        return dict(self.pairs)

    def get(self, name: str) -> str | None:
        """The value of one parameter; None if the call does not have it."""
        return self.parameters.get(name)

    def numbered(self, name: str) -> list[str]:
        """The values of `name.1`, `name.2` and so on, in their order."""
        found = [(int(key[len(name) + 1 :]), value) for key, value in self.pairs if _is_item(key, name)]
        return [value for _, value in sorted(found)]

    def indexes(self, name: str) -> list[int]:
        """The numbers n for which a parameter `name.n` or `name.n.…` exists."""
        pattern = re.compile(re.escape(name) + r"\.(\d+)(\.|$)")
        return sorted({int(match[1]) for key, _ in self.pairs if (match := pattern.match(key))})

    def truth(self, name: str) -> bool:
        """Whether the parameter is there and true."""
        return (self.get(name) or "").lower() == "true"

    def with_parameters(self, changes: dict[str, str | None]) -> ApiCall:
        """The same call with some parameters set; None takes a parameter away."""
        kept = [(key, value) for key, value in self.pairs if key not in changes]
        added = [(key, value) for key, value in changes.items() if value is not None]
        return replace(self, pairs=tuple(kept + added))

    def form(self) -> bytes:
        """The body of the HTTP request that says this call."""
        return urlencode([("Action", self.action), ("Version", self.version), *self.pairs]).encode()


def _is_item(key: str, name: str) -> bool:
    return key.startswith(f"{name}.") and key[len(name) + 1 :].isdigit()


@dataclass
class LoggedCall:
    """A call and what became of it.

    outcome: `ok`, the code of the error, or `lost` and `killed` if the caller got no answer.
    client_pid: the process that called, if it could be found and a fault needed it.
    """

    call: ApiCall
    outcome: str = "open"
    client_pid: int | None = None

    @property
    def action(self) -> str:
        """The name of the call, for example `RunInstances`."""
        return self.call.action

    @property
    def parameters(self) -> dict[str, str]:
        """The form of the call as it came, before any rule changed it."""
        return self.call.parameters


def parse_call(number: int, headers: dict[str, str], body: bytes) -> ApiCall | None:
    """The call that an HTTP request carries; None if it is not a form of the Query protocol.

    headers: `authorization` and `content-type`, by lower-case names.
    """
    if not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    named = dict(pairs)
    if "Action" not in named:
        return None
    scope = scope_of(headers.get("authorization", ""))
    rest: Iterable[tuple[str, str]] = ((key, value) for key, value in pairs if key not in ("Action", "Version"))
    return ApiCall(
        number=number,
        service=scope[0],
        region=scope[1],
        action=named["Action"],
        version=named.get("Version", ""),
        pairs=tuple(rest),
    )


def scope_of(authorization: str) -> tuple[str, str]:
    """The service and the region that a signature is for; EC2 in us-east-1 if there is no signature."""
    match = _SCOPE.search(authorization)
    return (match["service"], match["region"]) if match else ("ec2", "us-east-1")


def answer(action: str, content: str) -> bytes:
    """An EC2 answer of our own making; content is XML."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<{action}Response xmlns="{EC2_NAMESPACE}"><requestId>00000000-0000-4000-8000-000000000000</requestId>'
        f"{content}</{action}Response>"
    ).encode()

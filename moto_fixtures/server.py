"""The WSGI layer in front of moto: each call passes the weather, the rules, moto and the lifecycle, in this order."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from botocore import parsers
from botocore.session import get_session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from moto_fixtures import prices
from moto_fixtures.account import MotoAccount, MotoRegion
from moto_fixtures.lifecycle import Lifecycle, MachineKeeper
from moto_fixtures.listener import Listener
from moto_fixtures.request import ApiCall, ApiRefusal, LoggedCall, answer, parse_call, scope_of
from moto_fixtures.rules.book import apply_rules
from moto_fixtures.rules.capacity import CapacityTable
from moto_fixtures.rules.interfaces import interface_tags, kept_interfaces
from moto_fixtures.rules.names import check_names
from moto_fixtures.rules.permissions import PermissionTable, answer_dry_run, decoded
from moto_fixtures.rules.rates import RateLimits
from moto_fixtures.rules.requests import check_json, check_request
from moto_fixtures.rules.spot import SpotLedger, is_spot
from moto_fixtures.rules.tokens import TokenLedger
from moto_fixtures.rules.visibility import Visibility
from moto_fixtures.weather import Stroke, Verdict, Weather

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: How much of a console GetConsoleOutput shows, as on EC2.
CONSOLE_BYTES_MAX = 65536


#: Errors to which moto gives another name than Amazon EC2 API Reference, "Error codes".
RENAMED_ERRORS = {"InvalidKeyPair.Format": "InvalidKey.Format"}


@dataclass(frozen=True)
class HttpAnswer:
    """A whole HTTP answer."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether the call succeeded."""
        return self.status.startswith("2")


class ApiServer:
    """The API of one cloud on a port of 127.0.0.1.

    account, lifecycle, keeper: what the calls work on; lock is the one that the lifecycle holds.
    before_look: called before a client looks at instances.  after_change: called after each call that may change
        things.
    """

    def __init__(
        self, account: MotoAccount, lifecycle: Lifecycle, keeper: MachineKeeper, lock: threading.RLock
    ) -> None:
        self.account = account
        self.lifecycle = lifecycle
        self.keeper = keeper
        self.lock = lock
        self.weather = Weather()
        self.capacity = CapacityTable()
        self.tokens = TokenLedger()
        self.visibility = Visibility()
        self.permissions = PermissionTable()
        self.rates = RateLimits()
        self.spot = SpotLedger()
        self.calls: list[LoggedCall] = []
        #: Errors of the test cloud itself, which a test should find empty.
        self.failures: list[Exception] = []
        self.before_look: Callable[[], None] = _do_nothing
        self.after_change: Callable[[], None] = _do_nothing
        self.regions_allowed: frozenset[str] | None = None
        self._numbering = threading.Lock()
        self._listener: Listener | None = None
        self._starting = threading.Lock()

    @property
    def url(self) -> str:
        """The endpoint for clients; the port is opened when it is first asked for."""
        with self._starting:
            if self._listener is None:
                self._listener = Listener(self)
            return f"http://127.0.0.1:{self._listener.port}"

    def close(self) -> None:
        """Stop answering; the port is free when this returns."""
        with self._starting:
            if self._listener is not None:
                self._listener.close()

    def describe(self, action: str, region: str) -> dict[str, Any]:
        """The answer of a Describe call without parameters, as boto3 gives it, past weather, rules and log."""
        return self._own_calls.describe(action, region)

    @functools.cached_property
    def _own_calls(self) -> _OwnCalls:
        return _OwnCalls(self)

    # -- one HTTP request

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI wants it."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        logged = self._log(environ, body)
        verdict = self.weather.verdict(logged.call)
        if verdict.delay_s:
            time.sleep(verdict.delay_s)
        if verdict.before is not Stroke.NONE:
            return self._strike(verdict.before, environ, logged)
        reply = self._answer(logged, verdict, environ, body)
        if verdict.after is not Stroke.NONE:
            return self._strike(verdict.after, environ, logged)
        start_response(reply.status, list(reply.headers))
        return [reply.body]

    def _log(self, environ: Environ, body: bytes) -> LoggedCall:
        headers = {
            "authorization": environ.get("HTTP_AUTHORIZATION", ""),
            "content-type": environ.get("CONTENT_TYPE", ""),
        }
        with self._numbering:
            number = len(self.calls) + 1
            call = parse_call(number, headers, body)
            if call is None:
                service, region = scope_of(headers["authorization"])
                action = environ.get("HTTP_X_AMZ_TARGET") or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
                call = ApiCall(number, service, region, action.rpartition(".")[2], "", ())
            logged = LoggedCall(call)
            self.calls.append(logged)
        return logged

    def _answer(self, logged: LoggedCall, verdict: Verdict, environ: Environ, body: bytes) -> HttpAnswer:
        call = logged.call
        try:
            if verdict.refusal is not None:
                raise verdict.refusal
            self.permissions.check(call, self.account.id)
            reply = self._ec2(call, environ) if call.service == "ec2" else self._other_service(call, environ, body)
        except ApiRefusal as refusal:
            logged.outcome = refusal.code
            if environ.get("HTTP_X_AMZ_TARGET"):
                return _json({"__type": refusal.code, "message": refusal.message}, f"{refusal.status} {refusal.code}")
            return _xml(f"{refusal.status} {refusal.code}", refusal.body())
        except Exception as error:  # a fault of the test cloud itself: said to the caller, and kept for the test
            self.failures.append(error)
            logged.outcome = "InternalError"
            said = ApiRefusal("InternalError", f"The test cloud failed: {type(error).__name__}: {error}", 500)
            return _xml("500 InternalError", said.body())
        logged.outcome = "ok" if reply.good else _error_code(reply.body)
        return reply

    def _ec2(self, call: ApiCall, environ: Environ) -> HttpAnswer:
        if self.regions_allowed is not None and call.region not in self.regions_allowed:
            have = ", ".join(self.regions_allowed)
            raise ApiRefusal("UnsupportedOperation", f"this test cloud has machines in the region {have} only")
        check_request(call)
        check_names(call)
        with self.lock:
            self.rates.take(call)
            region = self.account.region(call.region)
            told = self.tokens.replay(call, region)
            if told is not None:
                return told  # type: ignore[no-any-return]
            if call.action == "GetConsoleOutput":
                return self._console(call, region)
            if call.action == "DescribeSpotInstanceRequests":
                return _xml("200 OK", self.spot.describe(call, region))
            if call.action.startswith("Describe"):
                return self._look(call, region, environ)
            return self._change(call, region, environ)

    def _look(self, call: ApiCall, region: MotoRegion, environ: Environ) -> HttpAnswer:
        if call.action in ("DescribeInstances", "DescribeInstanceStatus"):
            self.before_look()
        with self.visibility.hiding(call, region):
            return self._with_spot(self._to_moto(environ, call.form()))

    def _with_spot(self, reply: HttpAnswer) -> HttpAnswer:
        body = self.spot.with_requests(reply.body)
        headers = tuple(each for each in reply.headers if each[0].lower() != "content-length")
        return HttpAnswer(reply.status, (*headers, ("Content-Length", str(len(body)))), body)

    def _change(self, call: ApiCall, region: MotoRegion, environ: Environ) -> HttpAnswer:
        known = {one.id for one in region.instances()}
        self.visibility.check_known(call)
        changed = apply_rules(call, region)
        if call.action == "StopInstances":
            self.spot.cannot_stop(call)
        answer_dry_run(call)
        if call.action == "RunInstances":
            changed = self.capacity.place(changed, region)
        with self.visibility.noticing(region):
            reply = self._to_moto(environ, changed.form())
        new = [one for one in region.instances() if one.id not in known]
        for instance in new:
            region.adopt(instance, interface_tags(call), kept_interfaces(call))
        if reply.good and is_spot(call):
            self.spot.note(call, [one.id for one in new])
            reply = self._with_spot(reply)
        if reply.good:
            self._follow(call, region)
            self.tokens.remember(call, reply, frozenset(one.id for one in new))
        self.lifecycle.reconcile()
        self.after_change()
        return reply

    def _follow(self, call: ApiCall, region: MotoRegion) -> None:
        if call.action == "ModifyInstanceAttribute" and call.indexes("GroupId"):
            region.follow_groups(region.instance(call.get("InstanceId") or ""))
        if call.action == "RebootInstances":
            for instance_id in call.numbered("InstanceId"):
                self.keeper.reboot(instance_id)

    def _console(self, call: ApiCall, region: MotoRegion) -> HttpAnswer:
        instance_id = call.get("InstanceId") or ""
        if region.instance(instance_id) is None:
            raise ApiRefusal("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        text = base64.b64encode(self.keeper.console(instance_id)[-CONSOLE_BYTES_MAX:]).decode()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        content = f"<instanceId>{instance_id}</instanceId><timestamp>{stamp}</timestamp><output>{text}</output>"
        return _xml("200 OK", answer(call.action, content))

    # -- other services

    def _other_service(self, call: ApiCall, environ: Environ, body: bytes) -> HttpAnswer:
        reply = None
        if environ.get("HTTP_X_AMZ_TARGET"):
            question = json.loads(body or b"{}")
            check_json(call.service, call.action, question)
            if call.service == "ssm" and call.action in ("GetParameter", "GetParameters"):
                reply = self._parameters(call, question)
            elif call.service == "pricing" and call.action == "GetProducts":
                reply = _json(prices.products(question))
        elif call.action == "DecodeAuthorizationMessage":
            message = escape(decoded(call.get("EncodedMessage") or ""))
            content = f"<{call.action}Result><DecodedMessage>{message}</DecodedMessage></{call.action}Result>"
            reply = _xml("200 OK", f"<{call.action}Response>{content}</{call.action}Response>".encode())
        return reply or self._to_moto(environ, body)

    def _parameters(self, call: ApiCall, question: dict[str, Any]) -> HttpAnswer | None:
        with self.lock:
            known = self.account.region(call.region).parameters
        names = question["Names"] if call.action == "GetParameters" else [question["Name"]]
        if not any(name in known for name in names):
            return None
        held = [
            {"Name": name, "Type": "String", "Value": known[name], "Version": 1, "DataType": "aws:ec2:image"}
            for name in names
            if name in known
        ]
        if call.action == "GetParameter":
            return _json({"Parameter": held[0]})
        return _json({"Parameters": held, "InvalidParameters": [name for name in names if name not in known]})

    # -- moto

    def _to_moto(self, environ: Environ, body: bytes) -> HttpAnswer:
        asked = dict(environ)
        asked["wsgi.input"] = io.BytesIO(body)
        asked["CONTENT_LENGTH"] = str(len(body))
        asked["HTTP_X_MOTO_ACCOUNT_ID"] = self.account.id
        got: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            got.update(status=status, headers=headers)
            return _ignore

        try:
            chunks = _moto()(asked, start_response)
            content = b"".join(chunks)
        except Exception as error:  # moto raises for what it has not got, and botocore would try a 500 again and again
            raise ApiRefusal("UnsupportedOperation", f"moto cannot answer this: {type(error).__name__}: {error}")
        for theirs, ours in RENAMED_ERRORS.items():
            content = content.replace(f"<Code>{theirs}</Code>".encode(), f"<Code>{ours}</Code>".encode())
        return HttpAnswer(got["status"], tuple(got["headers"]), content)

    # -- strokes

    def _strike(self, stroke: Stroke, environ: Environ, logged: LoggedCall) -> Iterable[bytes]:
        logged.outcome = "lost"
        if stroke is Stroke.KILL:
            logged.outcome = "killed"
            logged.client_pid = self._client_pid(environ)
            if logged.client_pid in (None, os.getpid()):
                self.weather.cut_off()  # the caller is this process: as far as the cloud can tell, it is dead
            else:
                os.kill(logged.client_pid, signal.SIGKILL)
        connection: socket.socket | None = environ.get("werkzeug.socket")
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("the weather closed this connection")

    def _client_pid(self, environ: Environ) -> int | None:
        if self._listener is None or "REMOTE_PORT" not in environ:
            return None
        return self._listener.client_pid(int(environ["REMOTE_PORT"]))


@functools.cache
def _moto() -> DomainDispatcherApplication:
    """moto's WSGI application; it holds no account, so all clouds of a process share it."""
    return DomainDispatcherApplication(create_backend_app)


class _OwnCalls:
    """Asks moto in the server's own name and reads the answer as boto3 does."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._model = get_session().get_service_model("ec2")
        self._parser = parsers.create_parser("ec2")

    def describe(self, action: str, region: str) -> dict[str, Any]:
        call = ApiCall(0, "ec2", region, action, self._model.api_version, ())
        scope = f"AWS4-HMAC-SHA256 Credential=testcloud/20250101/{region}/ec2/aws4_request"
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/",
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": f"ec2.{region}.amazonaws.com",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": f"ec2.{region}.amazonaws.com",
            "HTTP_AUTHORIZATION": scope,
            "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        reply = self._server._to_moto(environ, call.form())
        shape: Any = self._model.operation_model(action).output_shape
        parsed: dict[str, Any] = self._parser.parse(
            {"body": reply.body, "headers": dict(reply.headers), "status_code": int(reply.status.split()[0])}, shape
        )
        return parsed


def _do_nothing() -> None:
    """The hook that nobody set."""


def _ignore(_: bytes) -> None:
    """WSGI's old way of writing, which moto does not use."""


def _xml(status: str, body: bytes) -> HttpAnswer:
    return HttpAnswer(status, (("Content-Type", "text/xml;charset=UTF-8"), ("Content-Length", str(len(body)))), body)


def _json(content: object, status: str = "200 OK") -> HttpAnswer:
    body = json.dumps(content).encode()
    headers = (("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body))))
    return HttpAnswer(status, headers, body)


def _error_code(body: bytes) -> str:
    start, end = body.find(b"<Code>"), body.find(b"</Code>")
    return body[start + 6 : end].decode("utf-8", "replace") if 0 <= start < end else "error"

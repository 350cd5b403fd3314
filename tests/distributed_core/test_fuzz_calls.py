"""Every handler of every server, called with what makes no sense: an answer in one sentence, and nothing in the log.

By default each handler of scheduler, worker and nanny gets 12 calls, the scheduler's 12 more as from a client, some
1,170 in all; see `fuzzing.FACTOR`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_core import messages
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import EngineError, Refused, RemoteError, UsageError
from distributed_core.machines.coordination import CoordinationMachine
from distributed_core.machines.scheduler import invariants
from distributed_core.servers import arguments
from distributed_core.servers.extensions.coordination import BRINGS_VALUE, NEEDS, check_operation
from distributed_core.servers.nanny import Nanny
from distributed_core.servers.scheduler import Scheduler
from distributed_core.servers.worker import Worker
from tests.distributed_core.fuzzing import FACTOR, anything, inputs

pytestmark = pytest.mark.process

CALLS_EACH = max(1, int(12 * FACTOR))
#: These end the server, or the process of a worker, whatever they are called with.
ENDING = ("terminate", "shutdown", "restart", "restart_workers", "kill", "retire_workers")
WORDS = [
    *(None, True, -1, 0, 3, 2**63, 1.5, float("inf"), float("nan"), "", "x", "a\nb", "127.0.0.1:1", b"", b"\x80\x05."),
    *([], [[]], [None], ["x"], [1], [b"x"], [[1, 2]], [[1, [], "x"]], {}, {"x": 1}, {"names": 5}, {"most": "x"}),
    *("worker", "nanny", "lock_acquire", "semaphore_acquire", "queue_put", "variable_set", "ping", "logs"),
]


class Town:
    """A scheduler, a worker and a nanny in this process, reached over loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __aenter__(self) -> Town:
        self.scheduler = Scheduler(insecure=True)
        self.scheduler.start(0)
        port = self.scheduler.port
        registered = asyncio.Event()
        self.worker = Worker("127.0.0.1", port, insecure=True, nthreads=1)
        self.worker.on_registered = lambda _: registered.set()
        self.worker.start(0)
        self.nanny = Nanny("127.0.0.1", port, insecure=True, nthreads=1, name="under a nanny")
        ready = asyncio.Event()
        self.nanny.on_registered = lambda _: ready.set()
        self.nanny.start(0)
        await registered.wait()
        await ready.wait()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for server in (self.nanny, self.worker, self.scheduler):
            await server.close()

    async def channel(self, server: Any, role: str = "rpc", **details: Any) -> Channel:
        channel, _ = await open_channel(parse_address(f"127.0.0.1:{server.port}"), None, role, details)
        channel.read_replies()
        return channel


def pick(dice: random.Random, fits: Callable[[Any], bool]) -> Any:
    """Return a word, mostly one of the right type."""
    return dice.choice([word for word in WORDS if fits(word)] or WORDS if dice.random() < 0.8 else WORDS)


async def outcome(channel: Channel, op: str, given: dict[Any, Any]) -> Any:
    """Call; return the value or the sentence, and see that it is one."""
    try:
        return await channel.call(op, given, 2.0)
    except RemoteError as error:
        said = str(error)
    except TimeoutError:
        return "it waits"  # a lock, a queue: as it should
    assert "\n" not in said.strip()
    assert "Traceback" not in said
    return said


def in_town(work: Callable[[Town], Awaitable[None]], folder: Path) -> None:
    async def main() -> None:
        async with Town(folder) as town:
            await work(town)

    asyncio.run(asyncio.wait_for(main(), 60 + 60 * FACTOR))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{each.getMessage()} {each.exc_text or ''}" for each in caplog.records if each.levelno >= logging.ERROR]


def test_every_handler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """12 calls of each handler by default: as `rpc`, and of the scheduler's also as a client."""
    dice = random.Random(FACTOR)

    async def work(town: Town) -> None:
        channels = [(server, await town.channel(server)) for server in (town.scheduler, town.worker, town.nanny)]
        channels.append((town.scheduler, await town.channel(town.scheduler, "client", id="fuzzer")))
        for server, channel in channels:
            calls = []
            for op, handler in sorted(server.handlers.items()):
                if op in ENDING:
                    continue
                known = arguments._parameters(handler.__func__)[0]  # type: ignore[attr-defined]
                for _ in range(CALLS_EACH):
                    chosen = {name: pick(dice, known[name].fits) for name in known if dice.random() < 0.9}
                    if dice.random() < 0.1:
                        chosen["peer"] = 1
                    calls.append(outcome(channel, op, chosen))
            await asyncio.gather(*calls)
            assert (await channel.call("ping", {}, 20)) == "pong"
        invariants.check(town.scheduler.machine)
        fresh = await town.channel(town.scheduler, "client", id="honest")
        lease = {"names": ["l"], "count": 1, "lease": "mine"}
        assert await fresh.call("coordinate", {"operation": "lock_acquire", "name": "l", "arguments": lease}, 20)
        assert len((await fresh.call("identity", {}, 20))["workers"]) == 2
        for _, channel in channels:
            channel.abort()
        fresh.abort()

    in_town(work, tmp_path)
    assert complaints(caplog) == []


GREETINGS = [
    {},
    {"name": "n"},
    {"name": "n", "nthreads": "x", "address": "127.0.0.1:1"},
    {"name": "n", "nthreads": float("inf"), "address": "127.0.0.1:1"},
    {"name": "n", "nthreads": 2**62, "address": "127.0.0.1:1"},
    {"name": "n", "nthreads": 0, "address": "127.0.0.1:1"},
    {"name": "n", "nthreads": 1, "address": "no address"},
    {"name": "n", "nthreads": 1, "address": 5},
    {"name": "n", "nthreads": 1, "address": "127.0.0.1:1", "nanny": ["x"]},
    {"name": "n", "nthreads": 1, "address": "127.0.0.1:1", "resources": {"GPU": float("nan")}},
    {"name": "n", "nthreads": 1, "address": "127.0.0.1:1", "resources": [1]},
    {"name": "n", "nthreads": 1, "address": "127.0.0.1:1", "versions": [[[[[[[[1]]]]]]]]},
]


@pytest.mark.parametrize(
    ("role", "details"),
    [("worker", each) for each in GREETINGS]
    + [("client", {"weight": each}) for each in (0, -1, float("nan"), float("inf"), 5e-324, "x", [])]
    + [("king", {}), ("", {})],
)
def test_greetings_that_make_no_sense(role: str, details: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        scheduler = Scheduler(insecure=True)
        scheduler.start(0)
        with pytest.raises(Refused) as caught:
            await open_channel(parse_address(f"127.0.0.1:{scheduler.port}"), None, role, details)
        assert "\n" not in str(caught.value)
        assert scheduler.machine.ledger.workers == {}
        await scheduler.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert complaints(caplog) == []


@pytest.mark.parametrize(
    ("op", "given", "text"),
    [
        ("ping", {"peer": 1}, "does not take 'peer'"),
        ("ping", {"more": 1}, "does not take 'more'; it takes nothing"),
        ("who_has", {"keys": 5}, "keys is a list of text or nothing, not 5"),
        ("who_has", {"keys": [5]}, "not list of int"),
        ("wait_for_workers", {}, "needs n, an integer"),
        ("wait_for_workers", {"n": True}, "n is an integer, not True"),
        ("wait_for_workers", {"n": 99, "timeout": float("nan")}, "timeout is a number or nothing, not nan"),
        ("metadata_set", {"keys": [], "value": 1}, "at least one key"),
        ("log_event", {"topics": ["x"], "payload": [[[]]]}, "bytes or a list of frames"),
        ("dataset_publish", {"name": "x", "value": [b"", [1]]}, "a value is its frames"),
        ("no_such_thing", {}, "has no handler"),
    ],
)
def test_what_a_caller_is_told(op: str, given: dict[str, Any], text: str) -> None:
    async def main() -> None:
        scheduler = Scheduler(insecure=True)
        scheduler.start(0)
        channel, _ = await open_channel(parse_address(f"127.0.0.1:{scheduler.port}"), None, "rpc")
        channel.read_replies()
        with pytest.raises(RemoteError, match=text):
            await channel.call(op, given, 20)
        channel.abort()
        await scheduler.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_machine_knows_what_it_needs() -> None:
    assert set(NEEDS) == set(CoordinationMachine._OPERATIONS)


@inputs(200)
@given(
    st.sampled_from(sorted(NEEDS)),
    st.dictionaries(st.sampled_from(["names", "count", "lease", "most", "batch", "token"]), anything, max_size=4),
)
def test_what_is_coordinated_is_looked_at_first(operation: str, given: dict[str, Any]) -> None:
    """200 operations by default: refused, or done without an error, then and when its holder is gone."""
    from distributed_core.machines.coordination import Asked, HolderLost

    machine = CoordinationMachine()
    value = [b"", []] if operation in BRINGS_VALUE else None
    try:
        check_operation(operation, given, value)
    except UsageError:
        return
    for request in (1, 2):
        machine.handle(Asked(request, 1, operation, "n", {**given, "token": request}))
    machine.handle(HolderLost(1))


def test_a_worker_leaves_a_scheduler_that_makes_no_sense(caplog: pytest.LogCaptureFixture) -> None:
    """It registers again, with new books, and its process goes on."""
    from tornado.tcpserver import TCPServer

    from distributed_core.comm.channel import greet
    from distributed_core.comm.tcp import accept, bind

    mad = [
        messages.Assignment(1, 1, 1, b"", [], float("nan")),
        messages.Assignment(1, 1, 1, b"", [[]], 0.0),
        messages.Completion(1, 1, 1, 1.0, None),
    ]
    registered: asyncio.Queue[int] = asyncio.Queue()

    class Mad(TCPServer):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            channel = Channel(await accept(stream))
            hello = await greet(channel, lambda hello: messages.Welcome("Scheduler", "mad", 1, {}))
            if hello.role == "worker":
                registered.put_nowait(len(mad))
                if mad:
                    channel.send(mad.pop())
            try:
                while True:
                    await channel.read()
            except EngineError:
                channel.abort()

    async def main() -> None:
        server = Mad()
        sockets = bind("127.0.0.1", 0)
        server.add_sockets(sockets)
        worker = Worker("127.0.0.1", sockets[0].getsockname()[1], insecure=True, nthreads=1)
        worker.start(0)
        assert [await registered.get() for _ in range(4)] == [3, 2, 1, 0]
        await worker.close()
        server.stop()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert complaints(caplog) == []

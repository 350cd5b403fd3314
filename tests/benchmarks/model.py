"""A whole cluster in one process and virtual time: real machines, real packets, no sockets, no threads.

It counts what does not depend on how busy the computer is: packets, messages, bytes, instructions of the machines and
calls of Python functions. The processor time that the scheduler's machine takes is measured apart from all else.
"""

from __future__ import annotations

import gc
import heapq
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from distributed_core import messages
from distributed_core.machines.scheduler import SchedulerMachine, events, instructions
from distributed_core.machines.worker import WorkerMachine
from distributed_core.machines.worker import events as worker_events
from distributed_core.machines.worker import instructions as worker_instructions
from distributed_core.protocol.codec import decode, encode
from distributed_core.protocol.framing import Decoder, encode_packet
from distributed_core.protocol.plain import from_plain, to_plain

#: One way over the network, and how long what is sent waits for more to leave with it: a turn of a busy loop.
WAY_S = 0.0002
TURN_S = 0.0005
CHUNK_TASKS = 500
DIGEST = b"0123456789abcdef"
CLIENT = 1
PAYLOAD = b"\x80\x05K\x01K\x02\x86\x94}\x94\x86\x94."


class ModelWorker:
    """A worker with one thread whose tasks take `duration_s` each."""

    def __init__(self, cluster: ModelCluster, peer: int, duration_s: float) -> None:
        self.cluster = cluster
        self.peer = peer
        self.address = f"127.0.0.1:{10000 + peer}"
        self.machine = WorkerMachine()
        self._duration_s = duration_s
        self._queue: list[Any] = []
        self._busy = False
        self._done: list[Any] = []
        self._reporting = False

    def feed(self, event: Any) -> None:
        for asked in self.machine.handle(event, self.cluster.now):
            self.cluster.counts["worker instructions"] += 1
            kind = type(asked)
            if kind is worker_instructions.Report:
                self.cluster.to_scheduler(self.peer, asked.messages)
            elif kind is worker_instructions.Execute:
                self._queue.append(asked)
                self._start()
            elif kind is worker_instructions.TakeBack:
                kept = [each for each in self._queue if each.run != asked.run]
                taken = len(kept) < len(self._queue)
                self._queue = kept
                self.feed(worker_events.RunTaken(asked.run, taken))
            elif kind is worker_instructions.Fetch:
                found = [(task, 28) for task in asked.tasks]
                self.cluster.counts["fetches"] += 1
                event = worker_events.DataFetched(asked.address, found, [], asked.small)
                self.cluster.later(2 * WAY_S, lambda event=event: self.feed(event))  # type: ignore[misc]

    def _start(self) -> None:
        if self._queue and not self._busy:
            self._busy = True
            run = self._queue.pop(0)
            self.cluster.later(self._duration_s, lambda: self._end(run))

    def _end(self, run: Any) -> None:
        self._busy = False
        self._done.append(worker_events.RunFinished(run.run, 28, self._duration_s, b"\x80\x05K\x02."))
        self._start()
        if not self._reporting:
            self._reporting = True
            self.cluster.later(TURN_S, self._report)

    def _report(self) -> None:
        self._reporting = False
        done, self._done = self._done, []
        self.feed(worker_events.Executed(done))


class ModelCluster:
    """A scheduler, `workers` workers and one client.

    Attributes
    ----------
    counts
        How often what happened: packets, messages and bytes by direction, instructions, calls.
    scheduler_s
        The processor time of the scheduler's machine, in seconds.
    """

    def __init__(self, workers: int, duration_s: float = 5e-6, count_calls: bool = False) -> None:
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.scheduler_s = 0.0
        self.finished: dict[int, None] = {}
        self._count_calls = count_calls
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._numbers = 0
        self.machine = SchedulerMachine()
        self._feed(events.ClientJoined(CLIENT, "client"))
        self.workers = {peer: ModelWorker(self, peer, duration_s) for peer in range(2, workers + 2)}
        for worker in self.workers.values():
            self._feed(events.WorkerJoined(worker.peer, worker.address, str(worker.peer), 1, {}))
        self._run()
        self.reset()

    def reset(self) -> None:
        """Count from here on."""
        self.counts.clear()
        self.scheduler_s = 0.0

    def run(self, tasks: Iterable[list[int]]) -> list[int]:
        """Submit tasks, each given by the numbers of its inputs, and run until all are done; return their numbers."""
        functions: list[Any] = [[DIGEST, "increment", b"body"]]
        chunk: list[Any] = []
        numbers = []
        for inputs in tasks:
            self._numbers += 1
            numbers.append(self._numbers)
            chunk.append([self._numbers, None, DIGEST, PAYLOAD, inputs, 0, None])
            if len(chunk) == CHUNK_TASKS:
                self._from_client([messages.Submission(functions, chunk)])
                functions, chunk = [], []
        self._from_client([messages.Submission(functions, chunk)])
        self._run()
        assert all(number in self.finished for number in numbers)
        return numbers

    def release(self, numbers: list[int]) -> None:
        """Let the client drop these futures."""
        self._from_client([messages.Release(numbers)])
        self._run()

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._order, action))

    def to_scheduler(self, peer: int, batch: list[Any]) -> None:
        batch = self._over("worker to scheduler", batch)
        self.later(WAY_S, lambda: self._feed(events.Received(peer, batch)))

    def _from_client(self, batch: list[Any]) -> None:
        batch = self._over("client to scheduler", batch)
        self._feed(events.Received(CLIENT, batch))

    def _over(self, way: str, batch: list[Any]) -> list[Any]:
        """Send a batch as one packet; return it as it arrives."""
        pieces = encode_packet(encode([to_plain(message) for message in batch]))
        self.counts[f"{way}: packets"] += 1
        self.counts[f"{way}: messages"] += len(batch)
        self.counts[f"{way}: bytes"] += sum(map(len, pieces))
        decoder = Decoder()
        decoder.feed(b"".join(pieces))
        frames = decoder.next_packet()
        assert frames is not None
        return [from_plain(plain) for plain in decode(frames)]

    def _feed(self, event: Any) -> None:
        calls = 0

        def count(frame: Any, what: str, argument: Any) -> None:
            nonlocal calls
            calls += what == "call"

        if self._count_calls:
            gc.disable()  # Its callbacks are calls too.
            sys.setprofile(count)
        begin_s = time.process_time()
        asked = self.machine.handle(event, self.now)
        self.scheduler_s += time.process_time() - begin_s
        if self._count_calls:
            sys.setprofile(None)
            gc.enable()
            self.counts["scheduler calls"] += calls
        self.counts["scheduler events"] += 1
        for each in asked:
            self.counts["scheduler instructions"] += 1
            if type(each) is not instructions.Send:
                continue
            if each.peer == CLIENT:
                for message in self._over("scheduler to client", each.messages):
                    if type(message) is messages.Finished:
                        self.finished[message.number] = None
            else:
                batch = self._over("scheduler to worker", each.messages)
                worker = self.workers[each.peer]
                self.later(WAY_S, lambda w=worker, b=batch: w.feed(worker_events.Instructed(b)))  # type: ignore[misc]

    def _run(self) -> None:
        while self._heap:
            self.now, _, action = heapq.heappop(self._heap)
            action()


def independent(n: int) -> list[list[int]]:
    """`n` tasks without inputs."""
    return [[] for _ in range(n)]


def chained(n: int) -> list[list[int]]:
    """`n` tasks, each built on the one before."""
    return [[number] if number else [] for number in range(n)]


def tree(leaves: int) -> list[list[int]]:
    """A binary tree of 2 * `leaves` - 1 tasks; `leaves` is a power of two."""
    tasks: list[list[int]] = [[] for _ in range(leaves)]
    level = list(range(1, leaves + 1))
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=True))
        level = [len(tasks) + place + 1 for place in range(len(pairs))]
        tasks += [list(pair) for pair in pairs]
    return tasks


def all_to_all(n: int) -> list[list[int]]:
    """`n` tasks, `n` parts of each, and `n` tasks that take one part of every one."""
    tasks: list[list[int]] = [[] for _ in range(n)]
    tasks += [[source + 1] for source in range(n) for _ in range(n)]
    return tasks + [[n + source * n + place + 1 for source in range(n)] for place in range(n)]


SHAPES: dict[str, list[list[int]]] = {
    "independent": independent(2000),
    "chain": chained(500),
    "tree": tree(512),
    "all-to-all": all_to_all(30),
}


def counted(shape: str, workers: int = 4) -> dict[str, float]:
    """Return the counts of one shape per 1,000 tasks, with the release of all at its end."""
    cluster = ModelCluster(workers, count_calls=True)
    tasks = SHAPES[shape]
    cluster.release(cluster.run(tasks))
    ways = ("client to scheduler", "scheduler to worker", "worker to scheduler", "scheduler to client")
    found: dict[str, float] = {
        f"{what} per 1,000 tasks": sum(cluster.counts[f"{way}: {what}"] for way in ways)
        for what in ("packets", "messages", "bytes")
    }
    for what in ("scheduler instructions", "worker instructions", "scheduler calls", "fetches"):
        found[f"{what} per 1,000 tasks"] = cluster.counts[what]
    return {what: round(1000 * count / len(tasks), 1) for what, count in found.items()}


def held_by_scheduler(tasks: int = 4000) -> dict[str, float]:
    """Return what the scheduler's records take per finished task that is held: allocations, and their bytes.

    Payloads and function bodies are not in it: they are the user's, and gone or shared by then.
    """
    cluster = ModelCluster(4)
    cluster.release(cluster.run(independent(tasks)))
    tracemalloc.start()
    try:
        cluster.run(independent(tasks))
        cluster.machine.ledger.log.clear()  # It is bounded, whatever is held.
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    records = [tracemalloc.Filter(True, f"*/machines/{place}") for place in ("scheduler/*", "pages.py")]
    made = snapshot.filter_traces(records).statistics("filename")
    return {
        "allocations per held task": sum(each.count for each in made) / tasks,
        "bytes per held task": sum(each.size for each in made) / tasks,
    }


def scheduler_us_per_task(workers: int, tasks: int, duration_s: float = 0.1) -> float:
    """Return the processor time of the scheduler's machine per task, in microseconds, with so many workers."""
    cluster = ModelCluster(workers, duration_s)
    # First a few of them: how long they take is known afterwards.
    cluster.release(cluster.run(independent(2 * workers)))
    cluster.reset()
    cluster.release(cluster.run(independent(tasks)))
    return 1e6 * cluster.scheduler_s / tasks

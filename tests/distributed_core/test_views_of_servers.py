"""Real servers whose books were made wrong: within two heartbeats the task runs, or its data is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from distributed_core import LocalCluster, messages
from distributed_core.machines.scheduler import invariants as scheduler_invariants
from distributed_core.machines.scheduler.peers import WorkerPeer
from distributed_core.machines.worker.replicas import Replica
from distributed_core.servers import worker
from distributed_core.settings import WorkerSettings


def plus(*values: int) -> int:
    return sum(values)


def lose_one(machine: Any, word: type) -> list[Any]:
    """Let the next word of this kind that a machine sends be lost; return where it is then."""
    handle, gone = machine.handle, []

    def losing(event: Any, now: float) -> list[Any]:
        found: list[Any] = handle(event, now)
        for asked in found:
            for place, each in enumerate(getattr(asked, "messages", ())):
                if type(each) is word and not gone:
                    gone.append(asked.messages.pop(place))
                    break
        return found

    machine.handle = losing
    return gone


class Servers:
    """A scheduler and a worker in this process, and what is done to their books on their loop."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.scheduler, self.worker = cluster._servers

    def on_loop(self, work: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return work()

        return self.cluster._thread.run(call())

    def peer(self) -> WorkerPeer:
        (found,) = self.scheduler.machine.ledger.workers.values()
        return found  # type: ignore[no-any-return]

    def corrupt(self, what: str) -> None:
        peer, machine = self.peer(), self.worker.machine
        if what == "a holder":
            del peer.held[next(iter(peer.held))]
        elif what == "data":
            (task,) = list(peer.held)
            del machine.replicas[task]
            self.worker.data.discard([task])
        elif what == "a phantom":
            machine.replicas[777] = Replica(777, 8)
            machine.replicas[777].held = True
        elif what == "a function":
            self.worker._bodies.clear()
        elif what == "Assignment":
            lose_one(self.scheduler.machine, messages.Assignment)
        elif what == "Completion":
            lose_one(machine, messages.Completion)
        else:
            lose_one(self.scheduler.machine, messages.Disposal)

    async def beats(self, count: int) -> None:
        """Wait for so many heartbeats more."""
        metrics: list[Any] = []
        while len(metrics) < count + 1:
            if not metrics or self.peer().metrics is not metrics[-1]:
                metrics.append(self.peer().metrics)
            await self.scheduler.changed()

    def of_one_mind(self) -> bool:
        theirs = {task for task, each in self.worker.machine.replicas.items() if each.held}
        scheduler_invariants.check(self.scheduler.machine)
        return set(self.peer().held) == theirs == set(self.worker.data) and not self.worker.machine.runs


@pytest.mark.process
@pytest.mark.parametrize(
    "what", ["a holder", "data", "a phantom", "a function", "Assignment", "Completion", "Disposal"]
)
def test_real_servers_heal(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WorkerSettings", partial(WorkerSettings, heartbeat_interval_s=0.1))
    with LocalCluster(1, 1, processes=False) as cluster, cluster.client() as client:
        servers = Servers(cluster)
        one = client.submit(plus, 1, 2)
        assert one.result(timeout=20) == 3
        servers.on_loop(lambda: servers.corrupt(what))
        two = client.submit(plus, 10, 20)
        assert two.result(timeout=20) == 30
        client.submit(plus, 5).result(timeout=20)
        if what == "data":
            cluster._thread.run(servers.beats(3), 30.0)
        assert client.submit(plus, one, two).result(timeout=20) == 33
        assert client.gather([one, two]) == [3, 30]
        cluster._thread.run(servers.beats(4), 30.0)
        assert servers.on_loop(servers.of_one_mind)
        before = servers.on_loop(lambda: servers.scheduler.machine.ledger.mended)
        assert before > 0 or what == "a function"
        cluster._thread.run(servers.beats(3), 30.0)
        assert servers.on_loop(lambda: servers.scheduler.machine.ledger.mended) == before

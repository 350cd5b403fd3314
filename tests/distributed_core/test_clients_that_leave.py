"""Clients that leave: in good order, killed, or cut off and back in a moment."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distributed_core import Client, messages
from distributed_core.client.blocking import LoopThread
from distributed_core.machines.scheduler import events
from distributed_core.servers.scheduler import Scheduler
from distributed_core.settings import SchedulerSettings
from tests.distributed_core.launching import DEADLINE_S, Launcher
from tests.distributed_core.test_scheduler_machine import Bench, F

RETURN_S = 3.0


def test_who_said_farewell_or_has_nothing_or_misbehaved_is_not_waited_for() -> None:
    bench = Bench()
    machine = bench.machine
    bench.worker()
    client = bench.client()
    assert machine.absence_s(client, silent=False) == 0.0
    bench.submit(client, 1)
    assert machine.absence_s(client, silent=False) == machine.settings.client_return_s
    assert machine.absence_s(client, silent=True) == machine.settings.client_absence_max_s
    bench.say(client, messages.Farewell("it was closed"))
    assert machine.absence_s(client, silent=False) == machine.absence_s(client, silent=True) == 0.0
    bench.feed(events.ClientLost(client))
    assert machine.absence_s(client, silent=True) == 0.0

    other = bench.client()
    bench.submit(other, 1)
    machine.handle(events.Received(other, [messages.Presence(1)]), bench.now)
    assert machine.absence_s(other, silent=False) == 0.0


def test_a_client_that_is_back_before_it_was_given_up_finds_its_runs_and_results() -> None:
    bench = Bench()
    worker, client = bench.worker(nthreads=2), bench.client()
    bench.submit(client, 1)
    bench.submit(client, 2)
    one, two = bench.runs(worker)
    bench.finish(worker, one)
    tasks = bench.machine.ledger.tasks
    name = bench.machine.ledger.clients[client].name
    # Nothing is fed when its connection breaks; what is told to it then goes nowhere.
    bench.finish(worker, two)
    back = 99
    bench.feed(events.ClientJoined(back, name, returns=True))
    again = [[number, None, F, [], [], 0, None] for number in (1, 2)]
    bench.say(back, messages.Submission([[F, "f", b"body"]], again), messages.Reunion(1))
    assert [each.number for each in bench.take(back, messages.Finished)] == [1, 2]
    # Its former number is of the past.
    bench.feed(events.ClientLost(client))
    assert [each.id for each in tasks.values()] == [1, 2]
    assert not bench.runs(worker)


# --- with a scheduler in this process, so that one can see what it keeps --------------------------


@contextmanager
def served() -> Iterator[tuple[LoopThread, Scheduler]]:
    thread = LoopThread("scheduler")

    async def make() -> Scheduler:
        made = Scheduler(host="127.0.0.1", settings=SchedulerSettings(client_return_s=RETURN_S))
        made.start(0)
        return made

    made = thread.run(make())
    try:
        yield thread, made
    finally:
        thread.run(made.close())
        thread.stop()


def eventually(fact: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gate(folder: str, value: int) -> int:
    with open(f"{folder}/ran", "a") as file:
        file.write("ran\n")
    while not Path(folder, "open").exists():
        time.sleep(0.01)
    return value


@pytest.mark.process
def test_a_client_that_closes_lets_go_at_once(launch: Launcher, tmp_path: Path) -> None:
    with served() as (_, scheduler):
        launch.worker(scheduler.address, "--nthreads", "1", "--no-nanny")
        with Client(scheduler.address) as client:
            stuck = client.submit(gate, str(tmp_path), 1, pure=False)
            eventually((tmp_path / "ran").exists)
            assert not stuck.done()
        closed_s = time.monotonic()
        eventually(lambda: not scheduler.machine.ledger.tasks)
        assert time.monotonic() - closed_s < RETURN_S / 2
        (tmp_path / "open").touch()


SCRIPT = """
import sys
from distributed_core import Client
client = Client(sys.argv[1])
future = client.submit(max, 1, 2, pure=False)
print(future.result(), flush=True)
sys.stdin.read()
"""


@pytest.mark.process
def test_a_client_that_is_killed_is_let_go_after_a_while(launch: Launcher) -> None:
    with served() as (_, scheduler):
        launch.worker(scheduler.address, "--nthreads", "1", "--no-nanny")
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, scheduler.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "2\n"
            process.kill()
            killed_s = time.monotonic()
            process.communicate(timeout=DEADLINE_S)
            assert len(scheduler.machine.ledger.tasks) == 1
            eventually(lambda: not scheduler.machine.ledger.tasks)
            assert RETURN_S * 0.8 < time.monotonic() - killed_s < RETURN_S + 10.0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.process
def test_a_client_that_is_cut_off_loses_no_work(launch: Launcher, tmp_path: Path) -> None:
    with served() as (thread, scheduler):
        launch.worker(scheduler.address, "--nthreads", "2", "--no-nanny")
        with Client(scheduler.address) as client:
            done = client.submit(max, 1, 2, pure=False)
            assert done.result(timeout=DEADLINE_S) == 2
            stuck = client.submit(gate, str(tmp_path), 7, pure=False)
            eventually((tmp_path / "ran").exists)
            runs = scheduler.machine.ledger.next_run_id()
            before = max(scheduler.machine.ledger.clients)

            async def cut() -> int:
                scheduler._peers[before].abort()
                return len(scheduler.machine.ledger.tasks)

            assert thread.run(cut()) == 2
            eventually(lambda: max(scheduler.machine.ledger.clients) > before)
            (tmp_path / "open").touch()
            assert stuck.result(timeout=DEADLINE_S) == 7
            assert done.result(timeout=DEADLINE_S) == 2
            assert scheduler.machine.ledger.next_run_id() == runs + 1
        assert (tmp_path / "ran").read_text() == "ran\n"
        eventually(lambda: not scheduler.machine.ledger.tasks)

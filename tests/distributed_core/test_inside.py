"""Code inside tasks: tasks that submit tasks, on as few threads as there can be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from distributed_core import (
    Client,
    Future,
    as_completed,
    get_client,
    get_worker,
    rejoin,
    secede,
    wait,
    worker_client,
)
from distributed_core.errors import UsageError
from tests.distributed_core.launching import launcher

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one worker with one thread."""
    with launcher(tmp_path_factory.mktemp("narrow")) as made:
        _, address = made.scheduler()
        made.worker(address, "--nthreads", "1", "--name", "only")
        yield address


@pytest.fixture
def client(narrow: str) -> Iterator[Client]:
    with Client(narrow, timeout=20) as made:
        made.wait_for_workers(1, timeout=30)
        yield made


def inc(x: int) -> int:
    return x + 1


def fib(n: int) -> int:
    if n < 2:
        return n
    client = get_client()
    one, two = client.submit(fib, n - 1), client.submit(fib, n - 2)
    return one.result() + two.result()


def fib_of_worker_client(n: int) -> int:
    if n < 2:
        return n
    with worker_client() as client:
        return sum(client.gather(client.map(fib_of_worker_client, [n - 1, n - 2])))


def sum_as_completed(n: int) -> int:
    client = get_client()
    return sum(future.result() for future in as_completed(client.map(inc, range(n))))


def sum_waited(n: int) -> int:
    futures = get_client().map(inc, range(n))
    wait(futures)
    return sum(get_client().gather(futures))


def threads_during(way: str) -> tuple[str, bool, int]:
    worker = get_worker()
    before = threading.current_thread().name
    if way == "secede":
        secede()
        secede()
        others = get_client().submit(inc, 1).result()
        rejoin()
        rejoin()
    else:
        others = 0
    return worker.name or "", before == threading.current_thread().name, others


def seats() -> int:
    return sum(thread.name.startswith("task-") for thread in threading.enumerate())


def make_futures(n: int) -> list[Future]:
    return get_client().map(inc, range(n))


def test_tasks_that_wait_for_tasks_need_one_thread(client: Client) -> None:
    assert client.submit(fib, 7).result(timeout=60) == 13
    assert client.submit(fib_of_worker_client, 6).result(timeout=60) == 8
    assert client.submit(sum_as_completed, 10).result(timeout=60) == 55
    assert client.submit(sum_waited, 10).result(timeout=60) == 55


def test_a_seat_is_given_and_given_back(client: Client) -> None:
    assert client.submit(threads_during, "secede").result(timeout=30) == ("only", True, 2)
    # Each thread that left its seat has either ended or is the one that is left.
    assert client.submit(seats).result(timeout=30) == 1


def test_a_long_task_that_seceded_holds_nobody_up(client: Client) -> None:
    def hold(name: str) -> str:
        secede()
        lock = threading.Event()
        get_worker().data.setdefault(name, lock)  # type: ignore[call-overload]
        lock.wait()
        return "held"

    def let_go(name: str) -> bool:
        while name not in get_worker().data:  # type: ignore[comparison-overlap]
            time.sleep(0.005)
        get_worker().data.pop(name).set()  # type: ignore[call-overload]
        return True

    held = client.submit(hold, "lock")
    assert client.gather(client.map(inc, range(20))) == list(range(1, 21))
    assert client.submit(let_go, "lock").result(timeout=30)
    assert held.result(timeout=30) == "held"
    assert "gave up its thread" not in client.explain(held)


def test_futures_that_a_task_returns_are_futures_here(client: Client) -> None:
    futures = client.submit(make_futures, 5).result(timeout=30)
    assert all(isinstance(each, Future) for each in futures)
    assert client.gather(futures) == [1, 2, 3, 4, 5]


def test_outside_of_a_task_there_is_no_worker() -> None:
    for call in (get_worker, secede, rejoin):
        with pytest.raises(UsageError, match="inside a task"):
            call()
    with pytest.raises(UsageError, match="inside a task"), worker_client():
        raise AssertionError

"""What becomes of work when a connection, or the scheduler, is lost."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from distributed_core import Client, LocalCluster, as_completed, fire_and_forget
from distributed_core.errors import SchedulerLost
from tests.distributed_core.launching import Launched, Launcher

pytestmark = pytest.mark.process


def logged(folder: str, name: int, *inputs: int) -> int:
    """A task that leaves a line in a file each time it runs."""
    from pathlib import Path

    with open(Path(folder) / str(name), "a") as file:
        file.write("ran\n")
    return name + sum(inputs)


def waits_for(path: str, value: int) -> int:
    import time
    from pathlib import Path

    Path(path + ".begun").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return value


def begun(path: Path) -> None:
    while not Path(f"{path}.begun").exists():
        time.sleep(0.01)


def restart(launch: Launcher, scheduler: Launched, address: str) -> Launched:
    """Kill the scheduler in the middle of whatever it does, and start another one at its address."""
    scheduler.process.kill()
    scheduler.wait()
    made = launch.start("dscheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    assert made.line().endswith(address)
    return made


def runs(folder: Path) -> dict[str, int]:
    return {each.name: len(each.read_text().splitlines()) for each in folder.iterdir()}


def by_value() -> None:
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


by_value()


def test_kill_9_of_the_scheduler_in_the_middle_of_a_graph(launch: Launcher, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    gate = tmp_path / "gate"
    scheduler, address = launch.scheduler()
    for _ in range(2):
        launch.worker(address, "--nthreads", "2")
    with Client(address) as client:
        client.wait_for_workers(2, timeout=30)
        first = [client.submit(logged, str(ran), n, pure=False) for n in range(20)]
        done = [client.submit(logged, str(ran), 100 + n, first[n], pure=False) for n in range(20)]
        client.gather(done)
        del first  # Held by nobody, and needed by nobody.
        stuck = client.submit(waits_for, str(gate), 7, pure=False)
        begun(gate)
        last = [client.submit(logged, str(ran), 200 + n, done[n], stuck, pure=False) for n in range(20)]
        here = client.scatter([1, 2, 3])
        failed = client.submit(divmod, 1, 0, pure=False)
        assert isinstance(failed.exception(), ZeroDivisionError)
        restart(launch, scheduler, address)
        gate.touch()
        assert client.gather(last) == [(200 + n) + (100 + n + n) + 7 for n in range(20)]
        assert client.gather(done) == [100 + n + n for n in range(20)]
        # Nothing ran twice: neither what was done nor what was running.
        assert runs(ran) == {str(base + n): 1 for base in (0, 100, 200) for n in range(20)}
        assert client.submit(sum, here).result(timeout=30) == 6
        assert isinstance(failed.exception(), ZeroDivisionError)
        assert client.submit(logged, str(ran), 300, done[0], pure=False).result(timeout=30) == 400


def test_results_come_while_the_scheduler_is_away(launch: Launcher, tmp_path: Path) -> None:
    """A task ends while there is no scheduler; its result is there when one comes."""
    gate = tmp_path / "gate"
    scheduler, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--no-nanny")
    with Client(address) as client:
        stuck = client.submit(waits_for, str(gate), 5, pure=False)
        begun(gate)
        scheduler.process.kill()
        scheduler.wait()
        gate.touch()
        later = client.map(lambda x: x + 1, range(100), pure=False)
        made = launch.start("dscheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
        assert made.line().endswith(address)
        assert stuck.result(timeout=30) == 5
        assert sorted(each.result() for each in as_completed(later, timeout=30)) == list(range(1, 101))


def test_a_scheduler_that_stays_away(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    worker = launch.worker(address, "--nthreads", "1", "--no-nanny", "--reconnect-timeout", "0.5")
    client = Client(address, reconnect_timeout=0.5)
    waiting = client.submit(waits_for, "/nowhere", 1, pure=False)
    scheduler.process.kill()
    with pytest.raises(SchedulerLost, match="did not come back"):
        waiting.result(timeout=30)
    client.close()
    assert worker.wait() == 1
    assert "no scheduler at" in worker.errors()


def test_a_scheduler_that_ends_in_good_order_is_not_looked_for(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    with Client(address) as client:
        waiting = client.submit(sum, [1, 2])
        assert scheduler.end() == 0
        with pytest.raises(SchedulerLost, match="was ended"):
            waiting.result(timeout=30)


def test_connections_that_break_all_the_time_change_no_result() -> None:
    source = random.Random(4)
    with LocalCluster(2, scheduler_port=0) as cluster, cluster.client() as client:
        rounds = 6
        broken = 0

        def cut() -> int:
            """Break some connections of the scheduler, on its own loop."""
            channels = list(cluster._servers[0]._peers.values())
            chosen = source.sample(channels, source.randint(min(1, len(channels)), len(channels)))
            for channel in chosen:
                channel.abort()
            return len(chosen)

        for place in range(rounds):
            leaves = client.map(lambda x, place=place: x + place, range(300), pure=False)
            level = leaves
            while len(level) > 1:
                pairs = [level[start : start + 4] for start in range(0, len(level), 4)]
                level = [client.submit(sum, pair, pure=False) for pair in pairs]
            for seen, _ in enumerate(as_completed(leaves, timeout=60)):
                if seen in (20, 150):
                    broken += on_loop(cluster, cut)
            assert level[0].result(timeout=60) == sum(range(300)) + 300 * place
            assert client.gather(leaves) == [x + place for x in range(300)]
        assert broken >= rounds


def on_loop(cluster: LocalCluster, action: Any) -> Any:
    import concurrent.futures

    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    cluster._servers[0].loop.add_callback(lambda: done.set_result(action()))
    return done.result(timeout=30)


def test_a_promise_outlives_the_scheduler(launch: Launcher, tmp_path: Path) -> None:
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    ran.mkdir()
    scheduler, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--no-nanny")
    with Client(address) as client:
        stuck = client.submit(waits_for, str(gate), 1, pure=False)
        begun(gate)
        fire_and_forget(client.submit(logged, str(ran), 1, stuck, pure=False))
        restart(launch, scheduler, address)
        gate.touch()
        while runs(ran) != {"1": 1}:
            time.sleep(0.01)


def test_a_try_that_nobody_answers_does_not_hold_up_the_return(launch: Launcher) -> None:
    scheduler, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--no-nanny")
    with Client(address) as client:
        assert client.submit(abs, -1).result(timeout=30) == 1
        scheduler.process.kill()
        scheduler.wait()
        host, _, port = address.rpartition(":")
        with socket.create_server((host, int(port)), reuse_port=False) as silent:
            silent.settimeout(30)
            silenced = [silent.accept()[0] for _ in range(2)]  # the client and the worker
        made = launch.start("dscheduler", "--host", host, "--port", port)
        assert made.line().endswith(address)
        assert client.submit(abs, -2).result(timeout=20) == 2
        for each in silenced:
            each.close()

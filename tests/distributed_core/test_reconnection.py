"""What becomes of work when a connection, or the scheduler, is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from distributed_core import Client, as_completed
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

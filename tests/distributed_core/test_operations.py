"""Functions on workers as such, questions, logs, and clusters that a client starts by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_core import Client, LocalCluster, Nanny, Worker, get_client
from distributed_core.errors import EngineError, NotSerializable, RemoteError, UsageError
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process


def until(condition: Callable[[], Any], deadline_s: float = 30.0) -> Any:
    """Return the first true value of `condition`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return value


def hold(path: str) -> str:
    """Touch `path`, then wait until it is gone."""
    Path(path).touch()
    while os.path.exists(path):
        time.sleep(0.01)
    return "through"


# --- run ------------------------------------------------------------------------------------------


def test_run_on_all_workers(client: Client) -> None:
    pids = client.run(os.getpid)
    assert set(pids) == set(client.scheduler_info()["workers"])
    assert len(set(pids.values())) == 2
    assert client.run(lambda a, *, b: a + b, 1, b=2) == dict.fromkeys(pids, 3)


def test_run_gets_the_worker_and_runs_coroutines_on_its_loop(client: Client) -> None:
    def address(dask_worker: Worker) -> str:
        return dask_worker.address

    async def on_loop(worker: Worker) -> tuple[str, bool]:
        return worker.address, asyncio.get_running_loop() is worker.loop.asyncio_loop  # type: ignore[attr-defined]

    def given(worker: int) -> int:
        return worker

    def through_client() -> int:
        return get_client().submit(abs, -4).result(timeout=20)

    addresses = list(client.nthreads())
    assert client.run(address) == {each: each for each in addresses}
    assert client.run(on_loop) == {each: (each, True) for each in addresses}
    assert set(client.run(given, 7).values()) == set(client.run(given, worker=7).values()) == {7}
    assert set(client.run(through_client).values()) == {4}


def test_run_on_some_workers(client: Client) -> None:
    one, two = client.nthreads()
    assert set(client.run(os.getpid, workers=one)) == {one}
    assert set(client.run(os.getpid, workers=[f"tcp://{two}"])) == {two}
    with pytest.raises(UsageError, match="workers is empty"):
        client.run(os.getpid, workers=[])
    with pytest.raises(UsageError, match="no worker is named nobody"):
        client.run(os.getpid, workers=["nobody"])
    with pytest.raises(UsageError, match="workers is the name"):
        client.run(os.getpid, workers=[1.5])


def test_run_and_errors(client: Client) -> None:
    one, two = client.nthreads()

    def fail_on(address: str, dask_worker: Worker) -> str:
        if dask_worker.address == address:
            raise KeyError(address)
        return "well"

    with pytest.raises(KeyError, match=one):
        client.run(fail_on, one)
    found = client.run(fail_on, one, on_error="return")
    assert found[two] == "well"
    assert isinstance(found[one], KeyError)
    assert client.run(fail_on, one, on_error="ignore") == {two: "well"}
    with pytest.raises(UsageError, match="on_error is one of"):
        client.run(fail_on, one, on_error="perhaps")
    with pytest.raises(UsageError, match="something to call"):
        client.run(3)  # type: ignore[arg-type]
    with pytest.raises(NotSerializable):
        client.run(print, threading.Lock())
    with pytest.raises(NotSerializable, match="cannot be sent"):
        client.run(threading.Lock)
    with pytest.raises(SystemExit):
        client.run(sys.exit, 3)
    assert len(client.run(os.getpid)) == 2


def test_run_without_waiting(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    one, _ = client.nthreads()
    assert client.run(hold, str(gate), workers=one, wait=False) == {one: None}
    until(gate.exists)
    gate.unlink()


def test_run_on_nannies(client: Client) -> None:
    workers = client.scheduler_info()["workers"]
    (nannied,) = [address for address, each in workers.items() if "nanny" in each]
    (alone,) = [address for address in workers if address != nannied]

    def who(nanny: Nanny, dask_worker: Nanny) -> tuple[str, int, int]:
        return nanny.kind, os.getpid(), dask_worker.port

    pid = client.run(os.getppid, workers=nannied)[nannied]
    found = client.run(who, workers=nannied, nanny=True)
    assert found == {nannied: ("Nanny", pid, int(workers[nannied]["nanny"].rpartition(":")[2]))}
    with pytest.raises(RemoteError, match="has no nanny"):
        client.run(os.getpid, nanny=True)
    assert set(client.run(os.getpid, nanny=True, on_error="ignore")) == {nannied}
    assert alone not in client.run(os.getpid, nanny=True, on_error="ignore")


def test_run_and_a_worker_that_dies_meanwhile(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "1", "--no-nanny", "--name", "alone")
    with Client(address) as client, pytest.raises(EngineError, match="did not answer"):
        client.run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_run_asynchronously(cluster: str) -> None:
    async def use() -> None:
        async with Client(cluster, asynchronous=True) as client:
            assert len(await client.run(os.getpid)) == 2
            assert len(await client.nthreads()) == 2
            assert await client.who_has([]) == {}
            with pytest.raises(UsageError, match="opens no pickled code"):
                client.run_on_scheduler(os.getpid)  # type: ignore[arg-type]

    asyncio.run(use())


# --- questions ------------------------------------------------------------------------------------


def test_who_has_what(client: Client) -> None:
    one, two = client.nthreads()
    pids = client.run(os.getpid)
    futures = client.map(lambda x: (x, os.getpid()), range(6), key="place")
    unnamed = client.submit(abs, -1)
    scattered = client.scatter(b"x" * 1000)
    places = {pid: address for address, pid in pids.items()}
    expected = {future.key: (places[future.result()[1]],) for future in futures}
    assert client.who_has(futures) == expected
    assert client.who_has(futures[0]) == {"place-0": expected["place-0"]}
    assert client.who_has([]) == {}
    assert client.who_has("no-such-key") == {"no-such-key": ()}
    assert unnamed.result() == 1
    everything = client.who_has()
    assert everything.items() >= expected.items()
    assert unnamed.key in everything
    held = client.has_what()
    assert set(held) == {one, two}
    for key, (address,) in expected.items():
        assert key in held[address]
    assert set(client.has_what(workers=one)) == {one}
    assert client.who_has(scattered)[scattered.key]
    with pytest.raises(UsageError, match="futures or their keys"):
        client.who_has(3)


def test_bytes_by_key_and_by_function(client: Client) -> None:
    def thousand(x: int) -> bytes:
        return bytes(1000)

    futures = client.map(thousand, range(3), key="kilo")
    client.gather(futures)
    by_key = client.nbytes(summary=False)
    assert all(1000 <= by_key[future.key] < 1100 for future in futures)
    assert client.nbytes()["thousand"] == sum(by_key[future.key] for future in futures)
    assert client.nbytes(["kilo-0"], summary=False) == {"kilo-0": by_key["kilo-0"]}
    assert client.nbytes(futures[:2]) == {"thousand": by_key["kilo-0"] + by_key["kilo-1"]}


def test_threads(client: Client) -> None:
    one, two = client.nthreads()
    assert client.ncores() == {one: 1, two: 1}
    assert client.nthreads(workers=[two]) == {two: 1}
    with pytest.raises(UsageError, match="no worker is named"):
        client.nthreads(workers="nobody")
    assert client.dashboard_link is None


def test_what_runs_and_where_it_is(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    named = client.submit(hold, str(gate), key="held-up")
    until(gate.exists)
    unnamed = client.submit(hold, str(tmp_path / "other"))
    until((tmp_path / "other").exists)
    running = {key for keys in client.processing().values() for key in keys}
    assert running == {"held-up", unnamed.key}
    stacks = client.call_stack()
    frames = {key: text for of_worker in stacks.values() for key, text in of_worker.items()}
    assert set(frames) == {"held-up", unnamed.key}
    assert "in hold" in frames["held-up"][0]
    assert all("executor.py" not in line for line in frames["held-up"])
    (only,) = client.call_stack([unnamed]).values()
    assert set(only) == {unnamed.key}
    (only,) = client.call_stack(keys=["held-up"]).values()
    assert set(only) == {"held-up"}
    assert client.call_stack(keys=["no-such-key"]) == {}
    gate.unlink()
    (tmp_path / "other").unlink()
    assert client.gather([named, unnamed]) == ["through", "through"]
    assert client.call_stack() == {}


def test_logs(client: Client) -> None:
    def complain() -> None:
        import logging

        logging.getLogger("distributed_core.servers.worker").error("a line of %s", "its own")

    one, two = client.nthreads()
    client.run(complain, workers=one)
    found = client.get_worker_logs()
    assert found[one][-1][0] == "ERROR"
    assert found[one][-1][1].endswith("a line of its own")
    assert not any("its own" in text for _, text in found[two])
    assert client.get_worker_logs(n=1, workers=[one]) == {one: found[one][-1:]}
    assert client.get_worker_logs(n=0, workers=one) == {one: ()}
    lines = client.get_scheduler_logs(2)
    assert len(lines) == 2
    assert "ClientJoined" in lines[-1][1]
    with pytest.raises(UsageError, match="number of lines"):
        client.get_scheduler_logs(-1)
    (nannied,) = [address for address, each in client.scheduler_info()["workers"].items() if "nanny" in each]
    assert set(client.get_nanny_logs(workers=nannied)) == {nannied}


def test_scheduler_files(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    client.write_scheduler_file(file)
    assert json.loads(file.read_text())["id"] == client.scheduler_info()["id"]
    with Client(scheduler_file=file) as other:
        assert other.submit(abs, -1).result() == 1
    with pytest.raises(UsageError, match="cannot be written"):
        client.write_scheduler_file(tmp_path / "no" / "such" / "folder")


# --- clusters of a client's own -------------------------------------------------------------------


def test_a_client_without_an_address_starts_a_cluster() -> None:
    with Client(n_workers=2, threads_per_worker=1, resources={"GPU": 1}, memory_limit="1GB") as client:
        workers = client.scheduler_info()["workers"]
        assert sorted(worker["name"] for worker in workers.values()) == ["0", "1"]
        assert all(worker["resources"] == {"GPU": 1.0} for worker in workers.values())
        assert client.submit(os.getpid).result() != os.getpid()
        pids = list(client.run(os.getpid).values())
        cluster = client.cluster
    for pid in pids:
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    assert cluster._closed


def test_an_asynchronous_client_without_an_address() -> None:
    async def use() -> LocalCluster:
        async with Client(n_workers=1, processes=False, asynchronous=True) as client:
            assert await client.submit(os.getpid) == os.getpid()
            cluster: LocalCluster = client.cluster
        return cluster

    assert asyncio.run(use())._closed


def test_a_cluster_of_its_own_is_shut_down(capfd: pytest.CaptureFixture[str]) -> None:
    client = Client(n_workers=2)
    assert client.submit(abs, -1).result() == 1
    client.shutdown()
    assert client.cluster._closed
    assert "lost the scheduler" not in capfd.readouterr().err


def test_a_cluster_in_threads_and_clients_of_it() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=3, processes=False, name="threads") as cluster:
        assert cluster.name == "threads"
        with Client(cluster) as client:
            client.wait_for_workers(1, timeout=20)
            assert client.submit(os.getpid).result() == os.getpid()
            assert list(client.nthreads().values()) == [3]
        assert not cluster._closed


def test_clusters_that_make_no_sense(cluster: str) -> None:
    for options in ({"n_workers": -1}, {"threads_per_worker": 0}, {"memory_limit": "much"}, {"resources": "GPU"}):
        with pytest.raises(UsageError):
            LocalCluster(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="options of a new cluster"):
        Client(cluster, n_workers=2)
    with pytest.raises(UsageError, match="HOST:PORT or a LocalCluster"):
        Client(3)

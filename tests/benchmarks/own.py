"""Figures that only this engine has: start-up, memory, a million tasks, the bare socket to compare with."""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_core import Client, LocalCluster, rpc
from distributed_core.comm.credential import load, write_new
from distributed_core.comm.loops import VARIABLE
from tests.benchmarks import model, stalls
from tests.benchmarks.engines import Core
from tests.benchmarks.flood import flood
from tests.benchmarks.workloads import increment

Figures = dict[str, float]
PIECE_BYTES = 1 << 20


def _median(measure: Callable[[], float], times: int = 7) -> float:
    return statistics.median(measure() for _ in range(times))


# --- start-up -------------------------------------------------------------------------------------


def _cpu_s(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def startup(scale: float) -> Figures:
    """Import of the client above that of nothing; a new process's first LocalCluster; a `dscheduler` that answers."""
    imported = _median(lambda: _cpu_s("from distributed_core import Client"), 15)
    nothing = _median(lambda: _cpu_s("pass"), 15)
    return {
        "import of the client, CPU s": imported - nothing,
        "LocalCluster(2) ready, s": _median(_local_cluster_s),
        "dscheduler answers, s": _median(_scheduler_s),
    }


def _local_cluster_s() -> float:
    code = "from tests.benchmarks.own import start_local_cluster; start_local_cluster()"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def start_local_cluster() -> None:
    """Print how long it takes from here until the workers of a LocalCluster are there, in seconds."""
    begin = time.perf_counter()
    with LocalCluster(2) as cluster, cluster.client():
        print(time.perf_counter() - begin, flush=True)


def _scheduler_s() -> float:
    command = [str(Path(sys.executable).with_name("dscheduler")), "--port", "0", "--host", "127.0.0.1"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        rpc(address).ping()
        took_s = time.perf_counter() - begin
        process.terminate()
    return took_s


# --- memory and a million tasks -------------------------------------------------------------------


def _measured_core(workers: int = 2) -> Core:
    os.environ[VARIABLE] = "asyncio"  # Only its turns can be measured from outside.
    return Core(workers, ["--preload", str(Path(stalls.__file__))])


def _memory(client: Client) -> dict[str, list[int]]:
    """Return what scheduler, workers and client take, in bytes: after a collection, and without allocator slack."""
    found = {"scheduler": client.run_on_scheduler("stalls:memory_bytes")}
    found["worker"] = max(client.run(stalls.memory_bytes).values())
    found["client"] = stalls.memory_bytes()
    return {who: list(nbytes) for who, nbytes in found.items()}


def held(scale: float) -> Figures:
    """What a finished task whose future is held costs the scheduler in memory."""
    n = int(200_000 * scale)
    with _measured_core() as engine:
        client: Any = engine.client
        client.gather(client.map(increment, range(20_000), pure=False))
        before = _memory(client)["scheduler"][1]
        futures = client.map(increment, range(n), pure=False)
        client.gather(futures)
        after = _memory(client)["scheduler"][1]
        assert len(futures) == n
    return {"scheduler bytes per held task": (after - before) / n}


def released(scale: float) -> Figures:
    """How memory drifts while a million tasks are submitted, gathered and released, from the 500,000th on."""
    n, part = int(1_000_000 * scale), 10_000
    marks: dict[int, dict[str, list[int]]] = {}
    with _measured_core() as engine:
        client: Any = engine.client
        for done in range(0, n, part):
            assert client.gather(client.map(increment, range(part), pure=False))[-1] == part
            if done + part in (n // 2, n):
                marks[done + part] = _memory(client)
    figures = {}
    for who in ("scheduler", "worker", "client"):
        at_half, at_end = marks[n // 2][who], marks[n][who]
        figures[f"{who} drift, MB"] = (at_end[0] - at_half[0]) / 1e6
        figures[f"{who} allocator slack at the end, MB"] = (at_end[0] - at_end[1]) / 1e6
    return figures


def million(scale: float) -> Figures:
    """A graph of a million tasks: submitted at once, run, gathered."""
    n = int(1_000_000 * scale)
    with _measured_core() as engine:
        client: Any = engine.client
        client.gather(client.map(increment, range(100), pure=False))
        client.run_on_scheduler("stalls:longest_turn_s")
        cpu_s, begin = engine.scheduler_cpu_s(), time.perf_counter()
        futures = client.map(increment, range(n), pure=False)
        assert sum(client.gather(futures)) == n * (n + 1) // 2
        wall_s = time.perf_counter() - begin
        cpu_s = engine.scheduler_cpu_s() - cpu_s
        running_s = client.run_on_scheduler("stalls:longest_turn_s")
        nbytes = client.run_on_scheduler("stalls:memory_bytes")[0]
        client.run_on_scheduler("stalls:longest_turn_s")  # that of the collection
        del futures
        client.gather(client.map(increment, range(100), pure=False))
        releasing_s = client.run_on_scheduler("stalls:longest_turn_s")
    return {
        "tasks/s": n / wall_s,
        "scheduler us/task": 1e6 * cpu_s / n,
        "longest turn, ms": 1e3 * running_s,
        "longest turn of the release, ms": 1e3 * releasing_s,
        "scheduler MB while all are held": nbytes / 1e6,
    }


# --- many workers ---------------------------------------------------------------------------------


def many_workers(scale: float) -> Figures:
    """The processor time of the scheduler's machine per task, with 10, 1,000 and 10,000 simulated workers."""
    few = model.scheduler_us_per_task(10, int(20_000 * scale))
    many = model.scheduler_us_per_task(1000, int(50_000 * scale))
    very_many = model.scheduler_us_per_task(10_000, int(100_000 * scale))
    return {
        "us/task with 10": few,
        "us/task with 1,000": many,
        "us/task with 10,000": very_many,
        "1,000 to 10": many / few,
        "10,000 to 10": very_many / few,
    }


# --- the bare socket ------------------------------------------------------------------------------


def socket_tls(scale: float) -> Figures:
    """What one TLS stream between two processes carries on loopback, without any engine."""
    nbytes = int((200 << 20) * scale)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "credential.pem")
        write_new(path)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        taker = multiprocessing.get_context("spawn").Process(target=_take, args=(theirs, path, nbytes))
        taker.start()
        port = ours.recv()
        rates = [_give(port, path, nbytes) for _ in range(5)]
        taker.join()
    return {"bare TLS MB/s": statistics.median(rates)}


def _take(line: Any, path: str, nbytes: int) -> None:
    context = load(path).server_context()
    with socket.create_server(("127.0.0.1", 0)) as server:
        line.send(server.getsockname()[1])
        for _ in range(5):
            with context.wrap_socket(server.accept()[0], server_side=True) as stream:
                view = memoryview(bytearray(nbytes))
                while view:
                    view = view[stream.recv_into(view[:PIECE_BYTES]) :]
                stream.sendall(b"!")


def _give(port: int, path: str, nbytes: int) -> float:
    view = memoryview(bytes(nbytes))
    with load(path).client_context().wrap_socket(socket.create_connection(("127.0.0.1", port))) as stream:
        begin = time.perf_counter()
        for start in range(0, nbytes, PIECE_BYTES):
            stream.sendall(view[start : start + PIECE_BYTES])
        stream.recv(1)
        return nbytes / 1e6 / (time.perf_counter() - begin)


OWN: dict[str, Callable[[float], Figures]] = {
    made.__name__: made for made in (startup, held, released, million, many_workers, socket_tls, flood)
}

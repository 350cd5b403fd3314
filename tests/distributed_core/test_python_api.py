"""The setup page's Python API: servers in this process, their loop in another thread."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest
from tornado.ioloop import IOLoop
from tornado.tcpserver import TCPServer

from distributed_core import Client, LocalCluster, Nanny, Scheduler, Worker, rpc
from distributed_core.errors import PortInUse
from distributed_core.settings import DEFAULT_PORT

pytestmark = pytest.mark.process


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    loop = IOLoop(make_current=False)
    thread = Thread(target=loop.start, daemon=True)
    thread.start()
    yield loop
    loop.add_callback(loop.stop)
    thread.join(20)
    loop.close()


@pytest.mark.parametrize("kind", [Worker, Nanny])
def test_scheduler_and_worker(loop: IOLoop, kind: type[Worker] | type[Nanny]) -> None:
    s = Scheduler(loop=loop, host="127.0.0.1")
    assert isinstance(s, TCPServer)
    s.start(0)
    w = kind("127.0.0.1", s.port, loop=loop, nthreads=1)
    assert isinstance(w, TCPServer)
    w.start(0)
    with Client(s.address) as client:
        client.wait_for_workers(1, timeout=30)
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
    assert rpc(w.address).terminate() == "OK"
    assert rpc(s.address).terminate() == "OK"
    assert s._finished.result(20) == 0
    assert w._finished.result(20) == 0


def test_the_default_port_and_a_port_in_use(loop: IOLoop) -> None:
    assert Scheduler.default_port == DEFAULT_PORT == 8786
    s = Scheduler(loop=loop, host="127.0.0.1")
    s.start(0)
    other = Scheduler(loop=loop, host="127.0.0.1")
    with pytest.raises(PortInUse, match="choose another one"):
        other.start(s.port)
    rpc(s.address).terminate()
    assert s._finished.result(20) == 0


def test_start_before_the_loop_runs() -> None:
    loop = IOLoop(make_current=False)
    s = Scheduler(loop=loop, host="127.0.0.1")
    s.start(0)
    thread = Thread(target=loop.start, daemon=True)
    thread.start()
    assert rpc(s.address).ping() == "pong"
    rpc(s.address).terminate()
    assert s._finished.result(20) == 0
    loop.add_callback(loop.stop)
    thread.join(20)
    loop.close()


def test_local_cluster() -> None:
    with LocalCluster(n_workers=2) as cluster, cluster.client() as client:
        assert sorted(client.gather(client.map(abs, [-1, -2]))) == [1, 2]
        assert len(client.scheduler_info()["workers"]) == 2

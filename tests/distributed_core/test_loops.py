"""Which event loop runs: asyncio's, or uvloop's where it is installed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import uvloop

from distributed_core import Client
from distributed_core.comm.loops import VARIABLE, new_event_loop
from distributed_core.errors import UsageError
from tests.distributed_core.launching import launcher


def made() -> type[asyncio.AbstractEventLoop]:
    loop = new_event_loop()
    loop.close()
    return type(loop)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert made() is uvloop.Loop
    monkeypatch.setenv(VARIABLE, "asyncio")
    assert made() is asyncio.SelectorEventLoop
    monkeypatch.setenv(VARIABLE, "uvlop")
    with pytest.raises(UsageError, match="it is auto, asyncio or uvloop"):
        made()


def test_without_uvloop_it_is_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setenv(VARIABLE, "auto")
    assert made() is asyncio.SelectorEventLoop
    monkeypatch.setenv(VARIABLE, "uvloop")
    with pytest.raises(UsageError, match="pip install uvloop"):
        made()


@pytest.mark.process
def test_a_cluster_on_uvloop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def running_loops() -> list[str]:
        """Return the modules of the loops that run in this process."""
        import asyncio
        import gc

        found = [each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop)]
        return [type(each).__module__ for each in found if each.is_running()]

    monkeypatch.setenv(VARIABLE, "uvloop")
    with launcher(tmp_path) as start:
        _, address = start.scheduler()
        start.worker(address, "--nthreads", "1")
        start.worker(address, "--nthreads", "1", "--no-nanny")
        with Client(address, timeout=20) as client:
            client.wait_for_workers(2, timeout=30)
            loops = client.run(running_loops)
            assert list(loops.values()) == [["uvloop"], ["uvloop"]]
            squares = client.map(lambda x: x * x, range(2000), pure=False)
            assert client.submit(sum, squares).result() == sum(x * x for x in range(2000))

"""Versions are compared when somebody connects, and shown when somebody asks."""

from __future__ import annotations

import asyncio
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest

from distributed_core import Client, VersionMismatchWarning
from distributed_core.client.locating import find_scheduler
from distributed_core.comm.channel import open_channel
from distributed_core.errors import UsageError, VersionMismatch
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process


def test_all_versions(client: Client) -> None:
    found = client.get_versions(check=True, packages=["pytest", "no-such-package"])
    assert set(found) == {"client", "scheduler", "workers"}
    assert set(found["workers"]) == set(client.nthreads())
    for each in (found["client"], found["scheduler"], *found["workers"].values()):
        assert each["host"]["python"] == each["packages"]["python"] == platform.python_version()
        assert each["packages"]["numpy"] == numpy.__version__
        assert each["packages"]["pytest"] == pytest.__version__
        assert each["packages"]["no-such-package"] is None
    with pytest.raises(UsageError, match="names of distributions"):
        client.get_versions(packages=[3])  # type: ignore[list-item]


def test_the_same_versions_are_no_warning(cluster: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client(cluster) as client:
            assert client.submit(abs, -1).result() == 1


def test_another_numpy_on_a_worker_is_named_at_connect(
    launch: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, address = launch.scheduler()
    (tmp_path / "early" / "numpy-0.0.7.dist-info").mkdir(parents=True)
    (tmp_path / "early" / "msgpack-0.0.8.dist-info").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "early"))
    worker = launch.worker(address, "--nthreads", "1", "--name", "odd")
    with pytest.warns(VersionMismatchWarning) as caught:
        client = Client(address)
    with client, pytest.raises(VersionMismatch, match=r"numpy .* here, 0\.0\.7 on "):
        client.get_versions(check=True)
    (warning,) = caught
    assert warning.filename == __file__
    assert f"numpy {numpy.__version__} here, 0.0.7 on 1 worker (odd)" in str(warning.message)
    assert "msgpack" in str(warning.message)
    assert "install the same versions" in str(warning.message)
    assert scheduler.end() == 0
    worker.end()
    assert "versions differ: msgpack 0.0.8 here" in worker.errors()


def test_another_python_is_what_breaks_functions(launch: Launcher) -> None:
    _, address = launch.scheduler()
    where, credential = find_scheduler(address, None, None, False)
    details: dict[str, Any] = {"address": "127.0.0.1:1", "name": "old", "nthreads": 1, "id": "x"}
    details["versions"] = {"python": "3.4.1"}

    async def use() -> None:
        channel, welcome = await open_channel(where, credential, "worker", details)
        assert welcome.details["versions"]["python"] == platform.python_version()
        with pytest.warns(VersionMismatchWarning, match=r"3\.4\.1 on 1 worker \(old\) \(pickled functions"):
            client = await Client(address, asynchronous=True)
        await client.close()
        channel.abort()

    asyncio.run(use())

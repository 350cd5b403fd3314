from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_core import Client
from tests.distributed_core.launching import Launcher, launcher


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    with launcher(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two worker processes with one thread each."""
    with launcher(tmp_path_factory.mktemp("cluster")) as made:
        _, address = made.scheduler()
        made.worker(address, "--nthreads", "1")
        made.worker(address, "--nthreads", "1", "--no-nanny")
        yield address


@pytest.fixture
def client(cluster: str) -> Iterator[Client]:
    with Client(cluster, timeout=20) as made:
        made.wait_for_workers(2, timeout=30)
        yield made

"""dask.distributed, with its TLS on: for those who outgrew distributed_core."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from dec2.engines.base import Capacity, Engine, Place
from dec2.errors import EngineMissing

VERSION = "2026.8.0"

_ASK = """
import asyncio, json, sys
from distributed import Client
from distributed.security import Security
address, pem = sys.argv[1:]
security = Security(tls_ca_file=pem, tls_client_cert=pem, tls_client_key=pem, require_encryption=True)
async def ask():
    async with Client(address, security=security, asynchronous=True, timeout=10) as client:
        return [worker["name"] for worker in (await client.scheduler.identity())["workers"].values()]
print(json.dumps(asyncio.run(ask())))
"""


class DaskEngine(Engine):
    """`dask scheduler` and `dask worker`."""

    name = "dask"
    port = 8786

    def require(self) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise EngineMissing("the engine dask needs dask.distributed on this machine: pip install 'dec2[dask]'")

    def requirements(self) -> tuple[str, ...]:
        return (f"distributed=={VERSION}", f"dask[array,dataframe]=={VERSION}")

    def new_credential(self) -> bytes:
        from dec2.engines.core import CoreEngine

        # The same kind of file serves: one key, and its certificate as the only trust anchor.
        return CoreEngine().new_credential()

    def scheduler_command(self, place: Place) -> tuple[str, ...]:
        return (
            *(place.python, "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--host", place.host),
            *("--port", str(place.port), "--scheduler-file", place.scheduler_file, "--no-dashboard", *_tls(place)),
        )

    def worker_command(self, place: Place, name: str, capacity: Capacity) -> tuple[str, ...]:
        address = () if place.scheduler_address is None else (f"tls://{place.scheduler_address}",)
        file = ("--scheduler-file", place.scheduler_file) if place.scheduler_address is None else ()
        threads = ("--nthreads", str(capacity.nthreads)) if capacity.nthreads else ()
        return (
            *(place.python, "-m", "distributed.cli.dask_worker", *address, *file, "--name", name, *threads),
            *("--nworkers", str(capacity.nprocs), "--memory-limit", capacity.memory_limit),
            *("--no-dashboard", *_tls(place)),
        )

    def question(self, place: Place) -> tuple[str, ...]:
        address = place.scheduler_address or f"{place.host}:{place.port}"
        return (place.python, "-c", _ASK, f"tls://{address}", place.credential)

    def registered(self, output: str) -> tuple[str, ...]:
        names = json.loads(output)
        if not isinstance(names, list):
            raise ValueError("the scheduler's answer names no workers")
        return tuple(map(str, names))

    def connect(self, address: str, credential: str, *, direct: bool, asynchronous: bool = False) -> Any:
        self.require()
        from distributed import Client
        from distributed.security import Security

        security = Security(  # type: ignore[no-untyped-call]
            tls_ca_file=credential, tls_client_cert=credential, tls_client_key=credential, require_encryption=True
        )
        return Client(f"tls://{address}", security=security, asynchronous=asynchronous)  # type: ignore[no-untyped-call]


def _tls(place: Place) -> tuple[str, ...]:
    return ("--tls-ca-file", place.credential, "--tls-cert", place.credential, "--tls-key", place.credential)

"""distributed_core, the engine of this repository. The one place where dec2 imports it."""

from __future__ import annotations

import json
from typing import Any

from dec2.engines.base import Capacity, Engine, Place


class CoreEngine(Engine):
    """dscheduler and dworker."""

    name = "core"
    port = 8786

    def require(self) -> None:
        """It is part of this package: always there."""

    def requirements(self) -> tuple[str, ...]:
        return ("click", "cloudpickle", "cryptography", "msgpack", "psutil", "tblib", "tornado")

    def new_credential(self) -> bytes:
        from distributed_core.comm.credential import generate

        return generate()

    def scheduler_command(self, place: Place) -> tuple[str, ...]:
        return (
            *(place.python, "-m", "distributed_core.cli.dscheduler", "--host", place.host, "--port", str(place.port)),
            *("--scheduler-file", place.scheduler_file, "--credential", place.credential),
        )

    def worker_command(self, place: Place, name: str, capacity: Capacity) -> tuple[str, ...]:
        address = () if place.scheduler_address is None else (place.scheduler_address,)
        file = ("--scheduler-file", place.scheduler_file) if place.scheduler_address is None else ()
        return (
            *(place.python, "-m", "distributed_core.cli.dworker", *address, *file, "--name", name),
            *("--credential", place.credential, "--nthreads", str(capacity.nthreads)),
            *("--nprocs", str(capacity.nprocs), "--memory-limit", capacity.memory_limit),
        )

    def question(self, place: Place) -> tuple[str, ...]:
        address = place.scheduler_address or f"{place.host}:{place.port}"
        return (place.python, "-m", "distributed_core", "identity", address, "--credential", place.credential)

    def registered(self, output: str) -> tuple[str, ...]:
        answer = json.loads(output)
        if not isinstance(answer, dict) or "workers" not in answer:
            raise ValueError("the scheduler's answer names no workers")
        return tuple(str(worker["name"]) for worker in answer["workers"].values())

    def connect(self, address: str, credential: str, *, direct: bool, asynchronous: bool = False) -> Any:
        from distributed_core import Client

        return Client(address, credential=credential, direct=None if direct else False, asynchronous=asynchronous)

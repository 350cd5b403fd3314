"""What a launch asks EC2 for, from what is wanted. Pure: the same wish is the same request, to the byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dec2 import cloud_init, tags
from dec2.engines.base import Capacity, Engine, Place
from dec2.inventory import SCHEDULER
from dec2.spec import ClusterSpec

_TAGGED = ("instance", "volume", "network-interface")


def run_request(
    spec: ClusterSpec, image: Mapping[str, Any], group: str, named: list[dict[str, str]], data: str, count: int
) -> dict[str, Any]:
    """Return the request for instances of one role; `named` are their tags."""
    role = tags.as_dict(named)[tags.ROLE]
    volume = {
        "VolumeSize": spec.volume_size_gb,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "ImageId": image["ImageId"],
        "InstanceType": spec.scheduler_type if role == SCHEDULER and spec.scheduler_type else spec.type,
        "KeyName": spec.keyname,
        "MinCount": count,
        "MaxCount": count,
        "SecurityGroupIds": [group],
        "UserData": data,
        # The node ends its own life: a poweroff must end the bill too.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [{"DeviceName": image.get("RootDeviceName", "/dev/xvda"), "Ebs": volume}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": named} for kind in _TAGGED],
    }
    if spec.subnet is not None:
        request["SubnetId"] = spec.subnet
    return request


def client_token(request: Mapping[str, Any], generation: int) -> str:
    """Return the token of a request: whoever asks for the same gets the same instances, and no others."""
    body = json.dumps(request, sort_keys=True)
    return hashlib.sha256(f"{generation}\0{body}".encode()).hexdigest()[:64]


def user_data(
    spec: ClusterSpec,
    engine: Engine,
    host_key: tuple[str, str],
    manifest_sha256: str,
    commands: dict[str, tuple[str, ...]],
    source: str | None,
) -> str:
    """Return the user-data of nodes that start these parts of the engine; see `cloud_init.Boot`."""
    return cloud_init.user_data(
        cloud_init.Boot(
            host_key=host_key[0],
            host_key_public=host_key[1],
            commands=commands,
            wheel_source=source,
            manifest_sha256=manifest_sha256,
            requirements=engine.requirements(),
            index_url=spec.index_url,
            offline=spec.wheelhouse is not None and spec.index_url is None,
        )
    )


def scheduler_commands(spec: ClusterSpec, engine: Engine, *, both: bool) -> dict[str, tuple[str, ...]]:
    """Return what the scheduler's node starts, by unit; with `both` a worker too."""
    commands = {"dscheduler": engine.scheduler_command(place(engine, None))}
    if both:
        commands |= worker_commands(spec, engine, "127.0.0.1")
    return commands


def worker_commands(spec: ClusterSpec, engine: Engine, host: str) -> dict[str, tuple[str, ...]]:
    """Return what a worker's node starts, by unit."""
    capacity = Capacity(spec.nthreads, spec.nprocs, spec.memory_limit)
    return {"dworker": engine.worker_command(place(engine, f"{host}:{engine.port}"), "NAME", capacity)}


def place(engine: Engine, scheduler_address: str | None) -> Place:
    """Return where an engine's part runs on a node."""
    return Place(
        python=cloud_init.PYTHON,
        host="0.0.0.0",
        port=engine.port,
        scheduler_file=cloud_init.SCHEDULER_FILE,
        scheduler_address=scheduler_address,
        credential=cloud_init.CREDENTIAL,
    )

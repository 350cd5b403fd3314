"""Groups and instances: made once, however often they are asked for."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from dec2 import tags
from dec2.engines.base import Engine
from dec2.errors import LaunchFailed
from dec2.providers.ec2.api import EC2Api, code_of
from dec2.providers.ec2.caller import caller_cidr
from dec2.providers.ec2.preflight import Prepared
from dec2.providers.ec2.requests import client_token
from dec2.providers.ec2.sight import Sight
from dec2.spec import ClusterSpec

_GENERATIONS_MAX = 50


def ensure_group(api: EC2Api, sight: Sight, spec: ClusterSpec, engine: Engine, prepared: Prepared) -> None:
    """Make the security group, or adopt it; let the caller in."""
    group = sight.group(spec.name)
    if group is None:
        vpc = prepared.subnet["VpcId"] if prepared.subnet is not None else None
        options = spec.lasting_options()
        named = tags.group_tags(spec.name, engine.name, prepared.username, spec.keyname or "", options)
        group = api.create_group(spec.name, vpc, named)
        sight.remember_group(spec.name, group)
        if "GroupName" in group:
            # Somebody made it since we looked, and maybe more.
            sight.look(spec.name)
    api.open_group(group, caller_cidr())


def launch(api: EC2Api, sight: Sight, name: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Launch once: the client token is made of the whole request.

    A token whose instances have ended since answers with them, or with an error; then the next generation's is due.
    """
    for generation in range(_GENERATIONS_MAX):
        try:
            made = api.run({**request, "ClientToken": client_token(request, generation)})
        except LaunchFailed as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and code_of(cause) == "IdempotentInstanceTerminated":
                continue
            raise
        if all(each["State"]["Name"] not in ("shutting-down", "terminated") for each in made):
            sight.remember_instances(name, made)
            return made
    raise LaunchFailed(f"no instance of {name} stays alive; look at its console output, then dec2 destroy")

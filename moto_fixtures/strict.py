"""The rules of EC2 that moto leaves out.

A rule before the call takes the call and the region, and gives the call back, changed or not, or raises ApiRefusal.
The rules read the region and change nothing in it.  What must be remembered between calls lies in three small classes:
`TokenLedger` (client tokens), `CapacityTable` (how much of a type there is) and `Visibility` (eventual consistency).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto_fixtures.account import ROOT_DEVICE, ROOT_VOLUME_GIB, MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal

USER_DATA_BYTES_MAX = 16384
TOKEN_CHARACTERS_MAX = 64

Rule = Callable[[ApiCall, MotoRegion], ApiCall]


# -- rules of RunInstances


def user_data_fits(call: ApiCall, region: MotoRegion) -> ApiCall:
    """At most 16 KB of user-data, counted after base64 is undone."""
    try:
        content = base64.b64decode(call.get("UserData") or "", validate=True)
    except binascii.Error:
        raise ApiRefusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    if len(content) > USER_DATA_BYTES_MAX:
        raise ApiRefusal("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES_MAX} bytes")
    return call


def parameters_agree(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Parameters that exclude each other."""
    has_interfaces = bool(call.indexes("NetworkInterface"))
    has_groups = bool(call.indexes("SecurityGroupId") or call.indexes("SecurityGroup"))
    if has_interfaces and has_groups:
        raise ApiRefusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    least, most = _counts(call)
    if most > 1 and fixed_address(call):
        raise ApiRefusal(
            "InvalidParameterCombination", "A private IP address can only be specified when launching one instance"
        )
    if least < 1 or least > most:
        raise ApiRefusal("InvalidParameterValue", f"Minimum count {least} must be at least 1 and at most {most}")
    return call


def groups_exist(call: ApiCall, region: MotoRegion) -> ApiCall:
    """moto invents a group that an interface names and that does not exist."""
    named = call.numbered("SecurityGroupId")
    for index in call.indexes("NetworkInterface"):
        named += call.numbered(f"NetworkInterface.{index}.SecurityGroupId")
    for group_id in named:
        if region.group(group_id) is None:
            raise ApiRefusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
    return call


def address_is_free(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A fixed private address belongs to one interface at a time."""
    address = fixed_address(call)
    if address and region.private_address_in_use(address):
        raise ApiRefusal("InvalidIPAddress.InUse", f"Address {address} is in use.")
    return call


def image_is_known(call: ApiCall, region: MotoRegion) -> ApiCall:
    """`resolve:ssm:NAME` stands for the image that the public parameter NAME holds."""
    image = call.get("ImageId") or ""
    if not image.startswith("resolve:ssm:"):
        return call
    name = image.removeprefix("resolve:ssm:")
    if name not in region.parameters:
        raise ApiRefusal("InvalidParameterValue", f"Systems Manager parameter {name} was not found or is not an image")
    return call.with_parameters({"ImageId": region.parameters[name]})


def root_volume_is_named(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The root volume has the image's device name and, unless the call says otherwise, goes with the instance."""
    indexes = call.indexes("BlockDeviceMapping")
    changes: dict[str, str | None] = {}
    for index in indexes:
        prefix = f"BlockDeviceMapping.{index}"
        if call.get(f"{prefix}.DeviceName") == ROOT_DEVICE:
            if call.get(f"{prefix}.Ebs.DeleteOnTermination") is None:
                changes[f"{prefix}.Ebs.DeleteOnTermination"] = "true"
            if call.get(f"{prefix}.Ebs.VolumeSize") is None:
                changes[f"{prefix}.Ebs.VolumeSize"] = str(ROOT_VOLUME_GIB)
            return call.with_parameters(changes)
    prefix = f"BlockDeviceMapping.{max(indexes, default=0) + 1}"
    changes[f"{prefix}.DeviceName"] = ROOT_DEVICE
    changes[f"{prefix}.Ebs.VolumeSize"] = str(ROOT_VOLUME_GIB)
    changes[f"{prefix}.Ebs.DeleteOnTermination"] = "true"
    return call.with_parameters(changes)


# -- rules of other calls


def group_is_unused(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A group that an interface, an instance or a rule of another group uses cannot be deleted."""
    group = region.group(call.get("GroupId") or "") or region.group_named(call.get("GroupName") or "")
    if group is None:
        return call  # moto says that it does not exist
    if group.name == "default":
        raise ApiRefusal(
            "CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user'
        )
    if region.users_of_group(group.id):
        raise ApiRefusal("DependencyViolation", f"resource {group.id} has a dependent object")
    return call


def can_start(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only a stopped instance starts; a running one stays as it is."""
    return _in_state(call, region, ("stopped", "running", "pending"), "started")


def can_stop(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only an instance that runs can be stopped; a stopped one stays as it is."""
    return _in_state(call, region, ("running", "pending", "stopping", "stopped"), "stopped")


def can_reboot(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only an instance that runs can be rebooted."""
    return _in_state(call, region, ("running", "pending"), "rebooted")


def _in_state(call: ApiCall, region: MotoRegion, states: tuple[str, ...], verb: str) -> ApiCall:
    for instance_id in call.numbered("InstanceId"):
        state = region.state(instance_id)
        if state is not None and state not in states:
            raise ApiRefusal(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in a state from which it can be {verb}. (it is {state})",
            )
    return call


#: The rules of each call, in the order in which they are asked.  Capacity and tokens come after them.
RULES: dict[str, tuple[Rule, ...]] = {
    "RunInstances": (
        user_data_fits,
        parameters_agree,
        groups_exist,
        address_is_free,
        image_is_known,
        root_volume_is_named,
    ),
    "DeleteSecurityGroup": (group_is_unused,),
    "StartInstances": (can_start,),
    "StopInstances": (can_stop,),
    "RebootInstances": (can_reboot,),
}


def apply_rules(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The call as the rules leave it.  Raises ApiRefusal."""
    for rule in RULES.get(call.action, ()):
        call = rule(call, region)
    return call


def fixed_address(call: ApiCall) -> str | None:
    """The private address that a RunInstances call asks for, at the top or in its first interface."""
    return call.get("PrivateIpAddress") or call.get("NetworkInterface.1.PrivateIpAddress")


def interface_tags(call: ApiCall) -> dict[str, str]:
    """The tags that a RunInstances call gives to interfaces, which moto drops."""
    tags: dict[str, str] = {}
    for index in call.indexes("TagSpecification"):
        prefix = f"TagSpecification.{index}"
        if call.get(f"{prefix}.ResourceType") != "network-interface":
            continue
        for number in call.indexes(f"{prefix}.Tag"):
            tags[call.get(f"{prefix}.Tag.{number}.Key") or ""] = call.get(f"{prefix}.Tag.{number}.Value") or ""
    return tags


def kept_interfaces(call: ApiCall) -> set[int]:
    """Device indexes of the interfaces that shall outlive the instance: said so, or made before the launch."""
    kept = set()
    for index in call.indexes("NetworkInterface"):
        prefix = f"NetworkInterface.{index}"
        said = (call.get(f"{prefix}.DeleteOnTermination") or "").lower()
        made_before = call.get(f"{prefix}.NetworkInterfaceId") is not None
        if said == "false" or (made_before and said != "true"):
            kept.add(int(call.get(f"{prefix}.DeviceIndex") or 0))
    return kept


def _counts(call: ApiCall) -> tuple[int, int]:
    least = int(call.get("MinCount") or 1)
    return least, int(call.get("MaxCount") or least)


# -- capacity


@dataclass
class CapacityTable:
    """How many instances of a type fit into a zone, and how many vCPUs the account may run.

    limits: (type, zone) or (type, "*") to a number; what is not named is unlimited.
    vcpus_max: the quota of the account; None for no quota.
    """

    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    vcpus_max: int | None = None

    def set(self, instance_type: str, zone: str, count: int) -> None:
        """Let `count` instances of a type exist at a time in a zone, or in each zone if the zone is `*`."""
        self.limits[(instance_type, zone)] = count

    def place(self, call: ApiCall, region: MotoRegion) -> ApiCall:
        """Choose zone, subnet and number for a RunInstances call; the number ends as MinCount, as moto needs it.

        Raises ApiRefusal with InsufficientInstanceCapacity or VcpuLimitExceeded.
        """
        least, most = _counts(call)
        instance_type = call.get("InstanceType") or "m1.small"
        most = self._within_quota(instance_type, least, most, region)
        zones = self._zones(call, region)
        free = {zone: self._free(instance_type, zone, region) for zone in region.default_subnets()}
        chosen = next((zone for zone in zones if free.get(zone, most) >= most), None)
        if chosen is None:
            chosen = max(zones, key=lambda zone: free.get(zone, most))
        count = int(min(most, free.get(chosen, most)))
        if count < least:
            raise self._refusal(instance_type, zones, [zone for zone in free if free[zone] >= least])
        changes: dict[str, str | None] = {"MinCount": str(count), "MaxCount": str(count)}
        return call.with_parameters(changes | self._subnet(call, region, chosen))

    def _zones(self, call: ApiCall, region: MotoRegion) -> list[str]:
        subnet = call.get("SubnetId") or call.get("NetworkInterface.1.SubnetId")
        zone = region.zone_of_subnet(subnet) if subnet else call.get("Placement.AvailabilityZone")
        return [zone] if zone else list(region.default_subnets())

    def _subnet(self, call: ApiCall, region: MotoRegion, zone: str) -> dict[str, str | None]:
        named = call.get("SubnetId") or call.get("NetworkInterface.1.SubnetId")
        subnet = region.default_subnets().get(zone)
        if named or call.get("NetworkInterface.1.NetworkInterfaceId") or subnet is None:
            return {}
        return {("NetworkInterface.1.SubnetId" if call.indexes("NetworkInterface") else "SubnetId"): subnet}

    def _free(self, instance_type: str, zone: str, region: MotoRegion) -> float:
        limit = self.limits.get((instance_type, zone), self.limits.get((instance_type, "*")))
        if limit is None:
            return float("inf")
        return limit - sum(1 for one in _alive(region) if one.instance_type == instance_type and _zone(one) == zone)

    def _within_quota(self, instance_type: str, least: int, most: int, region: MotoRegion) -> int:
        each = region.vcpus(instance_type)
        if self.vcpus_max is None or not each:
            return most
        left = self.vcpus_max - sum(region.vcpus(one.instance_type) or 0 for one in _alive(region))
        if left // each < least:
            raise ApiRefusal(
                "VcpuLimitExceeded",
                f"You have requested more vCPU capacity than your current vCPU limit of {self.vcpus_max} allows for the"
                " instance bucket that the specified instance type belongs to.",
            )
        return min(most, left // each)

    def _refusal(self, instance_type: str, asked: list[str], able: list[str]) -> ApiRefusal:
        text = f"We currently do not have sufficient {instance_type} capacity"
        if len(asked) == 1:
            text += f" in the Availability Zone you requested ({asked[0]})."
            if able:
                text += (
                    f" You can currently get {instance_type} capacity by not specifying an Availability Zone in your"
                    f" request or choosing {', '.join(able)}."
                )
        else:
            text += " in any Availability Zone of this Region."
        return ApiRefusal("InsufficientInstanceCapacity", text, 500)


def _alive(region: MotoRegion) -> Iterator[Any]:
    return (one for one in region.instances() if one._state.name in ("pending", "running", "stopping"))


def _zone(instance: Any) -> str:
    return str(instance.placement.zone)


# -- client tokens


class TokenLedger:
    """What was answered to each client token: the same call again gets the same answer and does nothing."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str], tuple[tuple[tuple[str, str], ...], Any, frozenset[str]]] = {}

    def replay(self, call: ApiCall, region: MotoRegion) -> Any | None:
        """The answer that was given to this token; None if it is new.

        Raises ApiRefusal if the token came with other parameters, or if all that it launched is terminated.
        """
        token = self._token(call)
        if token is None:
            return None
        if len(token[2]) > TOKEN_CHARACTERS_MAX or not token[2].isascii():
            raise ApiRefusal(
                "InvalidParameterValue", f"ClientToken has more than {TOKEN_CHARACTERS_MAX} ASCII characters"
            )
        if token not in self._answers:
            return None
        pairs, given, launched = self._answers[token]
        if pairs != _meaning(call):
            raise ApiRefusal(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        if launched and all(region.state(one) in (None, "terminated") for one in launched):
            raise ApiRefusal(
                "IdempotentInstanceTerminated", "The client token belongs to a request whose instances are terminated."
            )
        return given

    def remember(self, call: ApiCall, given: Any, launched: frozenset[str]) -> None:
        """Keep the answer of a call that succeeded."""
        token = self._token(call)
        if token is not None and not call.truth("DryRun"):
            self._answers[token] = (_meaning(call), given, launched)

    def _token(self, call: ApiCall) -> tuple[str, str, str] | None:
        token = call.get("ClientToken")
        return (call.region, call.action, token) if token else None


def _meaning(call: ApiCall) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in call.pairs if key != "DryRun"))


# -- eventual consistency


@dataclass
class Visibility:
    """New things stay out of the answers of the first `describes` Describe calls of their kind."""

    describes: int = 0
    _left: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def noticing(self, region: MotoRegion) -> Iterator[None]:
        """Around a call that may make things: whatever is new afterwards is invisible for a while."""
        before = set(self._keys(region)) if self.describes else set()
        yield
        if self.describes:
            for key in self._keys(region):
                if key not in before:
                    self._left[key] = self.describes

    @contextmanager
    def hiding(self, call: ApiCall, region: MotoRegion) -> Iterator[None]:
        """Around a Describe call: take away what it must not see yet."""
        away: list[tuple[Any, dict[str, Any]]] = []
        for shelf in region.shelves().get(call.action, []):
            young = [key for key in shelf if self._left.get(key, 0) > 0]
            away.append((shelf, dict(shelf)))
            for key in young:
                self._left[key] -= 1
                del shelf[key]
        try:
            yield
        finally:
            for shelf, whole in away:
                shelf.clear()
                shelf.update(whole)

    def _keys(self, region: MotoRegion) -> Iterator[str]:
        for name, shelves in region.shelves().items():
            if name != "DescribeInstanceStatus":
                for shelf in shelves:
                    yield from list(shelf)

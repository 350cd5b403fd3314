"""How many instances there are to be had: capacity of zones, and the quotas of the account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.launch import counts
from moto_fixtures.rules.spot import is_spot


@dataclass
class CapacityTable:
    """How many instances of a type fit into a zone, and how many vCPUs the account may run.

    Amazon EC2 API Reference, "RunInstances": MinCount and MaxCount, and "Error codes":
    InsufficientInstanceCapacity, VcpuLimitExceeded, MaxSpotInstanceCountExceeded.  Amazon EC2 User Guide, "Amazon EC2
    instance type quotas": on-demand and spot instances are counted apart, both in vCPUs.

    limits: (type, zone) or (type, "*") to a number; what is not named is unlimited.
    vcpus_max, spot_vcpus_max: the quotas of the account; None for no quota.
    """

    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    vcpus_max: int | None = None
    spot_vcpus_max: int | None = None

    def set(self, instance_type: str, zone: str, count: int) -> None:
        """Let `count` instances of a type exist at a time in a zone, or in each zone if the zone is `*`."""
        self.limits[(instance_type, zone)] = count

    def place(self, call: ApiCall, region: MotoRegion) -> ApiCall:
        """Choose zone, subnet and number for a RunInstances call; the number ends as MinCount, as moto needs it.

        Raises ApiRefusal with InsufficientInstanceCapacity or VcpuLimitExceeded.
        """
        least, most = counts(call)
        instance_type = call.get("InstanceType") or "m1.small"
        most = self._within_quota(is_spot(call), instance_type, (least, most), region)
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

    def _within_quota(self, spot: bool, instance_type: str, wanted: tuple[int, int], region: MotoRegion) -> int:
        least, most = wanted
        quota = self.spot_vcpus_max if spot else self.vcpus_max
        each = region.vcpus(instance_type)
        if quota is None or not each:
            return most
        counted = (one for one in _alive(region) if (one.lifecycle == "spot") == spot)
        left = quota - sum(region.vcpus(one.instance_type) or 0 for one in counted)
        if left // each >= least:
            return min(most, left // each)
        if spot:
            raise ApiRefusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise ApiRefusal(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {quota} allows for the instance"
            " bucket that the specified instance type belongs to.",
        )

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

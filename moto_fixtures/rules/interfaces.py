"""Network interfaces and the addresses of subnets."""

from __future__ import annotations

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.launch import counts, fixed_address


def address_is_free(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A fixed private address belongs to one interface at a time.

    Amazon EC2 API Reference, "Error codes": InvalidIPAddress.InUse.
    """
    address = fixed_address(call)
    if address and region.private_address_in_use(address):
        raise ApiRefusal("InvalidIPAddress.InUse", f"Address {address} is in use.")
    return call


def subnet_has_room(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Each interface takes an address of its subnet, of which five are AWS's own.

    Amazon VPC User Guide, "Subnet CIDR blocks"; Amazon EC2 API Reference, "Error codes":
    InsufficientFreeAddressesInSubnet.
    """
    subnet = call.get("SubnetId") or call.get("NetworkInterface.1.SubnetId")
    free = region.free_addresses(subnet) if subnet else None
    wanted = counts(call)[0] if call.action == "RunInstances" else 1
    if free is not None and free < wanted:
        raise ApiRefusal(
            "InsufficientFreeAddressesInSubnet",
            f"The specified subnet does not have enough free addresses to satisfy the request. ({subnet}: {free} free)",
        )
    return call


def interface_is_loose(call: ApiCall, region: MotoRegion) -> ApiCall:
    """An interface that is attached cannot be deleted.

    Amazon EC2 API Reference, "DeleteNetworkInterface": it must be detached first; "Error codes": InvalidParameterValue.
    """
    interface = region.backend.enis.get(call.get("NetworkInterfaceId") or "")
    if interface is not None and interface.instance is not None and interface.status == "in-use":
        raise ApiRefusal("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
    return call


def interface_tags(call: ApiCall) -> dict[str, str]:
    """The tags that a RunInstances call gives to interfaces, which moto drops.

    Amazon EC2 API Reference, "RunInstances": TagSpecification.N with the resource type network-interface.
    """
    tags: dict[str, str] = {}
    for index in call.indexes("TagSpecification"):
        prefix = f"TagSpecification.{index}"
        if call.get(f"{prefix}.ResourceType") != "network-interface":
            continue
        for number in call.indexes(f"{prefix}.Tag"):
            tags[call.get(f"{prefix}.Tag.{number}.Key") or ""] = call.get(f"{prefix}.Tag.{number}.Value") or ""
    return tags


def kept_interfaces(call: ApiCall) -> set[int]:
    """Device indexes of the interfaces that shall outlive the instance: said so, or made before the launch.

    Amazon EC2 API Reference, "InstanceNetworkInterfaceSpecification": DeleteOnTermination.
    """
    kept = set()
    for index in call.indexes("NetworkInterface"):
        prefix = f"NetworkInterface.{index}"
        said = (call.get(f"{prefix}.DeleteOnTermination") or "").lower()
        made_before = call.get(f"{prefix}.NetworkInterfaceId") is not None
        if said == "false" or (made_before and said != "true"):
            kept.add(int(call.get(f"{prefix}.DeviceIndex") or 0))
    return kept

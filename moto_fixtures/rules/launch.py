"""Rules of RunInstances: Amazon EC2 API Reference, "RunInstances", if a rule does not say otherwise."""

from __future__ import annotations

import base64
import binascii

from moto_fixtures.account import ROOT_DEVICE, ROOT_VOLUME_GIB, MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal

USER_DATA_BYTES_MAX = 16384


def user_data_fits(call: ApiCall, region: MotoRegion) -> ApiCall:
    """At most 16 KB of user-data, counted after base64 is undone.

    Amazon EC2 User Guide, "Run commands when you launch an EC2 instance with user data input".
    """
    return _checked_user_data(call, "UserData")


def new_user_data_fits(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The same for ModifyInstanceAttribute, which changes user-data of a stopped instance only.

    Amazon EC2 API Reference, "ModifyInstanceAttribute": UserData.
    """
    name = "UserData.Value"
    text = call.get(name)
    if text is None and call.get("Attribute") == "userData":
        name, text = "Value", call.get("Value")
    if text is None:
        return call
    instance_id = call.get("InstanceId") or ""
    state = region.state(instance_id)
    if state not in (None, "stopped"):
        raise ApiRefusal(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is not in the 'stopped' state; its user data cannot be changed. (it is"
            f" {state})",
        )
    _checked_user_data(call, name)
    # moto undoes base64 once too often here.
    return call.with_parameters({name: base64.b64encode(text.encode()).decode()})


def type_changes_at_rest(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The type of an instance changes while it is stopped.

    Amazon EC2 API Reference, "ModifyInstanceAttribute": InstanceType.
    """
    instance_id = call.get("InstanceId") or ""
    named = call.get("InstanceType.Value") or (call.get("Attribute") == "instanceType" and call.get("Value"))
    state = region.state(instance_id)
    if named and state not in (None, "stopped"):
        raise ApiRefusal(
            "IncorrectInstanceState", f"The instance '{instance_id}' is not in the 'stopped' state. (it is {state})"
        )
    return call


def _checked_user_data(call: ApiCall, name: str) -> ApiCall:
    try:
        content = base64.b64decode(call.get(name) or "", validate=True)
    except binascii.Error:
        raise ApiRefusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    if len(content) > USER_DATA_BYTES_MAX:
        raise ApiRefusal("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES_MAX} bytes")
    return call


def parameters_agree(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Parameters that exclude each other: SecurityGroupId, NetworkInterface, PrivateIpAddress, MinCount, MaxCount."""
    has_interfaces = bool(call.indexes("NetworkInterface"))
    has_groups = bool(call.indexes("SecurityGroupId") or call.indexes("SecurityGroup"))
    if has_interfaces and has_groups:
        raise ApiRefusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    least, most = counts(call)
    if most > 1 and fixed_address(call):
        raise ApiRefusal(
            "InvalidParameterCombination", "A private IP address can only be specified when launching one instance"
        )
    if least < 1 or least > most:
        raise ApiRefusal("InvalidParameterValue", f"Minimum count {least} must be at least 1 and at most {most}")
    return call


def groups_exist(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Groups are there before they are used; moto invents one that an interface names.

    Amazon EC2 API Reference, "Error codes": InvalidGroup.NotFound.
    """
    named = call.numbered("SecurityGroupId")
    for index in call.indexes("NetworkInterface"):
        named += call.numbered(f"NetworkInterface.{index}.SecurityGroupId")
    for group_id in named:
        if region.group(group_id) is None:
            raise ApiRefusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
    return call


def image_is_known(call: ApiCall, region: MotoRegion) -> ApiCall:
    """`resolve:ssm:NAME` stands for the image that the public parameter NAME holds.

    AWS Systems Manager User Guide, "Using parameter support for Amazon Machine Image IDs".
    """
    image = call.get("ImageId") or ""
    if not image.startswith("resolve:ssm:"):
        return call
    name = image.removeprefix("resolve:ssm:")
    if name not in region.parameters:
        raise ApiRefusal("InvalidParameterValue", f"Systems Manager parameter {name} was not found or is not an image")
    return call.with_parameters({"ImageId": region.parameters[name]})


def root_volume_is_named(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The root volume has the image's device name and, unless the call says otherwise, goes with the instance.

    Amazon EC2 API Reference, "EbsBlockDevice": DeleteOnTermination.
    """
    indexes = call.indexes("BlockDeviceMapping")
    device = region.root_device(call.get("ImageId") or "") or ROOT_DEVICE
    changes: dict[str, str | None] = {}
    for index in indexes:
        prefix = f"BlockDeviceMapping.{index}"
        if call.get(f"{prefix}.DeviceName") == device:
            if call.get(f"{prefix}.Ebs.DeleteOnTermination") is None:
                changes[f"{prefix}.Ebs.DeleteOnTermination"] = "true"
            if call.get(f"{prefix}.Ebs.VolumeSize") is None:
                changes[f"{prefix}.Ebs.VolumeSize"] = str(ROOT_VOLUME_GIB)
            return call.with_parameters(changes)
    prefix = f"BlockDeviceMapping.{max(indexes, default=0) + 1}"
    changes[f"{prefix}.DeviceName"] = device
    changes[f"{prefix}.Ebs.VolumeSize"] = str(ROOT_VOLUME_GIB)
    changes[f"{prefix}.Ebs.DeleteOnTermination"] = "true"
    return call.with_parameters(changes)


def counts(call: ApiCall) -> tuple[int, int]:
    """MinCount and MaxCount of a launch."""
    least = int(call.get("MinCount") or 1)
    return least, int(call.get("MaxCount") or least)


def fixed_address(call: ApiCall) -> str | None:
    """The private address that a RunInstances call asks for, at the top or in its first interface."""
    return call.get("PrivateIpAddress") or call.get("NetworkInterface.1.PrivateIpAddress")

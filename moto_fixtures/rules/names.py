"""How ids, filters and names of groups must look."""

from __future__ import annotations

import re

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal

#: Amazon EC2 API Reference, "Error codes": FilterLimitExceeded; "DescribeInstances": 200 values in all filters.
FILTER_VALUES_MAX = 200
GROUP_NAME_CHARACTERS_MAX = 255

_MALFORMED = {
    "InstanceId": (re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidInstanceID.Malformed"),
    "GroupId": (re.compile(r"sg-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidGroupId.Malformed"),
    "SecurityGroupId": (re.compile(r"sg-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidGroupId.Malformed"),
    "VolumeId": (re.compile(r"vol-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidParameterValue"),
}
_GROUP_WORD = re.compile(r"[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]*")


def check_names(call: ApiCall) -> None:
    """Refuse ids that are none, and too many values of filters.  Raises ApiRefusal.

    Amazon EC2 User Guide, "Resource IDs": a prefix and 8 or 17 hexadecimal digits; "Error codes":
    InvalidInstanceID.Malformed, InvalidGroupId.Malformed.
    """
    values = 0
    for key, value in call.pairs:
        first, _, rest = key.partition(".")
        values += first == "Filter" and ".Value." in key
        if first in _MALFORMED and (not rest or rest.isdigit()):
            pattern, code = _MALFORMED[first]
            if not pattern.fullmatch(value):
                raise ApiRefusal(code, f'Invalid id: "{value}"')
    if values > FILTER_VALUES_MAX:
        raise ApiRefusal(
            "FilterLimitExceeded",
            f"The maximum number of filter values on a single call is {FILTER_VALUES_MAX}",
        )


def group_words_fit(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Name and description of a group: length, characters, and no name that looks like an id.

    Amazon EC2 API Reference, "CreateSecurityGroup": GroupName, GroupDescription.
    """
    for parameter in ("GroupName", "GroupDescription"):
        text = call.get(parameter) or ""
        if len(text) > GROUP_NAME_CHARACTERS_MAX or not _GROUP_WORD.fullmatch(text):
            raise ApiRefusal(
                "InvalidParameterValue",
                f"Value ({text}) for parameter {parameter} is invalid. Character sets beyond ASCII are not supported,"
                f" and {GROUP_NAME_CHARACTERS_MAX} characters are the most.",
            )
    if (call.get("GroupName") or "").startswith("sg-"):
        raise ApiRefusal("InvalidParameterValue", "Group names may not be in the format sg-*")
    return call


def resources_exist(call: ApiCall, region: MotoRegion) -> ApiCall:
    """What is tagged is there; moto keeps tags of anything.

    Amazon EC2 API Reference, "CreateTags"; "Error codes": InvalidInstanceID.NotFound, InvalidGroup.NotFound.
    """
    for name in call.numbered("ResourceId"):
        if name.startswith("i-") and region.instance(name) is None:
            raise ApiRefusal("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        if name.startswith("sg-") and region.group(name) is None:
            raise ApiRefusal("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
        if name.startswith("vol-") and name not in region.backend.volumes:
            raise ApiRefusal("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
        if name.startswith("eni-") and name not in region.backend.enis:
            raise ApiRefusal("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{name}' does not exist")
    return call

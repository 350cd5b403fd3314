"""Security groups."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.requests import as_parameters

#: Amazon VPC User Guide, "Amazon VPC quotas": inbound or outbound rules per security group.
RULES_MAX = 60
#: The same: security groups per network interface.
GROUPS_PER_INTERFACE_MAX = 5


def group_is_unused(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A group that an interface, an instance or a rule of another group uses cannot be deleted.

    Amazon EC2 API Reference, "DeleteSecurityGroup": DependencyViolation.
    """
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


def rules_differ(call: ApiCall, region: MotoRegion) -> ApiCall:
    """No rule comes twice in one call; whether it is there already is moto's to say.

    Amazon EC2 API Reference, "AuthorizeSecurityGroupIngress"; "Error codes": InvalidParameterValue and
    InvalidPermission.Duplicate.
    """
    seen = Counter(json.dumps(rule, sort_keys=True) for rule in _rules(call))
    if any(times > 1 for times in seen.values()):
        raise ApiRefusal("InvalidParameterValue", "The same permission must not appear multiple times")
    return call


def rules_fit(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A group holds so many rules in each direction; each network or group that a permission names is one rule.

    Amazon VPC User Guide, "Amazon VPC quotas": rules per security group; "Error codes":
    RulesPerSecurityGroupLimitExceeded.
    """
    group = region.group(call.get("GroupId") or "") or region.group_named(call.get("GroupName") or "")
    if group is None:
        return call
    held = group.ingress_rules if call.action.endswith("Ingress") else group.egress_rules
    if len(held) + len(_rules(call)) > RULES_MAX:
        raise ApiRefusal(
            "RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached."
        )
    return call


def interface_groups_fit(call: ApiCall, region: MotoRegion) -> ApiCall:
    """An interface is in so many groups at most.

    Amazon VPC User Guide, "Amazon VPC quotas"; "Error codes": SecurityGroupsPerInterfaceLimitExceeded.
    """
    named = [call.numbered("SecurityGroupId")]
    named += [call.numbered(f"NetworkInterface.{index}.SecurityGroupId") for index in call.indexes("NetworkInterface")]
    if any(len(groups) > GROUPS_PER_INTERFACE_MAX for groups in named):
        raise ApiRefusal(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"The maximum number of security groups per interface has been reached: {GROUPS_PER_INTERFACE_MAX}.",
        )
    return call


def _rules(call: ApiCall) -> list[dict[str, Any]]:
    """Each single rule of a call: a permission with one network or one group."""
    rules: list[dict[str, Any]] = []
    for permission in as_parameters(call).get("IpPermissions", []):
        kinds = ("IpRanges", "Ipv6Ranges", "UserIdGroupPairs", "PrefixListIds")
        where = {key: value for key, value in permission.items() if key not in kinds}
        for kind in kinds:
            for peer in permission.get(kind, []):
                rules.append(where | {kind: {key: value for key, value in peer.items() if key != "Description"}})
    return rules

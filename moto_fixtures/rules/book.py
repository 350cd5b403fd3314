"""Which rules a call passes, in which order.  Capacity and client tokens come after them."""

from __future__ import annotations

from collections.abc import Callable

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall
from moto_fixtures.rules import groups, interfaces, launch, names, spot, states, tagging

Rule = Callable[[ApiCall, MotoRegion], ApiCall]

RULES: dict[str, tuple[Rule, ...]] = {
    "RunInstances": (
        launch.user_data_fits,
        launch.parameters_agree,
        launch.groups_exist,
        groups.interface_groups_fit,
        spot.options_agree,
        interfaces.address_is_free,
        interfaces.subnet_has_room,
        launch.image_is_known,
        launch.root_volume_is_named,
    ),
    "CreateNetworkInterface": (
        launch.groups_exist,
        groups.interface_groups_fit,
        interfaces.address_is_free,
        interfaces.subnet_has_room,
    ),
    "DeleteNetworkInterface": (interfaces.interface_is_loose,),
    "AuthorizeSecurityGroupIngress": (groups.rules_differ, groups.rules_fit),
    "AuthorizeSecurityGroupEgress": (groups.rules_differ, groups.rules_fit),
    "DeleteSecurityGroup": (groups.group_is_unused,),
    "StartInstances": (states.can_start,),
    "StopInstances": (states.can_stop,),
    "RebootInstances": (states.can_reboot,),
    "ModifyInstanceAttribute": (launch.type_changes_at_rest, launch.new_user_data_fits),
    "CreateSecurityGroup": (names.group_words_fit,),
    "CreateTags": (names.resources_exist,),
    "DeleteTags": (tagging.own_tags_go,),
}


def apply_rules(call: ApiCall, region: MotoRegion) -> ApiCall:
    """The call as the rules leave it.  Raises ApiRefusal."""
    if (call.indexes("Tag") and call.action == "CreateTags") or call.indexes("TagSpecification"):
        call = tagging.tags_fit(call, region)
    for rule in RULES.get(call.action, ()):
        call = rule(call, region)
    return call
